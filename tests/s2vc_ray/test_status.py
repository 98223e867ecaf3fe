"""What `status` says of a destination in which everything has happened, however large it is."""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict

import pytest
from rich.console import Console

from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError
from s2vc_ray.status import StatusReport, status, status_tables
from s2vc_ray.storage import Unfinished
from s2vc_ray.survey import parse_age
from tests.destinations import DAY, describe, gop_key, video_id
from tests.memory_storage import MemoryStorage

WEEK = 7 * DAY


@pytest.fixture
def storage() -> MemoryStorage:
    """One of everything."""
    storage = MemoryStorage()
    storage.put("ok.mp4.s2vc", b"x" * 10)
    describe(storage, "ok.mp4", "ok", size=10, gops=3)
    storage.put("tapes/cut.mp4.s2vc", b"x" * 20)
    describe(storage, "tapes/cut.mp4", "partial", size=20)
    describe(storage, "letter.mp4", "failed")
    storage.put("repaired.mp4.s2vc", b"x" * 30)
    describe(storage, "repaired.mp4", "failed", job=1)
    describe(storage, "repaired.mp4", "ok", size=30, job=2)
    storage.put("worse.mp4.s2vc", b"x" * 40)
    describe(storage, "worse.mp4", "ok", size=40, job=1)
    describe(storage, "worse.mp4", "failed", job=2, error_class="ObjectExists")
    describe(storage, "lost.mp4", "ok", size=50)
    storage.put("swapped.mp4.s2vc", b"other bytes")
    describe(storage, "swapped.mp4", "ok", size=60)
    storage.put("crashed.mp4.s2vc", b"x" * 70)
    for index in range(3):
        storage.put_at(gop_key("running.mp4", index), b"gop", 60 * (index + 1))
    storage.put_at(gop_key("crashed.mp4", 0), b"gop", DAY)
    storage.put_at(gop_key("ok.mp4", 0), b"gop", 60)
    storage.put_at(gop_key("given-up.mp4", 0), b"gopgop", 8 * DAY)
    storage.writes += [
        Unfinished("big.mp4.s2vc", "1", storage.clock - 8 * DAY),
        Unfinished("new.mp4.s2vc", "2", storage.clock - DAY),
        Unfinished("somebody's.zip", "3", storage.clock - 99 * DAY),
    ]
    storage.put("notes.txt", b"mine")
    storage.put("manifest/readme.txt", b"mine")
    return storage


def names(report: StatusReport) -> dict[str, list[str]]:
    return {
        state: [entry["name"] for entry in entries] for state, entries in report.entries.items() if entries
    }


def test_everything_is_in_its_place(storage: MemoryStorage) -> None:
    report = status(storage, older_than=WEEK)
    assert names(report) == {
        "done": ["ok.mp4", "repaired.mp4"],
        "partial": ["tapes/cut.mp4"],
        "failed": ["letter.mp4", "worse.mp4"],
        "missing": ["lost.mp4", "swapped.mp4"],
        "staged": sorted([video_id("crashed.mp4"), video_id("running.mp4")]),
        "undescribed": ["crashed.mp4.s2vc", "swapped.mp4.s2vc"],
        "orphaned": [*sorted(["ok.mp4", video_id("given-up.mp4")], key=len)],
        "dangling": ["big.mp4.s2vc"],
    }
    assert {state: number for state, number in report.counts.items() if number} == {
        state: len(entries) for state, entries in names(report).items()
    }
    assert report.errors == {"SourceError": 1, "ObjectExists": 1}
    assert report.bytes["done"] == 40
    assert not report.clean


def test_staged_videos_say_how_many_gops_how_large_and_how_old(storage: MemoryStorage) -> None:
    (running,) = (
        entry
        for entry in status(storage, older_than=WEEK).entries["staged"]
        if entry["video_id"] == video_id("running.mp4")
    )
    assert (running["gops"], running["bytes"], running["age"], running["idle"]) == (3, 9, 180, 60)


def test_only_finished_and_littered_destinations_are_clean() -> None:
    storage = MemoryStorage()
    storage.put("ok.mp4.s2vc", b"x")
    describe(storage, "ok.mp4", "ok", size=1)
    assert status(storage, older_than=WEEK).clean
    storage.put_at(gop_key("ok.mp4", 0), b"gop", 0)
    storage.writes.append(Unfinished("ok.mp4.s2vc", "", 0))
    assert status(storage, older_than=WEEK).clean
    storage.put("more.mp4.s2vc", b"x")
    assert not status(storage, older_than=WEEK).clean


