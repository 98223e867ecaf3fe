"""Publishing and describing in the order that never lies, also when two drivers do it at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.commit import adopt, commit_video
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import CorruptArchive, ObjectExists, ObjectMissing, StorageError
from s2vc_ray.executor import CodecIdentity, GopBatch, GopTask
from s2vc_ray.fallback import encode_av1
from s2vc_ray.manifest import read_manifest
from s2vc_ray.plan import PlannedVideo, PublishedVideo, plan_video
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import Source
from s2vc_ray.staging import StagedGop, StagedObject, pack_staged, unpack_staged
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.tables import archive_facts
from s2vc_ray.worker import Worker
from tests import media
from tests.fakes import load_fake

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
)
CODEC = CodecIdentity("fake", "fa" * 32, "fake", "cpu", "")
JOB = JobContext("j1", datetime(2026, 1, 2, tzinfo=UTC), CONFIG, CODEC)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


@pytest.fixture
def video(tmp_path: Path, storage: Storage) -> PlannedVideo:
    clip = media.make_clip(tmp_path / "a.mp4", frames=20, audio="aac")
    planned = plan_video(Source(str(clip), "a.mp4"), storage, CONFIG, CODEC.weights_sha256)
    assert isinstance(planned, PlannedVideo)
    return planned


def stage(video: PlannedVideo, storage: Storage) -> list[StagedGop]:
    worker = Worker(storage.uri, CONFIG, load_codec=load_fake)
    outcomes = worker.encode(GopBatch(tuple(GopTask(spec, video.staging) for spec in video.specs))).outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, StagedGop)]


def payloads(gops: list[StagedGop]) -> dict[int, str]:
    return {gop.index: gop.payload_sha256 for gop in gops}


def test_gops_may_come_in_any_order(video: PlannedVideo, storage: Storage) -> None:
    published, gops = commit_video(video, payloads(stage(video, storage)[::-1]), JOB, storage)
    assert [gop.index for gop in gops] == [0, 1, 2]
    found = storage.stat("a.mp4.s2vc")
    assert found is not None
    assert found.size == published.fixity.size
    assert list(storage.list("_s2vc/")) == []


def test_a_missing_gop_publishes_nothing(video: PlannedVideo, storage: Storage) -> None:
    with pytest.raises(CorruptArchive, match="2 of 3 GOPs"):
        commit_video(video, payloads(stage(video, storage)[:2]), JOB, storage)
    assert storage.stat("a.mp4.s2vc") is None


def test_a_damaged_staged_gop_publishes_nothing(video: PlannedVideo, storage: Storage) -> None:
    gops = stage(video, storage)
    storage.put(gops[1].key, storage.read(gops[1].key)[:-1] + b"?", overwrite=True)
    with pytest.raises(StorageError, match=gops[1].key):
        commit_video(video, payloads(gops), JOB, storage)
    assert storage.stat("a.mp4.s2vc") is None
    assert list(storage.list("manifest/")) == []


def test_vanished_staging_without_an_archive_is_an_error(video: PlannedVideo, storage: Storage) -> None:
    gops = stage(video, storage)
    storage.delete(gops[0].key)
    with pytest.raises(ObjectMissing, match="vanished"):
        commit_video(video, payloads(gops), JOB, storage)


def test_the_archive_of_a_faster_driver_is_described(video: PlannedVideo, storage: Storage) -> None:
    gops = stage(video, storage)
    first, _ = commit_video(video, payloads(gops), JOB, storage)
    second, described = commit_video(video, payloads(gops), replace(JOB, job="j2"), storage)
    assert second == first
    assert [gop.payload_sha256 for gop in described] == [gop.payload_sha256 for gop in gops]


def test_a_stranger_under_the_name_is_left_alone(video: PlannedVideo, storage: Storage) -> None:
    gops = stage(video, storage)
    storage.put("a.mp4.s2vc", b"somebody's")
    with pytest.raises(ObjectExists, match="left alone"):
        commit_video(video, payloads(gops), JOB, storage)
    assert storage.read("a.mp4.s2vc") == b"somebody's"
    assert list(storage.list("manifest/")) == []


def test_two_drivers_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(3):
        media.make_clip(folder / f"{seed}.mp4", frames=20, seed=seed)

    def drive(_: int) -> list[str]:
        report = compress([str(folder)], str(tmp_path / "both"), CONFIG, load_codec=load_fake)
        return [video.status for video in report.videos]

    with ThreadPoolExecutor(2) as drivers:
        for statuses in drivers.map(drive, range(2)):
            assert set(statuses) <= {"ok", "skipped"}
    for name in ("0.mp4", "1.mp4", "2.mp4"):
        size = (tmp_path / "both" / f"{name}.s2vc").stat().st_size
        described = [
            row for row in read_manifest(str(tmp_path / "both")).to_pylist() if row["source_name"] == name
        ]
        assert {row["archive_bytes"] for row in described} == {size}
        listed = hashlib.sha256((tmp_path / "both" / f"{name}.framemd5").read_bytes()).hexdigest()
        assert {row["framemd5_sha256"] for row in described} == {listed}
        assert {row["gop_index"] for row in described} == {0, 1, 2}


LIST = "a.mp4.framemd5"


def test_the_frame_list_lies_beside_the_archive_and_in_the_row(video: PlannedVideo, storage: Storage) -> None:
    commit_video(video, payloads(stage(video, storage)), JOB, storage)
    text = storage.read(LIST)
    assert f"#source_sha256: {video.fixity.sha256}\n".encode() in text
    assert len([line for line in text.splitlines() if not line.startswith(b"#")]) == 20
    rows = read_manifest(storage).to_pylist()
    assert {row["framemd5_sha256"] for row in rows} == {hashlib.sha256(text).hexdigest()}
    assert {row["creator"] for row in rows} == {ArchiveReader(storage.read("a.mp4.s2vc")).header.creator}


def test_a_frame_list_of_other_frames_is_left_alone_and_nothing_published(
    video: PlannedVideo, storage: Storage
) -> None:
    storage.put(LIST, b"#somebody's\n")
    with pytest.raises(ObjectExists, match=r"framemd5.*left alone"):
        commit_video(video, payloads(stage(video, storage)), JOB, storage)
    assert storage.read(LIST) == b"#somebody's\n"
    assert storage.stat("a.mp4.s2vc") is None
    assert list(storage.list("manifest/")) == []


def test_an_archive_without_its_frame_list_is_described_without(
    video: PlannedVideo, storage: Storage
) -> None:
    """As an older version left it."""
    gops = stage(video, storage)
    commit_video(video, payloads(gops), JOB, storage)
    for number, left in enumerate((None, b"#a list of no frame\n", b"no list")):
        storage.delete(LIST)
        if left is not None:
            storage.put(LIST, left)
        job = replace(JOB, job=f"later{number}")
        commit_video(video, payloads(gops), job, storage)
        rows = [row for row in read_manifest(storage).to_pylist() if row["job"] == job.job]
        assert [row["framemd5_sha256"] for row in rows] == [None] * 3


class Crash(Exception):
    """The process is gone."""


class Crashing:
    """A storage whose driver dies before or after its ``fatal``-th change."""

    def __init__(self, storage: Storage, fatal: int, *, after: bool) -> None:
        self._storage = storage
        self._left = fatal
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in ("put", "put_file", "delete_many"):
            return method

        def change(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Crash
            result = method(*arguments, **options)
            if self._left == 0:
                raise Crash
            return result

        return change


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fatal", [1, 2, 3, 4])
def test_a_crash_between_any_two_steps_is_made_good(
    video: PlannedVideo, storage: Storage, fatal: int, after: bool
) -> None:
    """Changes of a commit, in their order: frame list, archive, rows, clearing."""
    gops = stage(video, storage)
    dying: Any = Crashing(storage, fatal, after=after)
    with pytest.raises(Crash):
        commit_video(video, payloads(gops), JOB, dying)
    there = {item.key for item in storage.list() if not item.key.startswith(("_s2vc/", "manifest/"))}
    done = fatal - 1 + after
    assert there == set([LIST, "a.mp4.s2vc"][:done])
    assert len(read_manifest(storage)) == (3 if done >= 3 else 0)
    job = replace(JOB, job="j2")
    parts = [item.key for item in storage.list("manifest/")]
    plan = plan_video(video.source, storage, CONFIG, CODEC.weights_sha256, parts)
    if isinstance(plan, PublishedVideo):
        assert (plan.described is not None) == (done >= 3)
        adopt(plan, job, storage)
    else:
        assert isinstance(plan, PlannedVideo)
        commit_video(plan, payloads(list(plan.staged)), job, storage)
    digest = hashlib.sha256(storage.read(LIST)).hexdigest()
    rows = read_manifest(storage).to_pylist()
    assert {row["framemd5_sha256"] for row in rows} == {digest}
    assert {row["job"] for row in rows} == ({"j1", "j2"} if done >= 3 else {"j2"})
    assert list(storage.list("_s2vc/")) == []


def with_fallback(gops: list[StagedGop], storage: Storage) -> list[StagedGop]:
    """The second GOP as AV1, staged in place of what is there."""
    gop = gops[1]
    coded = encode_av1(media.pictures(gop.frames, gop.width, gop.height), 33)
    payload = coded.to_payload()
    changed = replace(
        gop,
        q=coded.q,
        codec="av1",
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        bits_i=coded.bits_i,
        bits_p=coded.bits_p,
    )
    digests = unpack_staged(storage.read(gop.key), gop.key).digests
    storage.put(gop.key, pack_staged(StagedObject(changed, payload, digests)), overwrite=True)
    return [gops[0], changed, *gops[2:]]


def test_a_gop_of_the_fallback_codec_is_named_so_everywhere(video: PlannedVideo, storage: Storage) -> None:
    gops = with_fallback(stage(video, storage), storage)
    commit_video(video, payloads(gops), JOB, storage)
    reader = ArchiveReader(storage.read("a.mp4.s2vc"))
    assert [(record.codec, record.q) for record in reader.gops()] == [("s2vc", 56), ("av1", 33), ("s2vc", 56)]
    assert archive_facts(reader, verified=True)["codecs"] == {"s2vc": 2, "av1": 1}
    assert archive_facts(reader, verified=False)["codecs"] is None
    rows = read_manifest(storage).to_pylist()
    said = [(row["codec"], row["q"], row["crf"], row["bits_i"] + row["bits_p"]) for row in rows]
    assert [one[:3] for one in said] == [("s2vc", 56, None), ("av1", None, 33), ("s2vc", 56, None)]
    assert [one[3] for one in said] == [8 * gop.payload_bytes for gop in gops]
    # A driver that died before the rows were written left an archive and nothing staged.
    known = PublishedVideo(video.source, video.fixity, video.staging, "a.mp4.s2vc")
    _, described = adopt(known, replace(JOB, job="j2"), storage)
    facts = [(gop.codec, gop.q, gop.bits_i, gop.bits_p) for gop in described]
    assert facts == [(gop.codec, gop.q, gop.bits_i, gop.bits_p) for gop in gops]
