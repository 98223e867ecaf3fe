"""Every way in which an archive may not be what was committed is found, named, and told from every other."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import SymbolMismatch
from s2vc_ray.archive import ArchiveReader, GopRecord, write_archive
from s2vc_ray.bag import write_bag
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.provenance import read_events
from s2vc_ray.survey import BAG
from s2vc_ray.verify import is_chosen, verify
from s2vc_ray.verify_archive import VerifyOptions
from s2vc_ray.verify_decode import TOLERANCES
from s2vc_ray.verify_report import OUTCOMES, Verdict, VerifyReport
from s2vc_ray.verify_structure import Structure, examine
from tests import media
from tests.fakes import FakeCodec, OutOfMemoryError, load_fake

CONFIG = JobConfig(
    model="fake",
    executor="local",
    allow_larger=True,
    gop=8,
    metrics=MetricPolicy.parse("sample:2", ("psnr",)),
)
DEEP = ("bytes", "symbols", "pixels")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``in`` with three clips, ``out`` as a job left it."""
    root = tmp_path_factory.mktemp("made")
    (root / "in").mkdir()
    for seed in range(3):
        media.make_clip(root / "in" / f"{seed}.mp4", frames=20, seed=seed, audio="aac" if seed == 1 else None)
    compress([str(root / "in")], str(root / "out"), CONFIG, load_codec=load_fake)
    return root


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of the destination, to be harmed."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def run(out: Path | str, depth: str = "bytes", **options: Any) -> VerifyReport:
    codec = options.pop("codec", None)
    load = (lambda model, device: codec) if codec else load_fake
    (report,) = verify([str(out)], VerifyOptions(depth=depth, model="fake", **options), load_codec=load)
    return report


def problem(report: VerifyReport, outcome: str) -> Verdict:
    """The only problem there is."""
    (found,) = report.problems
    assert found.outcome == outcome
    assert OUTCOMES[outcome][1], "says what to do"
    return found


@pytest.mark.parametrize("depth", DEEP)
def test_what_a_job_left_is_good(out: Path, depth: str) -> None:
    report = run(out, depth)
    assert (report.counts, report.problems, report.clean) == ({"ok": 3}, [], True)
    sizes = sum((out / f"{seed}.mp4.s2vc").stat().st_size for seed in range(3))
    assert report.bytes == sizes
    assert (report.gops, report.frames) == ((0, 0) if depth == "bytes" else (9, 60))


def test_structure_reads_headers_and_indexes_only(out: Path) -> None:
    report = run(out, depth="structure")
    assert (report.counts, report.bytes) == ({"ok": 3}, 0)
    path = out / "1.mp4.s2vc"
    data = bytearray(path.read_bytes())
    at = ArchiveReader(bytes(data)).index.gops[1].payload_offset
    data[at] ^= 1
    path.write_bytes(data)
    assert run(out, depth="structure").clean
    assert problem(run(out), "damaged").faults[0].startswith("GOP 1 at byte")


def block_at(data: bytes, at: int) -> str:
    """How the block that holds a byte is named."""
    index = ArchiveReader(data).index
    for entry in index.gops:
        if entry.offset <= at < entry.offset + entry.length:
            return f"GOP {entry.index} at byte {entry.offset}"
    if at < index.gops[0].offset:
        return "header" if at >= 12 else "archive"
    if at >= len(data) - 24:
        return "trailer"
    return "passthrough chunk" if index.passthrough_offset <= at < index.end else "index"


def test_a_thousand_of_a_thousand_single_byte_corruptions_are_found_and_placed(out: Path) -> None:
    path = out / "1.mp4.s2vc"
    whole = path.read_bytes()
    rng = random.Random(7)
    found = placed = 0
    for _ in range(1000):
        at = rng.randrange(len(whole))
        data = bytearray(whole)
        data[at] ^= rng.randrange(1, 256)
        structure = examine(io.BytesIO(bytes(data)))
        found += bool(structure.faults)
        place = block_at(whole, at)
        if place in ("archive", "trailer", "index"):
            # The two answer for each other: the trailer holds the index's CRC.
            placed += any(word in structure.faults[0] for word in ("archive", "trailer", "index", "header"))
        else:
            placed += place in structure.faults[0]
    assert (found, placed) == (1000, 1000)


