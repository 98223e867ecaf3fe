"""What may be asked of each GOP, and which q that leads to on any curve of rate and quality."""

from __future__ import annotations

import math
import random

import pytest

from s2vc_ray.config import MEASURABLE
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import QUALITY
from s2vc_ray.targets import SCALES, Budget, Floor, Goal, Probe, from_options, parse_size

Curve = list[Probe]
RATES = [0.002 * math.exp(0.05 * q) for q in range(64)]


def curve(qualities: list[float]) -> Curve:
    return [Probe(bpp, value) for bpp, value in zip(RATES, qualities, strict=True)]


LPIPS = curve([0.4 * math.exp(-0.02 * q) for q in range(64)])
"""Falls from 0.4 to 0.113."""


def found(goal: Goal, codec: Curve) -> tuple[int, bool, dict[int, Probe]]:
    probes: dict[int, Probe] = {}
    while (q := goal.next_q(probes)) is not None:
        assert q not in probes
        assert 0 <= q <= goal.top
        probes[q] = codec[q]
    return *goal.choice(probes), probes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lpips=0.15", "lpips_alex:worst=0.15"),
        ("lpips:mean=0.15", "lpips_alex:mean=0.15"),
        ("lpips_alex:worst=.15", "lpips_alex:worst=0.15"),
        ("ms-ssim=0.97", "ms_ssim:worst=0.97"),
        ("msssim=0.97", "ms_ssim:worst=0.97"),
        ("vmaf:mean=90", "vmaf:mean=90.0"),
        ("vmaf-neg=80", "vmaf_neg:worst=80.0"),
        ("psnr=30", "psnr:worst=30.0"),
    ],
)
def test_a_floor_has_one_spelling_of_many(text: str, said: str) -> None:
    assert str(Floor.parse(text)) == said
    assert Floor.parse(str(Floor.parse(text))) == Floor.parse(text)


@pytest.mark.parametrize(
    "text", ["lpips", "lpips=", "lpips=a", "ssim2=1", "lpips:median=0.1", "lpips:=0.1", "=0.1", "lpips=nan"]
)
def test_what_is_no_floor_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="target"):
        Floor.parse(text)


@pytest.mark.parametrize("text", ["lpips=0", "lpips=-1", "ms_ssim=1", "vmaf=100", "psnr=0", "lpips=inf"])
def test_values_that_no_picture_can_be_held_to_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="between"):
        Floor.parse(text)


