"""Garbage collection removes exactly what nobody will want, whatever else lies beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2vc_ray import gc as collector
from s2vc_ray.gc import collect
from s2vc_ray.sources import Source
from s2vc_ray.storage import Unfinished, open_storage
from s2vc_ray.storage_local import LocalStorage
from s2vc_ray.storage_s3 import S3Storage
from s2vc_ray.survey import is_staged_gop
from tests.destinations import DAY, describe, gop_key, sweep, video_id
from tests.faulty_s3 import at_time, faulty_s3
from tests.memory_storage import MemoryStorage
from tests.seaweed import SeaweedServer

WEEK = 7 * DAY
AGES = st.sampled_from([0, DAY, WEEK - 1, WEEK, WEEK + 1, 30 * DAY, -DAY])
LOOKALIKES = (
    "film.s2vc",
    "_s2vc/staging.txt",
    "_s2vc/staging/readme.txt",
    "_s2vc/staging-old/{vid}/{fp}/000000.gop",
    "_s2vc/jobs/{vid}/{fp}/000000.gop",
    "_S2VC/staging/{vid}/{fp}/000000.gop",
    "x/_s2vc/staging/{vid}/{fp}/000000.gop",
    "manifest/job=1/notes.parquet",
    "raw/source.mp4",
    "staging/{vid}/{fp}/000000.gop",
)
INSIDE = (
    "_s2vc/staging/{vid}/{fp}/000000.gop.bak",
    "_s2vc/staging/{vid}/{fp}/0.gop",
    "_s2vc/staging/{vid}/{fp}/sub/000000.gop",
    "_s2vc/staging/{vid}/notes.txt",
    "_s2vc/staging/{vid}/000000.gop",
)
VIDEOS = st.fixed_dictionaries(
    {
        "archive": st.sampled_from(["whole", "other size", "none"]),
        "said": st.lists(st.sampled_from(["ok", "partial", "failed"]), max_size=3),
        "gops": st.dictionaries(st.integers(0, 3), AGES, max_size=3),
        "others": st.dictionaries(st.sampled_from(INSIDE), AGES, max_size=2),
    }
)
WRITES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "a.mp4.s2vc",
                "tapes/b.mkv.s2vc",
                ".0123.s2vc-tmp",
                "holiday.zip",
                "raw/source.mp4",
                "a.s2vc.part",
            ]
        ),
        AGES,
    ),
    max_size=4,
)


def name_of(number: int) -> str:
    return f"v{number}.mp4"


def fill(storage: MemoryStorage, videos: list[dict[str, object]], lookalikes: dict[str, float]) -> set[str]:
    """Lay out a destination; returns what must go, by the rules as they are documented."""
    going: set[str] = set()
    for number, video in enumerate(videos):
        name = name_of(number)
        fingerprint = gop_key(name, 0).split("/")[3]
        if video["archive"] != "none":
            storage.put(f"{name}.s2vc", b"x" * (10 if video["archive"] == "whole" else 11))
        for job, said in enumerate(video["said"], 1):
            describe(storage, name, said, size=None if said == "failed" else 10, job=job)
        ages = []
        gops = set()
        for index, age in video["gops"].items():
            storage.put_at(gop_key(name, index), b"gop", age)
            gops.add(gop_key(name, index))
            ages.append(age)
        for pattern, age in video["others"].items():
            storage.put_at(pattern.format(vid=video_id(name), fp=fingerprint), b"x", age)
            ages.append(age)
        published = video["archive"] == "whole" and {"ok", "partial"} & set(video["said"])
        if published or (ages and min(ages) >= WEEK):
            going |= gops
    for pattern, age in lookalikes.items():
        key = pattern.format(vid=video_id(name_of(0)), fp="0" * 16 + "-" + "0" * 16 + "-" + "0" * 8)
        storage.put_at(key, b"mine", age)
    return going


@settings(max_examples=60, deadline=None)
@given(st.lists(VIDEOS, max_size=4), st.dictionaries(st.sampled_from(LOOKALIKES), AGES), WRITES)
def test_exactly_what_should_go_goes(
    videos: list[dict[str, object]], lookalikes: dict[str, float], writes: list[tuple[str, float]]
) -> None:
    storage = MemoryStorage()
    going = fill(storage, videos, lookalikes)
    storage.writes = [Unfinished(key, str(n), storage.clock - age) for n, (key, age) in enumerate(writes)]
    ours = (".s2vc", ".s2vc-tmp")
    aborted = [w for w in storage.writes if w.key.endswith(ours) and storage.clock - w.since >= WEEK]
    before, open_before = dict(storage.objects), list(storage.writes)

    dry = collect(storage, older_than=WEEK, dry_run=True)
    assert (storage.objects, storage.writes) == (before, open_before)
    report = collect(storage, older_than=WEEK)
    assert before.keys() - storage.objects.keys() == going
    assert all(storage.objects[key] == before[key] for key in storage.objects)
    assert [write for write in open_before if write not in storage.writes] == aborted
    assert report.objects == len(going) + len(aborted)
    assert report.bytes == 3 * len(going)
    assert report.removed == dry.removed
    assert collect(storage, older_than=WEEK).removed == []


def test_what_is_staged_is_what_is_recognised() -> None:
    assert is_staged_gop(gop_key("a.mp4", 0))
    assert is_staged_gop(gop_key("a.mp4", 1_234_567))
    assert Source("/in/a.mp4", "a.mp4").video_id == video_id("a.mp4")


def test_a_video_that_comes_back_to_life_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job resumes the video between the survey and the removal."""
    storage = MemoryStorage()
    storage.put_at(gop_key("a.mp4", 0), b"gop", 30 * DAY)
    look_again = collector._going

    def resumed(*arguments: object) -> object:
        storage.put(gop_key("a.mp4", 1), b"gop")
        return look_again(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collector, "_going", resumed)
    assert collect(storage, older_than=WEEK).removed == []
    assert len(storage.objects) == 2