def test_a_part_that_cannot_be_read_is_named_and_the_rest_is_told(storage: MemoryStorage) -> None:
    storage.put("manifest/job=x/0123456789abcdef.parquet", b"no parquet")
    storage.put("manifest/job=x/other.parquet", b"")
    report = status(storage, older_than=WEEK)
    assert report.counts["unreadable"] == 2
    assert report.counts["done"] == 2


def test_an_archive_published_after_its_place_was_listed_is_not_missing(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = MemoryStorage.list

    def late(self: MemoryStorage, prefix: str = "") -> object:
        yield from listed(self, prefix)
        storage.put("lost.mp4.s2vc", b"x" * 50)

    monkeypatch.setattr(MemoryStorage, "list", late)
    report = status(storage, older_than=WEEK)
    assert "lost.mp4" in names(report)["done"]


def test_nothing_there_is_an_error_and_a_limit_is_kept(storage: MemoryStorage) -> None:
    empty = MemoryStorage()
    empty.put("holiday.jpg", b"x")
    with pytest.raises(ObjectMissing, match="nothing of a compress job"):
        status(empty, older_than=WEEK)
    report = status(storage, older_than=WEEK, limit=1)
    assert all(len(entries) <= 1 for entries in report.entries.values())
    assert report.counts["failed"] == 2
    assert len(status(storage, older_than=WEEK, limit=0).entries["failed"]) == 2


def test_tables_escape_what_a_terminal_would_obey(storage: MemoryStorage) -> None:
    describe(storage, "evil\x1b]0;owned\x07\nname.mp4", "failed", error="red \x1b[31m")
    console = Console(width=200, record=True)
    with console.capture() as captured:
        console.print(status_tables(status(storage, older_than=WEEK, limit=2)), markup=False, highlight=False)
    text = captured.get()
    assert r"evil\x1b]0;owned\x07\nname.mp4" in text
    assert "\x1b]0;" not in text
    assert "... and 1 more" in text
    assert "3 GOPs, 9 B" in text


def test_a_store_that_fails_is_no_report(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MemoryStorage, key: str, start: int = 0, end: int | None = None) -> bytes:
        raise StorageError("cannot read")

    monkeypatch.setattr(MemoryStorage, "read", broken)
    with pytest.raises(StorageError, match="cannot read"):
        status(storage, older_than=WEEK)


class Large(MemoryStorage):
    """Many objects that exist only while they are listed."""

    def __init__(self, videos: int) -> None:
        super().__init__()
        self.videos = videos
        describe(self, "x.mp4", "ok", size=1)
        ((self.part, _),) = self.objects.values()

    def list(self, prefix: str = "") -> object:  # type: ignore[override]
        from s2vc_ray.storage import ObjectStat

        assert prefix == ""
        self.asked.append("list")
        for number in range(self.videos):
            staged = gop_key("v", number).replace(video_id("v"), f"{number:016x}")
            for key in (f"v{number}.mp4.s2vc", staged, f"foreign/{number}.jpg"):
                yield ObjectStat(key, 1, "", self.clock)
        for number in range(self.videos // 20):
            yield ObjectStat(f"manifest/job=j/{number:016x}.parquet", 1, "", self.clock)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self.part


@pytest.mark.slow
def test_memory_stays_flat_and_requests_few_up_to_a_hundred_thousand_objects() -> None:
    peaks = []
    for videos in (1_000, 33_000):
        storage = Large(videos)
        tracemalloc.start()
        report = status(storage, older_than=WEEK)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.counts["staged"] == videos
        assert report.counts["undescribed"] == videos
        assert storage.asked.count("list") == 1
        assert len(storage.asked) < 5
    assert peaks[1] < peaks[0] + 8e6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 7 * DAY), ("12h", 43200), ("1.5m", 90), ("90s", 90), ("2w", 14 * DAY), ("0", 0)],
)
def test_ages_are_read(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "7 days", "1y", "nan"])
def test_nonsense_is_no_age(text: str) -> None:
    with pytest.raises(ConfigError, match="age"):
        parse_age(text)


def test_the_report_is_plain_values(storage: MemoryStorage) -> None:
    import json

    assert json.loads(json.dumps(asdict(status(storage, older_than=WEEK))))["counts"]["done"] == 2