def test_the_command_finds_corruptions_of_every_block_of_a_committed_archive(out: Path) -> None:
    path = out / "1.mp4.s2vc"
    whole = path.read_bytes()
    rng = random.Random(8)
    for _ in range(25):
        data = bytearray(whole)
        data[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(data)
        found = problem(run(out, events=False), "damaged")
        assert found.key == "1.mp4.s2vc"


def test_all_damaged_gops_are_named_at_once() -> None:
    out = io.BytesIO()
    from tests.archives import GOPS, header

    write_archive(out, header(), GOPS, ())
    data = bytearray(out.getvalue())
    for entry in ArchiveReader(bytes(data)).index.gops[:2]:
        data[entry.payload_offset] ^= 1
    seen: list[int] = []
    structure = examine(io.BytesIO(bytes(data)), lambda record: seen.append(record.index))
    assert [fault.split(" at ")[0] for fault in structure.faults] == ["GOP 0", "GOP 1"]
    assert seen == [3]


@pytest.mark.parametrize("left", [0, 5, 100, -30, -1])
def test_a_truncated_archive_is_called_so(out: Path, left: int) -> None:
    path = out / "0.mp4.s2vc"
    data = path.read_bytes()
    path.write_bytes(data[:left])
    found = problem(run(out), "truncated")
    assert f"of {len(data)} bytes are there" in found.faults[0]
    assert problem(run(out, depth="structure"), "truncated").key == "0.mp4.s2vc"


def test_appended_bytes_are_damage(out: Path) -> None:
    path = out / "0.mp4.s2vc"
    path.write_bytes(path.read_bytes() + b"more")
    assert "bytes, the manifest says" in problem(run(out), "damaged").faults[0]


def test_a_missing_archive_is_told(out: Path) -> None:
    (out / "0.mp4.s2vc").unlink()
    assert problem(run(out), "missing").key == "0.mp4.s2vc"


def test_an_archive_that_nobody_described_is_told(out: Path) -> None:
    (out / "0.mp4.s2vc").rename(out / "renamed.s2vc")
    report = run(out)
    by_key = {found.key: found for found in report.problems}
    assert by_key["0.mp4.s2vc"].outcome == "missing"
    assert by_key["renamed.s2vc"].outcome == "unknown"
    assert by_key["renamed.s2vc"].faults[-1] == "it is the archive that the manifest describes as 0.mp4.s2vc"


def test_exchanged_archives_are_told_and_recognised(out: Path) -> None:
    a, b = (out / name for name in ("0.mp4.s2vc", "1.mp4.s2vc"))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    report = run(out)
    assert report.counts == {"ok": 1, "exchanged": 2}
    for found, other in zip(report.problems, ("1.mp4.s2vc", "0.mp4.s2vc"), strict=True):
        assert found.faults[-1].endswith(f"describes as {other}")
    assert run(out, depth="structure").counts == {"ok": 1, "exchanged": 2}


def rewrite(path: Path, change: Callable[[list[GopRecord]], list[GopRecord]]) -> None:
    """An archive with other records, sound in itself."""
    reader, made = ArchiveReader(path.read_bytes()), io.BytesIO()
    write_archive(made, reader.header, change(list(reader.gops())), list(reader.passthrough()))
    path.write_bytes(made.getvalue())


def test_an_archive_rewritten_at_the_same_size_is_exchanged(out: Path) -> None:
    path = out / "0.mp4.s2vc"
    size = path.stat().st_size
    rewrite(path, lambda gops: [replace(gops[0], payload=gops[0].payload[::-1]), *gops[1:]])
    assert path.stat().st_size == size
    assert "its SHA-256 is" in problem(run(out), "exchanged").faults[0]


def test_a_failed_video_is_told_with_its_error(out: Path, tmp_path: Path) -> None:
    letter = media.text_file(tmp_path / "letter.mp4")
    compress([str(letter)], str(out), CONFIG, load_codec=load_fake)
    found = problem(run(out), "failed")
    assert found.key == "letter.mp4.s2vc"
    assert "SourceError" in found.faults[0]


def test_a_frame_list_that_is_missing_or_changed_is_told(out: Path) -> None:
    path = out / "0.mp4.framemd5"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"0, ", b"1, ", 1))
    assert "the manifest says" in problem(run(out), "frame list").faults[0]
    assert run(out, depth="structure").clean
    path.unlink()
    for depth in ("bytes", "structure"):
        assert problem(run(out, depth), "frame list").faults == ("0.mp4.framemd5 is missing",)