def test_an_archive_that_is_moved_away_meanwhile_keeps_its_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    storage.put("a.mp4.s2vc", b"x" * 10)
    describe(storage, "a.mp4", "ok", size=10)
    storage.put(gop_key("a.mp4", 0), b"gop")
    look_again = collector._going

    def moved(*arguments: object) -> object:
        storage.delete("a.mp4.s2vc")
        return look_again(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collector, "_going", moved)
    assert collect(storage, older_than=WEEK).removed == []
    assert storage.stat(gop_key("a.mp4", 0)) is not None


def test_only_parts_about_staged_videos_are_read() -> None:
    storage = MemoryStorage()
    for number in range(20):
        describe(storage, name_of(number), "failed")
    storage.put_at(gop_key(name_of(7), 0), b"gop", 30 * DAY)
    storage.asked.clear()
    assert collect(storage, older_than=WEEK).objects == 1
    assert len([asked for asked in storage.asked if asked.startswith("read")]) == 1


def test_an_unreadable_part_publishes_nothing() -> None:
    storage = MemoryStorage()
    storage.put("a.mp4.s2vc", b"x" * 10)
    storage.put(f"manifest/job=1/{video_id('a.mp4')}.parquet", b"damaged")
    storage.put(gop_key("a.mp4", 0), b"gop")
    assert collect(storage, older_than=WEEK).removed == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real folder with old and new staging, and temporary files."""
    storage = LocalStorage(tmp_path / "out")
    for name, age in (("old.mp4", 30 * DAY), ("new.mp4", DAY)):
        storage.put(gop_key(name, 0), b"gop")
        temporary = storage.root / f".{name}.s2vc-tmp"
        temporary.touch()
        for path in (storage.root / gop_key(name, 0), temporary):
            os.utime(path, (time.time() - age,) * 2)
    (storage.root / "not-ours.s2vc-tmp").touch()
    os.utime(storage.root / "not-ours.s2vc-tmp", (0, 0))
    (storage.root / "raw").mkdir()
    (storage.root / "raw/source.mp4").write_bytes(b"source")
    return storage.root


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_collected(folder: Path) -> None:
    before = files(folder)
    collect(str(folder), older_than=WEEK, dry_run=True)
    assert files(folder) == before
    report = collect(str(folder), older_than=WEEK)
    assert before - files(folder) == {gop_key("old.mp4", 0), ".old.mp4.s2vc-tmp"}
    assert (report.objects, report.bytes) == (2, 3)


@pytest.mark.parametrize("skew", [-100 * DAY, 100 * DAY])
def test_this_machines_clock_decides_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    before, real = files(folder), time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    collect(str(folder), older_than=WEEK)
    assert before - files(folder) == {gop_key("old.mp4", 0), ".old.mp4.s2vc-tmp"}
    assert sweep(LocalStorage(folder), older_than=DAY - 3600) == 1


@pytest.mark.s3
def test_on_s3_the_servers_clock_decides(
    seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    bucket, client = seaweed_server.new_bucket(), seaweed_server.client()
    with faulty_s3(seaweed_server.endpoint) as proxy:
        storage = S3Storage(bucket, "out", endpoint_url=proxy.endpoint)
        for number in range(3):
            storage.put(gop_key("a.mp4", number), b"gop")
        storage.put("film.mp4.s2vc", b"archive")
        for key in ("out/b.mp4.s2vc", "out/raw/source.mp4", "output/c.mp4.s2vc"):
            client.create_multipart_upload(Bucket=bucket, Key=key)
        assert collect(storage, older_than=WEEK).removed == []
        # The store's clock moves on; this machine's stands still.
        proxy.always("GET", at_time("Sun, 06 Nov 2094 08:49:37 GMT"))
        assert collect(storage, older_than=WEEK, dry_run=True).objects == 4
        assert collect(storage, older_than=WEEK).objects == 4
        assert [found.key for found in storage.list()] == ["film.mp4.s2vc"]
    left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket)["Uploads"]}
    assert left == {"out/raw/source.mp4", "output/c.mp4.s2vc"}


def test_a_destination_without_anything_is_no_trouble(tmp_path: Path) -> None:
    assert collect(open_storage(str(tmp_path / "none")), older_than=0).removed == []
    assert not (tmp_path / "none").exists()
