"""The benchmarks on tiny synthetic clips and a fake codec: real bytes, honest rates, plain words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jobs import bench
from jobs.bench_anchors import ANCHORS
from jobs.bench_clips import Pixels, load_clip, synthetic_clip
from jobs.bench_coded import Coded
from jobs.bench_ffmpeg import VvencAnchor
from jobs.bench_quality import QualityOptions, code_fingerprint, code_with_s2vc, run_quality
from jobs.bench_rows import OURS
from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import BitstreamError
from s2vc_model.metrics import MetricResult, ToolMissing, measure
from s2vc_model.metrics.tools import ffmpeg_version
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.errors import ConfigError, SourceError
from tests.fakes import FakeCodec, load_fake
from tests.jobs.tiny import POLICY, CountingAnchor, fake, options, write_video

VVENC = next(anchor for anchor in ANCHORS.values() if isinstance(anchor, VvencAnchor))


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
