"""A source that changes while it is compressed: no mixture of two versions is ever published, nor staged for later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.framemd5 import read_frame_list
from s2vc_ray.progress import Silent
from s2vc_ray.results import JobReport
from tests import media
from tests.fakes import load_fake

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=4, attempts=1, metrics=MetricPolicy.parse("none")
)


class Swap(Silent):
    """Writes ``other`` over ``clip`` in place, as soon as that is planned or ``after`` GOPs of it are coded."""

    def __init__(self, clip: Path, other: bytes, after: int) -> None:
        self._clip = clip
        self._other = other
        self._left = after

    def planned(self, *_: object, **__: object) -> None:
        self._swap()

    def gop_done(self, *_: object, **__: object) -> None:
        self._left -= 1
        self._swap()

    def _swap(self) -> None:
        if self._left == 0:
            self._clip.write_bytes(self._other)


def run(clip: Path, out: Path, reporter: Silent | None = None) -> JobReport:
    return compress([str(clip)], str(out), CONFIG, reporter=reporter, load_codec=load_fake)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_what_is_published_is_of_one_version(tmp_path: Path, after: int) -> None:
    clip, other = (media.make_clip(tmp_path / f"{seed}.mp4", frames=20, seed=seed) for seed in range(2))
    whole, then = clip.read_bytes(), clip.stat()
    run(clip, tmp_path / "calm")
    report = run(clip, tmp_path / "out", Swap(clip, other.read_bytes(), after))
    (video,) = report.videos
    assert (video.status, video.error_class) == ("failed", "SourceError")
    assert "changed while it was being compressed" in (video.error or "")
    assert len(list((tmp_path / "out").rglob("*.gop"))) == after
    # Whoever put the wrong file there notices, and puts the right one back.
    clip.write_bytes(whole)
    os.utime(clip, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert run(clip, tmp_path / "out").totals.ok == 1
    for name in ("0.mp4.s2vc", "0.mp4.framemd5"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    with (tmp_path / "out" / "0.mp4.framemd5").open("rb") as lines:
        assert sum(1 for _ in read_frame_list(lines)) == 20
