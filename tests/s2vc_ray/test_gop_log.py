"""What is known of an archive's GOPs is kept on disk, and of no GOP longer than its turn."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import gop_log
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import StorageError
from s2vc_ray.gop_log import GopLog
from s2vc_ray.manifest import ManifestRow, read_manifest
from s2vc_ray.progress import Silent
from s2vc_ray.risk import Risk
from s2vc_ray.staging import Metric, StagedGop, gop_of
from tests import media
from tests.fakes import load_fake, staged_gop


def gop(index: int) -> StagedGop:
    bare: StagedGop = staged_gop(index, pts=range(40 * index, 40 * index + 4))
    return replace(
        bare,
        metrics=(Metric("psnr", 30.5, 28.25, 4, 29.0, 2),),
        risk=Risk(0.5, 1, 64, 0, 0.25),
        frames_corrupt=index % 2,
        target_met=index % 3 == 0,
    )


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_gops_come_back_as_they_were_however_often(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(gop_log, "_IN_MEMORY", in_memory or 1)
    log, gops = GopLog(), [gop(index) for index in range(30)]
    for number, one in enumerate(gops):
        log.add(one)
        # Whoever reads on meanwhile is not disturbed.
        assert [*log] == gops[: number + 1]
    assert [(one, other) for one, other in zip(log, log, strict=True)] == [(one, one) for one in gops]
    totals = log.totals
    assert (len(log), totals.gops, totals.frames, totals.frames_expected) == (30, 30, 120, 120)
    assert (totals.frames_corrupt, totals.targets_missed) == (15, 20)
    assert (totals.pixels, totals.payload_bytes) == (120 * 32 * 32, 30 * len(b"payload"))


def test_a_full_scratch_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, **_: Any) -> None: ...

        def seek(self, _: int) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(StorageError, match="TMPDIR"):
        GopLog().add(gop(0))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_job_holds_few_gops_and_rows_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """60 GOPs of two frames: what is alive of them whenever one is done, read back, or described."""
    monkeypatch.setattr("s2vc_ray.manifest._ROW_GROUP", 8)
    clip, out = media.make_clip(tmp_path / "a.mp4", frames=120), str(tmp_path / "out")
    most, looks = [0, 0], count()
    options = JobConfig(
        model="fake",
        executor="local",
        allow_larger=True,
        gop=2,
        batch=2,
        deinterlace=True,
        metrics=MetricPolicy.parse("none"),
    )

    def look() -> None:
        if next(looks) % 11 == 10:
            kinds = Counter(map(type, gc.get_objects()))
            most[:] = map(max, most, (kinds[StagedGop], kinds[ManifestRow]))

    class Watching(Silent):
        def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
            if not resumed:
                look()

    def read(fields: Any) -> StagedGop:
        look()
        return gop_of(fields)

    monkeypatch.setattr(gop_log, "gop_of", read)
    if resumed:
        with monkeypatch.context() as broken:
            broken.setattr("s2vc_ray.finish.commit_video", interrupted)
            with pytest.raises(KeyboardInterrupt):
                compress([str(clip)], out, options, load_codec=load_fake)
    report = compress([str(clip)], out, options, load_codec=load_fake, reporter=Watching())
    assert (report.totals.ok, report.totals.gops) == (1, 60)
    assert [row["gop_index"] for row in read_manifest(out).to_pylist()] == list(range(60))
    gops, described = most
    assert 0 < gops < 10
    assert 0 < described < 20


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt
