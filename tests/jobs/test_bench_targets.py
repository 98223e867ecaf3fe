"""The bench of targets: what it says of searches is what coding every q by hand says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jobs import bench_targets
from jobs.bench_clips import ClipPolicy, load_clip
from jobs.bench_targets import (
    LOWEST,
    Fixed,
    Found,
    Outcome,
    TargetOptions,
    TargetsResult,
    own_floors,
    run_targets,
    totals,
)
from jobs.bench_targets_report import print_targets
from s2vc_model.bitstream import EncodedGop
from s2vc_model.metrics import psnr
from s2vc_ray.errors import ConfigError
from s2vc_ray.lanes import CodedGop
from s2vc_ray.target_search import Way, seek_best
from s2vc_ray.targets import Floor, Goal
from tests import media
from tests.fakes import FakeCodec, Frames, load_fake

OPTIONS = TargetOptions(metrics=("psnr",), policy=ClipPolicy(frames=20, max_lines=48), gop=8, sample=3)
BEYOND = Floor("psnr", 60.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.make_clip(tmp_path_factory.mktemp("in") / "a.mp4", frames=20)


@pytest.fixture
def codec() -> FakeCodec:
    return load_fake("fake:curve", "cpu")


@pytest.fixture(scope="module")
def by_hand(clip: Path) -> list[dict[float, tuple[float, int]]]:
    """Of each GOP, by q in quarters, the PSNR of its worst measured frame, and its bytes."""
    codec, frames = load_fake("fake:curve", "cpu"), load_clip(clip, OPTIONS.policy).frames
    curves: list[dict[float, tuple[float, int]]] = []
    for at in range(0, 20, 8):
        gop = frames[at : at + 8]
        measured = [0, round((len(gop) - 1) / 2), len(gop) - 1]
        curves.append({})
        for q in np.arange(253) / 4:
            (coded,) = codec.encode_gops([gop], float(q))
            (decoded,) = codec.decode_gops([coded])
            worst = psnr(gop[measured], decoded[measured]).min()
            curves[-1][float(q)] = (float(worst), len(coded.to_payload()))
    return curves


def result_of(clip: Path, codec: FakeCodec, **changes: object) -> TargetsResult:
    return run_targets([clip], codec, replace(OPTIONS, **changes))  # type: ignore[arg-type]


def test_own_floors_lie_within_what_fixed_q_reach(
    clip: Path, codec: FakeCodec, by_hand: list[dict[float, tuple[float, int]]]
) -> None:
    reached = sorted(min(gop[q][0] for gop in by_hand) for q in range(8, 64))
    found = result_of(clip, codec).found
    assert [one.floor.value for one in found] == pytest.approx(np.quantile(reached, (0.25, 0.5, 0.75)))
    assert [floor.value for floor in own_floors("lpips_alex", [0.1, 0.3, 0.5], 3)] == pytest.approx(
        [0.2, 0.3, 0.4]
    )


def test_verdicts_bytes_and_the_cheapest_fixed_q_are_those_by_hand(
    clip: Path, codec: FakeCodec, by_hand: list[dict[float, tuple[float, int]]]
) -> None:
    below = max(gop[q][0] for gop in by_hand for q in range(LOWEST))
    values = sorted({gop[q][0] for gop in by_hand for q in range(LOWEST, 64) if gop[q][0] > below})
    floors = tuple(Floor("psnr", value) for value in values[:: len(values) // 16])
    kinds = set()
    for one in result_of(clip, codec, metrics=(), floors=floors).found:
        held = [{q for q, (value, _) in gop.items() if value >= one.floor.value} for gop in by_hand]
        fixed = {q: sum(gop[q][1] for gop in by_hand) for q in set.intersection(*held) if q == int(q)}
        assert (one.cheapest and one.cheapest.bytes) == min(fixed.values(), default=None)
        if one.searched:
            assert one.searched.bytes == fixed[one.searched.q]
        for outcome, gop, own in zip(one.outcomes, by_hand, held, strict=True):
            value, size = gop[outcome.level]
            assert outcome.value == pytest.approx(value)
            assert outcome.bytes == size
            whole = [gop[q][1] for q in own if q == int(q)]
            # Of quarters only those that were searched are known.
            assert (outcome.least is None) == (not whole)
            assert not whole or min(gop[q][1] for q in own) <= (outcome.least or 0) <= min(whole)
            kinds.add(outcome.verdict)
            expected = "missed" if own else "unreachable"
            if value >= one.floor.value:
                expected = "near" if value - one.floor.value <= 0.25 else "ladder"
                assert expected == "near" or outcome.level - 0.25 not in own
            assert outcome.verdict == expected
    assert {"near", "unreachable"} <= kinds <= {"near", "ladder", "unreachable"}


def test_a_search_that_asks_for_too_much_or_tells_lies_is_seen(
    clip: Path, codec: FakeCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(q: float) -> object:
        def wrong(goals: Sequence[Goal], ways: Sequence[Way]) -> list[CodedGop]:
            coded = ways[0].code([(number, q) for number in range(len(goals))])
            return [replace(one, target_met=True) for one in coded]

        return wrong

    honest = result_of(clip, codec).totals[0]
    assert honest.verdicts["loose"] == honest.verdicts["missed"] == honest.below == 0
    assert honest.rate("near", "ladder") == 1
    monkeypatch.setattr(bench_targets, "seek_best", always(63))
    assert result_of(clip, codec).totals[0].verdicts["loose"] > 0
    monkeypatch.setattr(bench_targets, "seek_best", always(0))
    assert result_of(clip, codec).totals[0].below > 0

    def gives_up(goals: Sequence[Goal], ways: Sequence[Way]) -> list[CodedGop]:
        return [replace(one, target_met=False) for one in seek_best(goals, ways)]

    monkeypatch.setattr(bench_targets, "seek_best", gives_up)
    assert result_of(clip, codec).totals[0].verdicts["missed"] == 9


def test_frames_that_were_not_measured_are_looked_at_too(clip: Path) -> None:
    """A codec that spoils a frame which no search sees."""

    class Spoiling(FakeCodec):
        @staticmethod
        def _decode(gop: EncodedGop) -> Frames:
            frames = FakeCodec._decode(gop).copy()
            frames[1] = 0
            return frames

    total = run_targets([clip], Spoiling("fake:curve", "cpu"), OPTIONS).totals[0]
    assert (total.below, total.noise) == (0, 0)
    assert total.below_every == 9


def test_what_is_out_of_reach_is_counted_apart_and_may_fall_back(clip: Path, codec: FakeCodec) -> None:
    floor = Floor("psnr", 25.0)
    (alone,) = result_of(clip, codec, metrics=(), floors=(floor,)).totals
    assert (alone.gops, alone.verdicts["unreachable"], alone.reachable) == (3, 3, 0)
    assert (alone.rate("near"), alone.searched) == (None, 0)
    (held,) = result_of(clip, codec, metrics=(), floors=(floor,), fallback="av1").totals
    assert (held.av1, held.verdicts["unreachable"], held.below) == (3, 0, 0)
    assert held.rate("near", "ladder") == 1


def outcome(verdict: str, size: int, least: int | None = None, **changes: object) -> Outcome:
    plain = Outcome(0, "s2vc", 30, verdict, size, 4, 0.3, 0.3, True, 0.3, True, least)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_sums() -> None:
    floor = Floor("lpips_alex", 0.3)
    found = [
        Found(
            "a",
            floor,
            False,
            (outcome("near", 60, 50), outcome("ladder", 20, 20)),
            Fixed(40, 90),
            Fixed(41, 100),
        ),
        Found(
            "b",
            floor,
            False,
            (outcome("near", 9, again=0.31), outcome("missed", 9)),
            Fixed(40, 1000),
            Fixed(40, 1000),
        ),
        Found("c", floor, False, (outcome("unreachable", 9), outcome("ladder", 9, probes=10)), None, None),
        Found("a", floor, True, (outcome("near", 7, holds_every=False),), Fixed(40, 8), None),
    ]
    given, own = totals(found)
    assert (given.gops, given.reachable, given.verdicts["missed"]) == (6, 5, 1)
    assert (given.rate("near"), given.rate("near", "ladder")) == (0.4, 0.8)
    assert (given.bytes, given.cheapest, given.searched, given.least) == (80, 90, 100, 70)
    assert (own.bytes, own.searched) == (0, 0)
    assert given.noise == pytest.approx(0.01)
    assert given.probes == 5
    assert (own.target, own.gops, own.below, own.below_every) == ("lpips_alex, own floors", 1, 0, 1)


def test_codings_are_kept_and_shared(clip: Path, codec: FakeCodec, tmp_path: Path) -> None:
    first = result_of(clip, codec, folder=tmp_path / "kept")
    assert len(codec.qualities) <= 3 * 64  # Three floors: no q twice.
    again = load_fake("fake:curve", "cpu")
    assert result_of(clip, again, folder=tmp_path / "kept") == first
    assert again.qualities == []
    other = load_fake("fake:curve", "cpu")
    result_of(clip, other, folder=tmp_path / "kept", sample=2)
    assert other.qualities != []


def test_steps_of_a_ladder_are_told(
    clip: Path, codec: FakeCodec, by_hand: list[dict[float, tuple[float, int]]]
) -> None:
    (curve,) = result_of(clip, codec).curves
    gains = [gop[q + 1][0] - gop[q][0] for gop in by_hand for q in range(8, 63)]
    assert curve.pairs >= len(gains)
    assert curve.pairs - len(gains) <= 3 * 8
    if curve.pairs == len(gains):
        assert curve.worse == pytest.approx(np.mean([gain < 0 for gain in gains]))
        assert curve.coarse == pytest.approx(np.mean([gain > 0.25 for gain in gains]))
        assert curve.step == pytest.approx(np.median([gain / 0.25 for gain in gains if gain > 0]))


def test_a_coarser_ladder_finds_the_same_fixed_q(clip: Path, codec: FakeCodec) -> None:
    floors = (Floor("psnr", 14.0), Floor("psnr", 16.0))
    every, some = (result_of(clip, codec, metrics=(), floors=floors, step=step).found for step in (1, 9))
    assert [one.cheapest for one in every] == [one.cheapest for one in some]
    assert None not in [one.cheapest for one in every]


def test_tables_and_json(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(OPTIONS, floors=(BEYOND,))
    console = Console(width=250)
    assert print_targets([clip], options, "fake:curve", "cpu", load_fake, console, as_json=False)
    text = capsys.readouterr().out
    assert "psnr, own floors" in text
    assert "100.0 %" in text
    assert print_targets([clip], options, "fake:curve", "cpu", load_fake, console, as_json=True)
    document = json.loads(capsys.readouterr().out)
    own, beyond = document["totals"]
    assert (own["near_or_ladder"], own["reachable"]) == (1, 9)
    assert (beyond["reachable"], beyond["near"], beyond["saved"]) == (0, None, None)
    assert own["saved"] == pytest.approx(1 - own["bytes"] / own["searched"])
    assert own["saved_against_cheapest"] == pytest.approx(1 - own["bytes"] / own["cheapest"])
    assert document["found"][0]["floor"].startswith("psnr:worst=")


def test_options_are_checked() -> None:
    for wrong in ({"metrics": ("lpips_vgg",)}, {"metrics": ()}, {"step": 0}, {"each": 0}):
        with pytest.raises(ConfigError):
            TargetOptions(**wrong)  # type: ignore[arg-type]
