"""Coding GOPs again, killed at every write and begun again, and by two drivers at once: one version, the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import worker
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import run_job
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.executor import CodecIdentity, GopBatch, GopTask
from s2vc_ray.gc import collect
from s2vc_ray.manifest import PartIndex, read_manifest
from s2vc_ray.plan import PlannedVideo, PublishedVideo, VideoFailure
from s2vc_ray.reencode import reencode
from s2vc_ray.reencode_commit import commit_revision, finish_made
from s2vc_ray.reencode_plan import plan_revision
from s2vc_ray.reencode_select import select
from s2vc_ray.results import JobReport, VideoResult
from s2vc_ray.revision import Revision
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import iter_sources
from s2vc_ray.staging import StagedGop, staging_key
from s2vc_ray.status import status
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.survey import BAG
from tests import media
from tests.fakes import load_fake
from tests.memory_storage import MemoryStorage

CONFIG = JobConfig(
    model="fake",
    executor="local",
    gop=8,
    quality=20,
    allow_larger=True,
    metrics=MetricPolicy.parse("none"),
)
AGAIN = replace(CONFIG, quality=63)
WHERE = "gop_index in (1, 3)"
CODEC = CodecIdentity("fake", "fa" * 32, "fake", "cpu", "")
WRITES = ("put", "put_file", "delete_many")


class Killed(BaseException):
    """What no part of a job handles."""


class Mortal:
    """A storage whose user is killed just before, or just after, one of its writes."""

    def __init__(self, storage: Storage, at: int, *, after: bool) -> None:
        self._storage, self._left, self._after = storage, at, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        return self._dying(found) if name in WRITES else found

    def _dying(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            done = write(*arguments, **options)
            if self._left == 0:
                raise Killed
            return done

        return dying


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("in") / "a.mp4"
    media.make_clip(path, frames=28, audio="aac")
    return path


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return MemoryStorage() if request.param == "memory" else open_storage(str(tmp_path / "out"))


@pytest.fixture
def compressed(clip: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(worker, "open_storage", lambda _: storage)
    run_job(storage, CONFIG, lambda: iter_sources([str(clip)]), load_codec=load_fake)
    return storage


def again(storage: Storage, config: JobConfig = AGAIN) -> JobReport:
    return reencode(storage, WHERE, config, load_codec=load_fake)


def archives(storage: Storage) -> dict[str, str]:
    """Every archive and frame list, by its SHA-256."""
    names = [item.key for item in storage.list() if item.key.endswith((".s2vc", ".framemd5"))]
    return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in names}


def told(storage: Storage) -> list[tuple[Any, ...]]:
    """What the manifest says of the second version, but for times and job."""
    rows = read_manifest(storage).to_pylist()
    names = (
        "archive",
        "archive_sha256",
        "gop_index",
        "q",
        "payload_sha256",
        "payload_offset",
        "status",
        "replaces",
    )
    return [tuple(row[name] for name in names) for row in rows if row["archive_version"] == 2]


def copy_of(storage: Storage, folder: Path) -> Storage:
    copy = MemoryStorage() if isinstance(storage, MemoryStorage) else open_storage(str(folder))
    for item in storage.list():
        copy.put(item.key, storage.read(item.key))
    return copy


def test_killed_at_any_write_it_goes_on_and_ends_with_the_same_bytes(
    compressed: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def storage_of(number: int) -> Storage:
        copy = copy_of(compressed, tmp_path / f"copy-{number}")
        monkeypatch.setattr(worker, "open_storage", lambda _: current[0])
        return copy

    current: list[Any] = [None]
    current[0] = whole = storage_of(0)
    again(whole)
    wanted, rows = archives(whole), told(whole)
    assert len(rows) == 4
    deaths = 0
    for number in range(1, 40):
        copy = storage_of(number)
        current[0] = mortal = Mortal(copy, (number + 1) // 2, after=number % 2 == 0)
        try:
            again(mortal)
        except Killed:
            deaths += 1
        else:
            break
        assert archives(copy).items() <= wanted.items()
        current[0] = copy
        again(copy)
        assert archives(copy) == wanted
        assert sorted(told(copy)) == sorted(rows), f"killed at write {number}"
        assert copy.read(BAG) == whole.read(BAG)
        # What is staged is useless from when it is described, and gc knows.
        collect(copy, older_than=3600)
        assert list(copy.list("_s2vc/")) == []
        assert status(copy, older_than=1).clean
    # Two GOPs, the archive, its rows, staging, the list of archives: before and after each.
    assert deaths >= 12


def test_two_drivers_at_once(clip: Path, tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "both"))
    run_job(storage, CONFIG, lambda: iter_sources([str(clip)]), load_codec=load_fake)
    with ThreadPoolExecutor(2) as drivers:
        for report in drivers.map(lambda _: again(storage), range(2)):
            assert {video.status for video in report.videos} <= {"ok", "skipped"}
    assert set(archives(storage)) == {"a.mp4.s2vc", "a.mp4.v2.s2vc", "a.mp4.framemd5"}
    assert {row[:2] for row in told(storage)} == {("a.mp4.v2.s2vc", archives(storage)["a.mp4.v2.s2vc"])}
    assert list(storage.list("_s2vc/")) == []
    assert status(storage, older_than=1).clean


def planned(storage: Storage, config: JobConfig = AGAIN, where: str = WHERE) -> PlannedVideo:
    plan = plan_revision(chosen(storage, where), storage, config, CODEC.weights_sha256)
    assert isinstance(plan, PlannedVideo), plan
    return plan


def chosen(storage: Storage, where: str = WHERE) -> Revision:
    with select(storage, where, AGAIN) as selection:
        (revision,) = selection.revisions()
    return revision


def stage(video: PlannedVideo, storage: Storage) -> dict[int, str]:
    """SHA-256 of what is staged of each GOP."""
    coder = worker.Worker(storage.uri, AGAIN, load_codec=load_fake)
    outcomes = coder.encode(GopBatch(tuple(GopTask(spec, video.staging) for spec in video.specs))).outcomes
    return {gop.index: gop.payload_sha256 for gop in outcomes if isinstance(gop, StagedGop)}


def job(name: str) -> JobContext:
    return JobContext(name, datetime(2099, 1, 2, tzinfo=UTC), AGAIN, CODEC, WHERE)


def test_the_version_of_a_faster_driver_is_described(compressed: Storage) -> None:
    first, second = planned(compressed), planned(compressed)
    gops = stage(first, compressed)
    made = commit_revision(first, gops, job("j1"), compressed)
    adopted = commit_revision(second, gops, job("j2"), compressed)
    assert not isinstance(made, VideoResult)
    assert not isinstance(adopted, VideoResult)
    assert made[0] == adopted[0]
    by_job = {
        name: [r for r in read_manifest(compressed).to_pylist() if r["job"] == name] for name in ("j1", "j2")
    }
    assert [row["payload_sha256"] for row in by_job["j1"]] == [row["payload_sha256"] for row in by_job["j2"]]
    assert [row["replaces"] for row in by_job["j1"]] == [row["replaces"] for row in by_job["j2"]]


def test_a_version_that_was_published_and_not_described_is_described(compressed: Storage) -> None:
    video = planned(compressed)
    commit_revision(video, stage(video, compressed), job("j1"), compressed)
    parts = PartIndex(compressed).keys(video.source.video_id)
    for part in parts:
        if "job=j1/" in part:
            compressed.delete(part)
    # Staging is gone as well: what was coded again is known, and unmeasured.
    revision = chosen(compressed)
    plan = plan_revision(revision, compressed, AGAIN, CODEC.weights_sha256, parts[:1])
    assert isinstance(plan, PublishedVideo)
    assert plan.described is None
    assert finish_made(plan, job("j2"), compressed).status == "ok"
    rows = [row for row in read_manifest(compressed).to_pylist() if row["job"] == "j2"]
    assert [row["q"] for row in rows] == [20, 63, 20, 63]
    assert [row["attempts"] for row in rows] == [1, 0, 1, 0]
    parts = PartIndex(compressed).keys(video.source.video_id)
    plan = plan_revision(revision, compressed, AGAIN, CODEC.weights_sha256, parts)
    assert isinstance(plan, PublishedVideo)
    assert plan.described is not None


def test_who_asks_for_something_else_at_once_is_refused_and_changes_nothing(compressed: Storage) -> None:
    mine, other = planned(compressed), chosen(compressed, "gop_index = 0")
    commit_revision(mine, stage(mine, compressed), job("j1"), compressed)
    before = archives(compressed)
    plan = plan_revision(other, compressed, AGAIN, CODEC.weights_sha256)
    assert isinstance(plan, VideoFailure)
    assert plan.error_class == "ObjectExists"
    assert "was made otherwise" in plan.error
    assert archives(compressed) == before


def test_staged_gops_serve_whatever_else_is_named(compressed: Storage) -> None:
    video = planned(compressed, where="gop_index = 1")
    stage(video, compressed)
    assert [gop.index for gop in planned(compressed).staged] == [1]
    assert planned(compressed, replace(AGAIN, quality=62)).staged == ()


def test_only_named_gops_are_staged_under_the_version_they_are_for(compressed: Storage) -> None:
    video = planned(compressed)
    stage(video, compressed)
    keys = [item.key for item in compressed.list("_s2vc/")]
    assert [key[-10:] for key in keys] == ["000001.gop", "000003.gop"]
    assert {key.split("/")[-2][-3:] for key in keys} == {"-v2"}


def readers(storage: Storage) -> Iterator[ArchiveReader]:
    yield from (ArchiveReader(storage.read(name)) for name in archives(storage) if name.endswith(".s2vc"))


def test_a_lost_staged_gop_publishes_nothing(compressed: Storage) -> None:
    video = planned(compressed)
    gops = stage(video, compressed)
    compressed.delete(staging_key(video.staging, 1))
    with pytest.raises(Exception, match="vanished"):
        commit_revision(video, gops, job("j1"), compressed)
    assert [reader.header.archive_version for reader in readers(compressed)] == [1]