def test_a_bag_that_does_not_say_what_the_manifest_says_is_told(out: Path) -> None:
    path = out / BAG
    lines = path.read_text().splitlines(keepends=True)
    for changed, number, said in (
        (lines[:2] + lines[3:], 3, "1.mp4.framemd5"),
        ([*lines, f"{'0' * 64}  x.s2vc\n"], 7, "x.s2vc', by the manifest 'missing'"),
        (["0" * 64 + lines[0][64:], *lines[1:]], 1, f"'{'0' * 64}  0.mp4.s2vc'"),
        ([*lines, "what\n"], 7, "is not '<sha256>  <path>'"),
        ([], 1, "is 'missing'"),
    ):
        path.write_text("".join(changed))
        (fault,) = problem(run(out, depth="structure"), "bag").faults
        assert fault.startswith(f"line {number} ")
        assert said in fault
    path.unlink()
    assert problem(run(out), "bag").faults == ("there is none",)
    write_bag(str(out))
    assert run(out).clean


def test_a_damaged_manifest_part_is_told(out: Path) -> None:
    part = next(path for path in (out / "manifest").rglob("*.parquet"))
    part.write_bytes(b"not parquet")
    outcomes = sorted(found.outcome for found in run(out).problems)
    assert outcomes == ["bag", "unknown", "unreadable"]


class Wrong(FakeCodec):
    """Reads one GOP's symbols otherwise than they were coded."""

    @staticmethod
    def _decode(gop: Any) -> Any:
        if gop.frames == 4:
            raise SymbolMismatch("symbols of frame 3 do not match their checksum")
        return FakeCodec._decode(gop)


@pytest.mark.parametrize("depth", ["symbols", "pixels"])
def test_symbols_that_differ_are_told_by_their_gop(out: Path, depth: str) -> None:
    report = run(out, depth, codec=Wrong("fake", "cpu"))
    assert report.counts == {"symbols": 3}
    assert report.problems[0].faults == ("GOP 2: symbols of frame 3 do not match their checksum",)
    assert run(out, codec=Wrong("fake", "cpu")).clean


class Small(FakeCodec):
    """Has memory for one GOP at a time."""

    def check_symbols(self, gops: Any) -> None:
        self._fit(gops)
        super().check_symbols(gops)

    def iter_decode(self, gops: Any) -> Any:
        self._fit(gops)
        return super().iter_decode(gops)

    def _fit(self, gops: Any) -> None:
        self.calls.append(len(gops))
        if len(gops) > 1:
            raise OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("depth", ["symbols", "pixels"])
def test_memory_that_runs_out_is_no_fault_of_the_archive(out: Path, depth: str) -> None:
    codec = Small("fake", "cpu")
    assert run(out, depth, codec=codec).clean
    assert codec.calls == [2, 1, 1, 1] * 3