def test_a_most_of_bits_is_part_of_a_floor() -> None:
    assert str(Floor.parse("lpips=0.15", 0.05)) == "lpips_alex:worst=0.15 max-bpp=0.05"
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="max_bpp"):
            Floor.parse("lpips=0.15", wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("700M", 700_000_000),
        ("1.5G", 1_500_000_000),
        ("200MiB", 209_715_200),
        ("1Ki", 1024),
        ("12", 12),
        ("3kB", 3000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "700 X", "-1M", "0", "1e999", "1..2M", "nanM"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse_size(text)


def test_budgets() -> None:
    assert [str(Budget(kind, 2)) for kind in ("bpp", "size", "ratio")] == ["bpp=2", "size=2", "ratio=2"]
    assert Budget("size", 700).archive_bytes(5) == 700
    assert Budget("ratio", 0.02).archive_bytes(1000) == 20
    assert Budget("bpp", 0.02).archive_bytes(1000) is None
    for kind, value in (("bps", 1.0), ("bpp", 0.0), ("ratio", -1.0), ("size", math.inf)):
        with pytest.raises(ConfigError):
            Budget(kind, value)


def test_options_name_one_target_or_none() -> None:
    assert from_options(None, None, None, None, None) is None
    assert from_options("lpips=0.2", 0.1, None, None, None) == Floor("lpips_alex", 0.2, max_bpp=0.1)
    assert from_options(None, None, 0.02, None, None) == Budget("bpp", 0.02)
    assert from_options(None, None, None, "700M", None) == Budget("size", 700_000_000)
    assert from_options(None, None, None, None, 0.02) == Budget("ratio", 0.02)
    with pytest.raises(ConfigError, match="--target and --target-size"):
        from_options("lpips=0.2", None, None, "700M", None)
    with pytest.raises(ConfigError, match="--target-bpp"):
        from_options(None, 0.1, None, None, None)


def test_there_is_a_scale_for_every_metric_that_a_job_measures() -> None:
    assert set(SCALES) == set(MEASURABLE)
    assert {name: scale.higher for name, scale in SCALES.items()} == dict(QUALITY)


@pytest.mark.parametrize("metric", SCALES)
def test_a_margin_is_above_zero_exactly_where_the_floor_holds(metric: str) -> None:
    scale, dice = SCALES[metric], random.Random(1)
    for _ in range(500):
        floor, value = (dice.uniform(scale.low, scale.high) for _ in range(2))
        for seen in (value, floor, math.nextafter(floor, math.inf), math.nextafter(floor, -math.inf)):
            holds = seen >= floor if scale.higher else seen <= floor
            assert (scale.margin(seen, floor) >= 0) == holds
    perfect = scale.high if scale.perfect is None else scale.perfect
    assert scale.margin(perfect, (scale.low + scale.high) / 2) > 0


def test_the_smallest_q_that_holds_a_floor() -> None:
    q, met, probes = found(Goal(Floor("lpips_alex", 0.2), None), LPIPS)
    assert met
    value = LPIPS[q].value
    assert value is not None
    assert 0.2 * 0.97 < value <= 0.2
    assert len(probes) <= 4


def test_the_worst_floor_needs_no_more_than_the_smallest_q() -> None:
    assert found(Goal(Floor("lpips_alex", 0.45), None), LPIPS)[:2] == (0, True)


def test_a_floor_out_of_reach_takes_the_best_there_is() -> None:
    q, met, probes = found(Goal(Floor("lpips_alex", 0.05), None), LPIPS)
    assert (q, met) == (63, False)
    assert len(probes) <= 4
    assert found(Goal(Floor("lpips_alex", 0.05), None, top=50), LPIPS)[:2] == (50, False)


def test_a_curve_that_turns_worse_again_is_taken_where_it_was_measured_best() -> None:
    hill = curve([0.3 + 0.005 * abs(q - 44) for q in range(64)])
    q, met, probes = found(Goal(Floor("lpips_alex", 0.2), None), hill)
    assert not met
    assert probes[q].value == min(probe.value or 9 for probe in probes.values())


def test_a_floor_within_its_most_of_bits() -> None:
    goal = Goal(Floor("lpips_alex", 0.2), RATES[40])
    assert found(goal, LPIPS)[:2] == found(Goal(Floor("lpips_alex", 0.2), None), LPIPS)[:2]


def test_a_floor_beyond_its_most_of_bits_takes_what_those_allow() -> None:
    q, met, probes = found(Goal(Floor("lpips_alex", 0.15), RATES[20] * 1.001), LPIPS)
    assert (q, met) == (20, False)
    # The first probe misses and is too large: a higher q would be larger still.
    assert max(probes) == next(iter(probes))
    assert len(probes) <= 4
    # Not even the smallest is allowed.
    assert found(Goal(Floor("lpips_alex", 0.15), RATES[0] / 2), LPIPS)[:2] == (0, False)


def test_a_budget_is_filled_and_never_exceeded() -> None:
    counts = []
    for bpp in (rate * 1.01 for rate in RATES):
        q, met, probes = found(Goal(None, bpp), LPIPS)
        assert met
        assert 0.92 * bpp < LPIPS[q].bpp <= bpp
        counts.append(len(probes))
    assert sum(counts) / 64 <= 4
    assert found(Goal(None, RATES[0] / 2), LPIPS)[:2] == (0, False)
    assert found(Goal(None, 1.0), LPIPS)[:2] == (63, True)
    assert found(Goal(None, 1.0, top=30), LPIPS)[:2] == (30, True)


def test_a_gop_without_the_value_asked_for_meets_no_floor() -> None:
    blind = [Probe(rate, None) for rate in RATES]
    q, met, _ = found(Goal(Floor("flicker", 1.0), None), blind)
    assert (q, met) == (63, False)


def test_on_any_curve_what_is_said_to_hold_was_measured_to() -> None:
    dice = random.Random(3)
    for _ in range(500):
        codec = [
            Probe(rate * dice.uniform(0.8, 1.2), 0.4 * math.exp(-0.02 * q) * dice.uniform(0.8, 1.2))
            for q, rate in enumerate(RATES)
        ]
        floor, limit = dice.uniform(0.1, 0.4), dice.choice([None, dice.choice(RATES)])
        q, met, probes = found(Goal(Floor("lpips_alex", floor), limit), codec)
        held = {
            at: (probe.value or 9) <= floor and (limit is None or probe.bpp <= limit)
            for at, probe in probes.items()
        }
        assert held[q] == met
        assert met == any(held.values())
        if limit is None and met and (codec[q].value or 9) < floor * 0.97:
            assert q == 0 or not held[q - 1]


def test_a_goal_without_anything_asked_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs"):
        Goal(None, None)
