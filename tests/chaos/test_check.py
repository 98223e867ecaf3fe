"""The check must be able to fail: a destination is made whole, harmed in one way, and the harm is named."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vc_ray.archive import ArchiveReader, GopRecord, write_archive
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.gc import collect
from s2vc_ray.staging import STAGING
from tests.chaos.check import Report, Truth, check, digests_of
from tests.chaos.footage import GOP, make_footage
from tests.fakes import FakeCodec, load_fake

VICTIM = "waves.mp4"


def compressed(sources: Path, out: Path) -> None:
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=GOP, metrics=MetricPolicy.parse("none")
    )
    compress([str(sources)], str(out), config, load_codec=load_fake)
    collect(str(out), older_than=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    folder = tmp_path_factory.mktemp("whole")
    clips = make_footage(folder / "in", short=True)
    compressed(folder / "in", folder / "out")
    sources = str(folder / "in")
    truth = Truth(str(folder / "out"), sources, tuple(clips), digests_of(sources), model="fake")
    report = check(truth, load_fake)
    return replace(truth, archives=report.archives)


@pytest.fixture
def truth(whole: Truth, tmp_path: Path) -> Truth:
    """A copy of the destination, to be harmed."""
    shutil.copytree(whole.destination, tmp_path / "out")
    return replace(whole, destination=str(tmp_path / "out"))


def found(truth: Truth) -> Report:
    return check(truth, load_fake)


def archive_of(truth: Truth) -> Path:
    return Path(truth.destination, f"{VICTIM}.s2vc")


def rewrite(truth: Truth, change: Callable[[list[GopRecord]], list[GopRecord]]) -> None:
    """The victim's archive with other records, sound in itself."""
    path = archive_of(truth)
    reader = ArchiveReader(path.read_bytes())
    out = io.BytesIO()
    write_archive(out, reader.header, change(list(reader.gops())), list(reader.passthrough()))
    path.write_bytes(out.getvalue())


def part_of(truth: Truth, name: str = VICTIM) -> Path:
    for path in Path(truth.destination, "manifest").rglob("*.parquet"):
        if pq.ParquetFile(path).read()["source_name"][0].as_py() == name:
            return path
    raise AssertionError(name)


def test_a_whole_destination_is_clean(truth: Truth) -> None:
    report = found(truth)
    assert report.violations == []
    clips = [clip for clip in truth.clips if clip.status != "failed"]
    assert (report.gops, report.frames) == (sum(c.gops for c in clips), sum(c.frames for c in clips))
    assert (report.lost, report.duplicated) == (0, 0)
    assert {clip.status for clip in truth.clips} == {"ok", "partial", "failed"}


def test_a_second_job_leaves_it_clean(truth: Truth) -> None:
    compressed(Path(truth.sources), Path(truth.destination))
    report = found(truth)
    # The failed videos are tried, and described, once more.
    assert report.violations == []


def test_a_dropped_gop_is_lost(truth: Truth) -> None:
    rewrite(truth, lambda records: records[:2] + records[3:])
    report = found(truth)
    assert report.lost == 1
    assert any("GOPs [0, 1, 3, 4] instead of 0..4" in line for line in report.violations)


def test_a_missing_archive_is_lost(truth: Truth) -> None:
    archive_of(truth).unlink()
    report = found(truth)
    assert report.lost == 5
    assert f"{VICTIM}: no archive" in report.violations


def test_a_repeated_row_is_a_duplicate(truth: Truth) -> None:
    path = part_of(truth)
    table = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), path)
    report = found(truth)
    assert report.duplicated == 1
    assert any("GOPs [0, 1, 1, 2, 3, 4]" in line for line in report.violations)