def test_symbols_make_no_picture(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise AssertionError("a picture was made")

    monkeypatch.setattr(FakeCodec, "iter_decode", refused)
    assert run(out, "symbols").gops == 9
    with pytest.raises(AssertionError, match="picture"):
        run(out, "pixels")


@pytest.mark.parametrize("depth", ["symbols", "pixels"])
def test_another_model_is_told(out: Path, depth: str) -> None:
    report = run(out, depth, codec=FakeCodec("fake:other", "cpu"))
    assert report.counts == {"other model": 3}
    assert "--model" in report.problems[0].faults[0]


def test_later_weights_that_read_its_streams_check_all_but_the_figures(out: Path) -> None:
    later = FakeCodec("fake:later", "cpu")
    assert run(out, "symbols", codec=later).clean
    report = run(out, "pixels", codec=later)
    assert report.counts == {"not measured": 3}
    assert (report.gops, report.frames) == (9, 60)
    assert "coded by fake and decoded by fake-later" in report.problems[0].faults[0]


class Blurred(FakeCodec):
    """Decodes to the right symbols and other pictures."""

    def iter_decode(self, gops: Any) -> Any:
        for pictures in super().iter_decode(gops):
            yield {number: picture // 2 for number, picture in pictures.items()}


def test_figures_that_are_not_the_manifests_are_told(out: Path) -> None:
    report = run(out, "pixels", codec=Blurred("fake", "cpu"))
    assert report.counts == {"measurement": 3}
    assert report.problems[0].faults[0].startswith("GOP 0: psnr (mean) is ")
    assert run(out, "symbols", codec=Blurred("fake", "cpu")).clean


def test_a_manifest_that_claims_other_figures_is_told(out: Path) -> None:
    """Somebody made the archive look better than it is; the rows are all there is to change."""
    for part in (out / "manifest").rglob("*.parquet"):
        table = pq.ParquetFile(part).read()
        at = table.schema.get_field_index("psnr_mean")
        better = pa.array([value + 1 for value in table["psnr_mean"].to_pylist()], pa.float64())
        pq.write_table(table.set_column(at, table.schema.field(at), better), part)
    assert run(out, "pixels").counts == {"measurement": 3}


def test_a_source_that_is_gone_is_not_measured_and_no_pass(made: Path, out: Path, tmp_path: Path) -> None:
    report = run(out, "pixels", source=str(tmp_path))
    assert report.counts == {"not measured": 3}
    assert (report.clean, report.frames) == (False, 60)
    assert "no 0.mp4 under" in report.problems[0].faults[0]


def test_sources_are_looked_for_where_asked_and_must_be_the_same_bytes(
    made: Path, out: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(made / "in", tmp_path / "moved"))
    assert run(out, "pixels", source=str(moved)).clean
    data = bytearray((moved / "0.mp4").read_bytes())
    data[-1] ^= 1
    (moved / "0.mp4").write_bytes(data)
    assert "its SHA-256 is not" in problem(run(out, "pixels", source=str(moved)), "not measured").faults[0]
    (moved / "0.mp4").write_bytes(data[:-1])
    assert "not of the size" in problem(run(out, "pixels", source=str(moved)), "not measured").faults[0]


def test_frames_that_decode_otherwise_than_listed_are_told(out: Path) -> None:
    """As with another FFmpeg: list and row agree with each other, the source's frames with neither."""
    import hashlib

    path = out / "0.mp4.framemd5"
    data = path.read_bytes()
    at = data.rindex(b",") + 2
    path.write_bytes(data[:at] + b"0" * 32 + data[at + 32 :])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for part in (out / "manifest").rglob("*.parquet"):
        table = pq.ParquetFile(part).read()
        if table["source_name"][0].as_py() == "0.mp4":
            column = table.schema.get_field_index("framemd5_sha256")
            pq.write_table(
                table.set_column(column, table.schema.field(column), pa.array([digest] * len(table))), part
            )
    write_bag(str(out))
    (fault,) = problem(run(out, "pixels"), "measurement").faults
    assert fault.startswith("GOP 2: frame 3 of the source decodes to other pixels")


def test_what_was_not_measured_then_is_not_measured_now(made: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, metrics=MetricPolicy.parse("none"))
    compress([str(made / "in" / "0.mp4")], str(tmp_path / "out"), config, load_codec=load_fake)
    (fault,) = problem(run(tmp_path / "out", "pixels"), "not measured").faults
    assert "nothing was measured when it was compressed" in fault


@pytest.mark.parametrize("depth", DEEP)
def test_archives_by_themselves(out: Path, depth: str) -> None:
    paths = [str(out / f"{seed}.mp4.s2vc") for seed in range(3)]
    data = Path(paths[2]).read_bytes()
    Path(paths[2]).write_bytes(data[:-3])
    paths.append(str(out / "none.s2vc"))
    (report,) = verify(paths, VerifyOptions(depth=depth, model="fake"), load_codec=load_fake)
    good = {"not measured": 2} if depth == "pixels" else {"ok": 2}
    assert report.counts == {**good, "truncated": 1, "missing": 1}
    assert report.events is None


def test_a_store_that_fails_is_not_the_archives_fault(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s2vc_ray.storage_local import LocalStorage

    opened = LocalStorage.open

    def failing(self: LocalStorage, key: str) -> Any:
        if key == "1.mp4.s2vc":
            raise StorageError("disk on fire")
        return opened(self, key)

    monkeypatch.setattr(LocalStorage, "open", failing)
    assert problem(run(out), "unreadable").faults == ("disk on fire",)


def test_a_sample_is_the_same_every_time_and_grows(out: Path) -> None:
    ids = [f"{number * 0x0123456789ABCDEF % 2**64:016x}" for number in range(1, 2001)]
    small = {one for one in ids if is_chosen(one, "", 0.05)}
    large = {one for one in ids if is_chosen(one, "", 0.5)}
    assert small < large
    assert 60 < len(small) < 140
    assert all(is_chosen(one, "", 1.0) for one in ids)
    videos = {row["source_name"]: row["video_id"] for row in read_manifest(str(out)).to_pylist()}
    # Ids come of paths, so which videos are chosen differs from run to run of this test.
    chosen = sum(is_chosen(video, "", 0.5) for video in videos.values())
    half, again = run(out, sample=0.5), run(out, sample=0.5)
    assert half.counts == again.counts
    assert half.counts.get("ok", 0) == chosen


def test_no_destination_and_bad_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="nothing of a compress job"):
        run(tmp_path)
    for options in ({"depth": "deep"}, {"source": "x"}, {"sample": 0.0}):
        with pytest.raises(ConfigError):
            VerifyOptions(**options)  # type: ignore[arg-type]


def test_only_so_many_problems_are_named_and_all_are_counted(out: Path) -> None:
    for seed in range(3):
        (out / f"{seed}.mp4.s2vc").unlink()
    report = run(out, limit=2)
    assert (len(report.problems), report.counts) == (2, {"missing": 3})


def test_a_verification_adds_events_and_changes_nothing_else(out: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    report = run(out, "pixels")
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert report.events is not None
    assert {path: data for path, data in after.items() if path != out / report.events} == before
    assert run(out, events=False).events is None
    kinds = read_events(str(out))["event_type"].to_pylist()
    assert [
        kinds.count(kind) for kind in ("compression", "fixity check", "decoding check", "measurement")
    ] == [
        3,
        3,
        3,
        3,
    ]


def test_structure_of_what_is_no_archive() -> None:
    found = examine(io.BytesIO(b"a letter"))
    assert isinstance(found, Structure)
    assert (found.header, found.size) == (None, 8)
    assert "magic" in found.faults[0]


def test_the_real_codec_proves_its_own_archives(tmp_path: Path) -> None:
    """Measured again on the device that coded them, figures are the manifest's to the last digit."""
    clip = media.make_clip(tmp_path / "a.mp4", frames=5)
    config = replace(CONFIG, model="small", device="cpu", gop=3)
    compress([str(clip)], str(tmp_path / "out"), config)
    out = str(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TOLERANCES, "psnr", 1e-9)
        (report,) = verify([out], VerifyOptions("pixels", device="cpu"))
    assert (report.counts, report.gops, report.frames) == ({"ok": 1}, 2, 5)
    (report,) = verify([out], VerifyOptions("symbols", device="cpu"))
    assert report.clean
    path = tmp_path / "out" / "a.mp4.s2vc"
    rewrite(path, lambda gops: [gops[0], replace(gops[1], payload=_wrong_symbols(gops[1].payload))])
    (report,) = verify([str(path)], VerifyOptions())
    assert report.clean, "every CRC holds"
    (report,) = verify([str(path)], VerifyOptions("symbols", device="cpu"))
    assert problem(report, "symbols").faults[0].startswith("GOP 1: ")


def _wrong_symbols(payload: bytes) -> bytes:
    """The payload with another byte in its first stream."""
    gop = EncodedGop.from_payload(payload)
    intra = bytearray(gop.intra)
    intra[len(intra) // 2] ^= 0x10
    return replace(gop, intra=bytes(intra)).to_payload()
