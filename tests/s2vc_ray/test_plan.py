"""A source becomes GOP references, a skip, or a failure that says why."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import PartIndex
from s2vc_ray.plan import (
    PlannedVideo,
    PublishedVideo,
    VideoFailure,
    plan_video,
    read_fixity,
    read_staged,
)
from s2vc_ray.sources import Source
from s2vc_ray.staging import Metric, StagedObject, pack_staged, staging_key, staging_prefix
from s2vc_ray.storage import open_storage
from s2vc_ray.times import Times
from s2vc_ray.values import FrameDigest
from tests import media
from tests.fakes import load_fake, staged_gop

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
)
WEIGHTS = "fa" * 32


def plan(
    path: Path, config: JobConfig = CONFIG, weights: str = WEIGHTS
) -> PlannedVideo | PublishedVideo | VideoFailure:
    storage = open_storage(str(path.parent / "out"))
    return plan_video(Source(str(path), path.name), storage, config, weights)


def test_specs_cover_every_frame_once(tmp_path: Path) -> None:
    planned = plan(media.make_clip(tmp_path / "a.mp4", frames=20))
    assert isinstance(planned, PlannedVideo)
    assert tuple(pts for spec in planned.specs for pts in spec.pts) == planned.info.pts
    assert planned.fixity.size == (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize(
    ("make", "error_class", "text"),
    [
        (lambda path: path, "ObjectMissing", "no such source"),
        (media.empty_file, "SourceError", "empty file"),
        (media.text_file, "SourceError", "not"),
        (media.make_audio, "SourceError", "audio only"),
    ],
)
def test_unusable_sources(tmp_path: Path, make: Callable[[Path], Path], error_class: str, text: str) -> None:
    failure = plan(make(tmp_path / "a.mp4"))
    assert isinstance(failure, VideoFailure)
    assert failure.error_class == error_class
    assert text in failure.error
    assert "a.mp4" in failure.error


def test_names_too_long_for_the_destination_fail_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=2)
    fits = clip.rename(tmp_path / ("é" * 121 + ".mp4"))
    assert len(fits.name.encode()) == 246
    assert isinstance(plan(fits), PlannedVideo)
    with monkeypatch.context() as patch:
        patch.setattr("s2vc_ray.plan.read_fixity", None)
        failure = plan(fits.rename(tmp_path / ("é" * 121 + "e.mp4")))
    assert isinstance(failure, VideoFailure)
    assert (failure.error_class, "rename it to 246 bytes" in failure.error) == ("ConfigError", True)


def test_a_bug_is_a_failure_of_its_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("s2vc_ray.plan.probe", broken)
    failure = plan(media.make_clip(tmp_path / "a.mp4", frames=2))
    assert isinstance(failure, VideoFailure)
    assert (failure.error_class, "oops" in failure.error) == ("ZeroDivisionError", True)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    clip = media.make_clip(tmp_path / "a.mp4", frames=9)
    assert compress([str(clip)], str(tmp_path / "out"), CONFIG, load_codec=load_fake).clean
    return clip


def test_a_whole_archive_of_the_same_making_is_skipped(published: Path) -> None:
    published.touch()
    assert isinstance(plan(published, replace(CONFIG, workers=3)), PublishedVideo)


def planned_by_manifest(clip: Path) -> PlannedVideo | PublishedVideo | VideoFailure:
    storage, source = open_storage(str(clip.parent / "out")), Source(str(clip), clip.name)
    parts = PartIndex(storage).keys(source.video_id)
    assert len(parts) == 1
    return plan_video(source, storage, CONFIG, WEIGHTS, parts)


def test_what_the_manifest_describes_is_not_read_again(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("s2vc_ray.plan.read_fixity", None)
        broken.setattr("s2vc_ray.plan.ArchiveReader", None)
        found = planned_by_manifest(published)
    assert isinstance(found, PublishedVideo)
    assert found.described is not None
    assert found.described.status == "ok"
    assert found.fixity == read_fixity(str(published))


def test_a_source_or_archive_that_looks_otherwise_is_read(published: Path) -> None:
    published.touch()
    found = planned_by_manifest(published)
    assert isinstance(found, PublishedVideo)
    assert found.described is not None, "the bytes are the same after all"
    media.make_clip(published, frames=9, seed=1)
    assert isinstance(planned_by_manifest(published), VideoFailure)
    archive = published.parent / "out" / "a.mp4.s2vc"
    archive.unlink()
    assert isinstance(planned_by_manifest(published), PlannedVideo)


def test_a_refused_source_fails_with_its_reason(tmp_path: Path) -> None:
    source = Source(str(tmp_path / "a.mp4"), "a.mp4", refused="two of a name")
    failure = plan_video(source, open_storage(str(tmp_path / "out")), CONFIG, WEIGHTS)
    assert isinstance(failure, VideoFailure)
    assert (failure.error_class, failure.error) == ("ConfigError", "two of a name")


@pytest.mark.parametrize(
    ("config", "weights", "text"),
    [
        (replace(CONFIG, quality=1), WEIGHTS, f"q {CONFIG.quality}"),
        (replace(CONFIG, gop=4), WEIGHTS, "GOP 8"),
        (replace(CONFIG, passthrough=False), WEIGHTS, "with passthrough"),
        (CONFIG, "0" * 64, "other weights"),
    ],
)
def test_an_archive_of_another_making_is_an_error(
    published: Path, config: JobConfig, weights: str, text: str
) -> None:
    failure = plan(published, config, weights)
    assert isinstance(failure, VideoFailure)
    assert failure.error_class == "ObjectExists"
    assert text in failure.error
    assert "move a.mp4.s2vc away" in failure.error


def test_an_archive_of_other_bytes_is_an_error(published: Path) -> None:
    media.make_clip(published, frames=9, seed=1)
    failure = plan(published)
    assert isinstance(failure, VideoFailure)
    assert "made from other bytes" in failure.error


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_broken_archive_is_an_error(published: Path, keep: int) -> None:
    archive = published.parent / "out" / "a.mp4.s2vc"
    archive.write_bytes(archive.read_bytes()[:keep])
    failure = plan(published)
    assert isinstance(failure, VideoFailure)
    assert "not a whole archive" in failure.error


def test_what_is_staged_is_known_without_its_measurements_in_little_memory(tmp_path: Path) -> None:
    gops, storage = 600, open_storage(str(tmp_path))
    prefix = staging_prefix("v" * 16, "a" * 64, "b" * 16, MetricPolicy())
    measured = tuple(Metric(name, 1 / 3, 2 / 3, 32, 1 / 7, 5) for name in ("psnr", "ms_ssim", "lpips_alex"))
    for index in range(gops):
        pts = Times(range(32 * index, 32 * (index + 1)))
        key = staging_key(prefix, index)
        gop = replace(staged_gop(index, pts=pts, key=key), pts=pts, metrics=measured)
        digests = tuple(FrameDigest(4608, f"{at:032x}") for at in pts)
        assert storage.put(key, pack_staged(StagedObject(gop, b"payload", digests)))
    tracemalloc.start()
    try:
        found = read_staged(storage, prefix, range(0, gops, 2))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [gop.index for gop in found] == list(range(0, gops, 2))
    assert found[3].pts == tuple(range(192, 224))
    assert held / len(found) < 1700
    assert peak / len(found) < 5000  # of which 256 GOPs' digests and measurements are most