def test_a_missing_row_is_lost(truth: Truth) -> None:
    path = part_of(truth)
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    assert found(truth).lost == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_flipped_byte_is_seen(truth: Truth, share: float) -> None:
    data = bytearray(archive_of(truth).read_bytes())
    data[int(len(data) * share)] ^= 1
    archive_of(truth).write_bytes(data)
    violations = found(truth).violations
    assert any("differs from that of an undisturbed run" in line for line in violations)
    assert any("archive: " in line for line in violations)
    assert any("describes another archive" in line for line in violations)


def test_a_payload_of_another_gop_is_seen_though_every_crc_holds(truth: Truth) -> None:
    rewrite(truth, lambda records: [replace(records[0], payload=records[1].payload), *records[1:]])
    violations = found(truth).violations
    assert not any("archive: " in line for line in violations)
    assert any("payload's digest is not the row's" in line for line in violations)


def test_a_changed_or_missing_frame_list_is_seen(truth: Truth) -> None:
    path = Path(truth.destination, f"{VICTIM}.framemd5")
    path.write_bytes(path.read_bytes().replace(b"0, ", b"1, ", 1))
    said = found(truth).violations
    assert len(said) == 2
    assert any("describes another frame list" in line for line in said)
    assert any("manifest-sha256.txt" in line for line in said)
    path.unlink()
    assert any("describes another frame list" in line for line in found(truth).violations)


@pytest.mark.parametrize("harm", ["missing", "short", "strange"])
def test_a_bag_manifest_that_is_not_true_is_seen(truth: Truth, harm: str) -> None:
    path = Path(truth.destination, "manifest-sha256.txt")
    lines = path.read_text().splitlines(keepends=True)
    changed = {"missing": None, "short": lines[1:], "strange": [*lines, f"{'0' * 64}  poison.mp4.s2vc\n"]}[
        harm
    ]
    path.unlink() if changed is None else path.write_text("".join(changed))
    assert found(truth).violations == ["manifest-sha256.txt: not the digests of what is there"]


def test_symbols_that_differ_are_seen(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the payload was written with other weights: nothing but decoding can tell."""
    decode = FakeCodec._decode

    def wrong(gop: object) -> object:
        return decode(replace(gop, symbol_crc=1))  # type: ignore[type-var]

    monkeypatch.setattr(FakeCodec, "_decode", staticmethod(wrong))
    assert any("symbols differ" in line for line in found(truth).violations)


def test_left_staging_is_seen(truth: Truth) -> None:
    left = Path(truth.destination, STAGING, "x", "y", "000000.gop")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"payload")
    assert any(line.startswith("staging: 1 object") for line in found(truth).violations)


def test_a_stranger_among_the_archives_is_seen(truth: Truth) -> None:
    Path(truth.destination, "poison.mp4.s2vc").write_bytes(b"half an archive")
    assert any("nobody should have written this" in line for line in found(truth).violations)


def test_a_changed_source_is_seen(truth: Truth) -> None:
    assert found(replace(truth, digests={**truth.digests, VICTIM: "00"})).violations == [
        "sources: not the objects and bytes that they were"
    ]


def test_a_missing_failure_row_is_seen(truth: Truth) -> None:
    part_of(truth, "poison.mp4").unlink()
    assert found(truth).violations == ["poison.mp4: no failure row"]


def test_a_healthy_video_that_was_last_called_failed_is_seen(truth: Truth) -> None:
    """The archive is there, but who reads the manifest is told otherwise."""
    table = pq.ParquetFile(part_of(truth, "letter.mp4")).read()
    healthy = pq.ParquetFile(part_of(truth)).read()
    names = ("video_id", "source_name", "source_uri")
    for name in names:
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), healthy[name].slice(0, 1))
    later = pa.array([healthy["created"][0].as_py().replace(year=2999)], table.schema.field("created").type)
    table = table.set_column(table.schema.get_field_index("created"), "created", later)
    folder = Path(truth.destination, "manifest", "job=later")
    folder.mkdir()
    pq.write_table(table, folder / part_of(truth).name)
    report = found(truth)
    assert report.lost == 5
    assert any("the manifest's last word is failed" in line for line in report.violations)
