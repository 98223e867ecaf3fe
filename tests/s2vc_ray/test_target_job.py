"""Jobs with targets, end to end with a fake codec whose quality and rate follow q."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.picture_scale import SCALES
from s2vc_ray.archive import ArchiveHeader, ArchiveReader
from s2vc_ray.archive.phrases import fold
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.executor import GopBatch, GopTask
from s2vc_ray.gop_decoder import coded_gop
from s2vc_ray.lanes import load_s2vc
from s2vc_ray.manifest import read_manifest
from s2vc_ray.passthrough import extract
from s2vc_ray.plan import PlannedVideo, VideoFailure, plan_video
from s2vc_ray.results import JobReport
from s2vc_ray.size_budget import _HEADER
from s2vc_ray.sources import Source
from s2vc_ray.staging import STAGING, StagedGop
from s2vc_ray.storage import open_storage
from s2vc_ray.summary import describe, summarise
from s2vc_ray.targets import Budget, Floor, Target
from s2vc_ray.values import ColourTags, PictureTags
from s2vc_ray.worker import Worker
from tests import media
from tests.fakes import FakeCodec, load_fake

CONFIG = JobConfig(
    model="fake:curve",
    executor="local",
    gop=8,
    batch=2,
    quality=63,
    metrics=MetricPolicy.parse("sample:3", ("psnr",)),
    fallback="none",
    allow_larger=True,
)
FLOOR = Floor("psnr", 16.0)
"""Of the clip's three GOPs, all reach it, at different q."""
BEYOND = Floor("psnr", 19.0)
"""Not all of them do."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.make_clip(tmp_path_factory.mktemp("in") / "a.mp4", frames=20, audio="aac")


def run(clip: Path, out: Path, target: Target | None, **options: Any) -> JobReport:
    config = replace(CONFIG, target=target, **options)
    return compress([str(clip)], str(out), config, load_codec=load_fake)


def rows(out: Path) -> list[dict[str, Any]]:
    return read_manifest(str(out)).to_pylist()


def test_every_gop_holds_the_floor_with_a_q_of_its_own(clip: Path, tmp_path: Path) -> None:
    report = run(clip, tmp_path / "out", FLOOR)
    assert report.clean
    found = rows(tmp_path / "out")
    assert len({row["q"] for row in found}) > 1
    for row in found:
        assert row["psnr_worst"] >= 16.0
        assert (row["target"], row["target_value"], row["target_met"]) == (
            "psnr:worst=16.0 of=sample:3 fallback=none",
            16.0,
            True,
        )
        assert 2 <= row["probes"] <= 8
    with (tmp_path / "out" / "a.mp4.s2vc").open("rb") as stream:
        reader = ArchiveReader(stream)
        assert (reader.header.target, reader.header.q) == ("psnr:worst=16.0 of=sample:3 fallback=none", 63)
        assert [record.q for record in reader.gops()] == [row["q"] for row in found]


def test_a_gop_of_lesser_q_would_miss_or_holds_by_little(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "out", FLOOR)
    for row in rows(tmp_path / "out"):
        if row["psnr_worst"] > 16.15:
            whole = row["q"] if row["q_fine"] else row["q"] - 1
            run(clip, tmp_path / f"q{row['q']}", None, quality=whole)
            (below,) = [
                one for one in rows(tmp_path / f"q{row['q']}") if one["gop_index"] == row["gop_index"]
            ]
            assert below["psnr_worst"] < 16.0


@pytest.mark.parametrize("enlarge", [True, False])
def test_both_sizes_are_tried_and_rows_say_which_was_taken(tmp_path: Path, enlarge: bool) -> None:
    """The packaged model, whose rules are about small pictures."""
    small = media.make_clip(tmp_path / "b.mp4", frames=8, size=(96, 64))
    config = replace(CONFIG, model="small", target=Floor("psnr", 24.0), gop=4, enlarge=enlarge)
    tried: set[tuple[bool | None, bool]] = set()

    def spying(*args: Any, **options: Any) -> Any:
        codec = load_s2vc(*args, **options)
        encode = codec.encode_gops

        def spy(gops: Any, q: Any, larger: bool | None = None) -> list[EncodedGop]:
            found = encode(gops, q, larger)
            tried.update((larger, gop.scale != 0) for gop in found)
            return found

        codec.encode_gops = spy  # type: ignore[method-assign]
        return codec

    assert compress([str(small)], str(tmp_path / "out"), config, load_codec=spying).clean
    assert tried == ({(True, True), (False, False)} if enlarge else {(None, False)})
    reader = ArchiveReader((tmp_path / "out" / "b.mp4.s2vc").read_bytes())
    scales = [coded_gop(record, reader.header).scale for record in reader.gops()]
    assert [row["enlarged"] for row in rows(tmp_path / "out")] == [SCALES[scale].halves / 2 for scale in scales]


def test_rows_say_the_quarters_that_payloads_have(clip: Path, tmp_path: Path) -> None:
    for floor in (15.5, 16.0, 16.5, 17.0):
        run(clip, tmp_path / str(floor), Floor("psnr", floor))
        with (tmp_path / str(floor) / "a.mp4.s2vc").open("rb") as stream:
            reader = ArchiveReader(stream)
            coded = [coded_gop(record, reader.header) for record in reader.gops()]
        found = rows(tmp_path / str(floor))
        assert [(row["q"], row["q_fine"]) for row in found] == [(gop.q, gop.fine) for gop in coded]
        if any(row["q_fine"] for row in found):
            return
    raise AssertionError("no floor took a quarter")


def test_missed_targets_are_counted_and_told_again_when_the_job_is_repeated(
    clip: Path, tmp_path: Path
) -> None:
    report = run(clip, tmp_path / "out", BEYOND)
    met = [row["target_met"] for row in rows(tmp_path / "out")]
    missed = met.count(False)
    assert 0 < missed < 3
    for one in (report, run(clip, tmp_path / "out", BEYOND)):
        assert not one.clean
        assert one.totals.targets_missed == missed
        assert f"{missed} GOPs MISS their target" in summarise(one)
        assert f"{missed} GOPs MISS their target" in describe(one.videos[0])
    assert (one.count("skipped"), one.count("failed")) == (1, 0)


def test_batches_and_memory_do_not_change_what_is_found(clip: Path, tmp_path: Path) -> None:
    plan = plan_video(
        Source(str(clip), clip.name),
        open_storage(str(tmp_path / "x")),
        replace(CONFIG, target=FLOOR),
        "fa" * 32,
    )
    assert isinstance(plan, PlannedVideo)
    config = replace(CONFIG, target=FLOOR)
    results = []
    for name, model, size in (("one", "", 1), ("all", "", 3), ("tight", "+room=1", 3)):
        codec = FakeCodec(f"fake:curve{model}", "cpu")
        worker = Worker(str(tmp_path / name), config, load_codec=partial(_loaded, codec))
        tasks = [GopTask(spec, f"{STAGING}/v/{name}") for spec in plan.specs]
        staged = [
            outcome
            for at in range(0, 3, size)
            for outcome in worker.encode(GopBatch(tuple(tasks[at : at + size]))).outcomes
        ]
        gops = [gop for gop in staged if isinstance(gop, StagedGop)]
        results.append([(gop.payload_sha256, gop.q, gop.probes, gop.metrics) for gop in gops])
        assert len(codec.qualities) >= sum(gop.probes for gop in gops)
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 3


def test_an_interrupted_job_goes_on_to_the_same_archive(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clip, tmp_path / "whole", FLOOR)
    encode, calls = FakeCodec.encode_gops, []

    def interrupted(self: FakeCodec, gops: Any, q: Any, larger: bool | None = None) -> Any:
        calls.append(q)
        if len(gops) == 1:
            raise KeyboardInterrupt
        return encode(self, gops, q, larger)

    with monkeypatch.context() as patch:
        patch.setattr(FakeCodec, "encode_gops", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(clip, tmp_path / "out", FLOOR)
    assert run(clip, tmp_path / "out", FLOOR).clean
    assert (tmp_path / "out/a.mp4.s2vc").read_bytes() == (tmp_path / "whole/a.mp4.s2vc").read_bytes()


def test_another_target_is_another_archive(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "out", FLOOR)
    for target, policy, fallback in (
        (BEYOND, "sample:3", "none"),
        (None, "sample:3", "none"),
        (FLOOR, "full", "none"),
        (FLOOR, "sample:3", "av1"),
    ):
        metrics = MetricPolicy.parse(policy, ("psnr",))
        report = run(clip, tmp_path / "out", target, metrics=metrics, fallback=fallback)
        assert report.videos[0].error_class == "ObjectExists"
        assert "was made for psnr:worst=16.0 of=sample:3 fallback=none, not" in str(report.videos[0].error)
    # Which other metrics are measured makes no other archive of it.
    assert run(
        clip, tmp_path / "out", FLOOR, metrics=MetricPolicy.parse("sample:3", ("psnr", "ms_ssim"))
    ).clean


def test_a_budget_is_kept_and_measured_only_once(clip: Path, tmp_path: Path) -> None:
    decoded = []

    class Counting(FakeCodec):
        def iter_decode(self, gops: Any) -> Any:
            decoded.append(len(gops))
            return super().iter_decode(gops)

    config = replace(CONFIG, target=Budget("bpp", 0.2))
    report = compress(
        [str(clip)], str(tmp_path / "out"), config, load_codec=lambda model, device: Counting(model, device)
    )
    assert report.clean
    for row in rows(tmp_path / "out"):
        assert 0.15 < row["bpp"] <= 0.2
        assert (row["target"], row["target_value"], row["verify"]) == ("bpp=0.2", 0.2, "decoded")
        assert row["psnr_worst"] is not None
    assert sum(decoded) == 3


@pytest.mark.parametrize("passthrough", [True, False])
def test_an_archive_is_no_larger_than_the_size_asked_for(
    clip: Path, tmp_path: Path, passthrough: bool
) -> None:
    sound = sum(map(len, extract(str(clip)).chunks())) if passthrough else 0
    target = Budget("size", sound + 9000)
    assert run(clip, tmp_path / "out", target, passthrough=passthrough).clean
    archive, found = tmp_path / "out" / "a.mp4.s2vc", rows(tmp_path / "out")
    assert archive.stat().st_size <= target.value
    (budget,) = {row["target_value"] for row in found}
    assert all(row["bpp"] <= budget for row in found)
    # What is kept free for everything else is enough, and not much more.
    kept = target.value - budget * 64 * 48 * 20 / 8
    taken = archive.stat().st_size - sum(row["payload_bytes"] for row in found)
    assert taken <= kept <= taken + 2000


def test_no_header_takes_more_than_is_kept_for_it() -> None:
    most = (1 << 31) - 1
    header = ArchiveHeader(
        model_id="s" * 64,
        weights_sha256="f" * 64,
        preset="small",
        width=65535,
        height=65535,
        time_base=Fraction(most, most - 1),
        colour=ColourTags(255, 255, 255, 255),
        rotation=-359,
        sample_aspect=Fraction(most, most - 1),
        average_rate=Fraction(most, most - 1),
        last_duration=1 << 62,
        frames=1 << 62,
        gop_length=65536,
        q=63,
        source_name="n",
        source_size=1 << 62,
        source_sha256="f" * 64,
        creator="z" * 64,
        source_codec="z" * 32,
        source_container="z" * 64,
        source_pix_fmt="z" * 32,
        source_bit_depth=64,
        source_stream=65536,
        tags=PictureTags("interlaced", (-most,) * 9, (Fraction(most, most - 1),) * 10, (most, most)),
        shots=True,
        deinterlace=True,
        target="t" * 64,
    )
    assert 0.7 * _HEADER < len(fold(header.to_json())) <= _HEADER


def test_a_ratio_is_of_the_source(clip: Path, tmp_path: Path) -> None:
    assert run(clip, tmp_path / "out", Budget("ratio", 0.9), passthrough=False).clean
    assert (tmp_path / "out" / "a.mp4.s2vc").stat().st_size <= 0.9 * clip.stat().st_size


def test_a_size_without_room_for_pictures_is_said(clip: Path, tmp_path: Path) -> None:
    report = run(clip, tmp_path / "out", Budget("size", 3000))
    assert report.videos[0].error_class == "ConfigError"
    assert "no room for pictures" in str(report.videos[0].error)
    plan = plan_video(
        Source(str(clip), clip.name),
        open_storage(str(tmp_path / "x")),
        replace(CONFIG, target=Budget("size", 3000)),
        "fa" * 32,
    )
    assert isinstance(plan, VideoFailure)


def test_an_archive_larger_than_its_source_is_not_published(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=20)
    before = clip.read_bytes()
    report = run(clip, tmp_path / "out", None, allow_larger=False, gop=1)
    assert report.count("failed") == 1
    (row,) = rows(tmp_path / "out")
    assert (row["status"], row["error_class"]) == ("failed", "LargerThanSource")
    assert f"the source {len(before)}" in row["error"]
    assert "--allow-larger" in row["error"]
    files = {path.name for path in (tmp_path / "out").glob("*") if path.is_file()}
    assert not {"a.mp4.s2vc", "a.mp4.framemd5"} & files
    assert list((tmp_path / "out" / STAGING).rglob("*.gop"))
    assert clip.read_bytes() == before
    # What was coded is not coded again for whoever allows it.
    again = run(clip, tmp_path / "out", None, model="fake:curve+fail=1", allow_larger=True, gop=1)
    assert again.clean
    assert (tmp_path / "out" / "a.mp4.s2vc").stat().st_size > len(before)
    assert run(clip, tmp_path / "out", None, allow_larger=False, gop=1).count("skipped") == 1


def test_an_adopted_archive_tells_its_target(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clip, tmp_path / "out", FLOOR)
    for part in (tmp_path / "out" / "manifest").rglob("*.parquet"):
        part.unlink()
    assert run(clip, tmp_path / "out", FLOOR).clean
    assert {(row["target"], row["target_met"], row["probes"]) for row in rows(tmp_path / "out")} == {
        ("psnr:worst=16.0 of=sample:3 fallback=none", None, None)
    }


def _loaded(codec: FakeCodec, model: str, device: str) -> FakeCodec:
    return codec
