"""A batch under a policy: each GOP's own figures decide, what is stored is what its rule wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.errors import SourceError
from s2vc_ray.lanes import CodedGop
from s2vc_ray.policy import Policy, Rule
from s2vc_ray.policy_search import hold
from s2vc_ray.risk import Risk, Sight
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import Way
from s2vc_ray.targets import Floor

FACES = Rule("faces", (("faces", 1),), codec="av1")
TEXT = Rule("text", (("text_density", 0.25),), Floor("lpips_alex", 0.1))
SMEARED = Rule("smeared", (("tile_worst", 0.5),), Floor("lpips_alex", 0.05))
LOST = Rule("lost", (("tile_worst", 0.2),), codec="av1")


@dataclass
class Bench:
    """LPIPS falls from 0.4 to 0.02 with S2VC's q, from 0.3 to ``best`` with AV1's level."""

    tiles: Sequence[float]
    best: float = 0.0
    ours: list[tuple[int, float]] = field(default_factory=list)
    theirs: list[tuple[int, float]] = field(default_factory=list)

    def code(self, wishes: Sequence[tuple[int, float]]) -> list[CodedGop]:
        self.ours += wishes
        return [
            self._coded(
                EncodedGop(64, 48, 1, int(q), bytes(100 + int(q)), b"", b"\0", 0, fine=int(4 * q) % 4),
                0.4 - 0.38 * q / 63,
                self.tiles[n],
            )
            for n, q in wishes
        ]

    def code_av1(self, wishes: Sequence[tuple[int, float]]) -> list[CodedGop]:
        self.theirs += wishes
        return [
            self._coded(
                Av1Gop(64, 48, int(crf), 0, b"\0", (bytes(500 - int(crf)),)),
                self.best + (0.3 - self.best) * crf / 63,
                0.9,
            )
            for _, crf in wishes
        ]

    @staticmethod
    def _coded(gop: EncodedGop | Av1Gop, value: float, tile: float) -> CodedGop:
        metric = Metric("lpips_alex", value, value, 1)
        return CodedGop(gop, 1.0, 0.25, (metric,), risk=Risk(tile, 0, 0, 0, 0.0))


def sight(*, text: float = 0.0, faces: int | None = 0) -> Sight:
    marked = np.zeros(100, np.bool_)
    marked[: round(100 * text)] = True
    boxes = None if faces is None else (((0, 0, 9, 9),) * faces,)
    return Sight((marked,), boxes)


def run(
    rules: Sequence[Rule],
    sights: Sequence[Sight],
    *,
    floor: float = 0.3,
    fallback: str = "av1",
    **bench: object,
) -> tuple[list[CodedGop], Bench]:
    on = replace(Bench([0.9] * len(sights)), **bench)
    policy = Policy(Floor("lpips_alex", floor), fallback, tuple(rules))
    return hold([policy] * len(sights), 63, sights, [Way(on.code)], on.code_av1), on


def worst(one: CodedGop) -> float:
    return one.metrics[0].worst


def test_each_gop_is_under_its_own_rule() -> None:
    stored, bench = run([FACES, TEXT], [sight(), sight(faces=1), sight(text=0.25), sight(text=0.9, faces=3)])
    assert [one.rule for one in stored] == [None, "faces", "text", "faces"]
    assert [one.codec for one in stored] == ["s2vc", "av1", "s2vc", "av1"]
    assert [one.target_value for one in stored] == [0.3, 0.3, 0.1, 0.3]
    assert all(one.target_met and worst(one) <= (one.target_value or 0) for one in stored)
    # Never as S2VC, not even to look; and never AV1 where nothing asks for it.
    assert {number for number, _ in bench.ours} == {0, 2}
    assert {number for number, _ in bench.theirs} == {1, 3}


def test_neighbours_change_nothing() -> None:
    sights = [sight(), sight(faces=1), sight(text=0.3), sight(text=0.1)]
    tiles = [0.9, 0.9, 0.1, 0.4]
    rules = [FACES, LOST, TEXT, SMEARED]
    together, _ = run(rules, sights, tiles=tiles)
    alone = [run(rules, [one], tiles=[tile])[0][0] for one, tile in zip(sights, tiles, strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert (one.rule, one.encoded, one.probes, one.target_met) == (
            other.rule,
            other.encoded,
            other.probes,
            other.target_met,
        )
    assert [one.rule for one in together] == [None, "faces", "lost", "smeared"]


def test_what_came_out_badly_is_held_to_more() -> None:
    stored, bench = run([SMEARED], [sight(), sight()], tiles=[0.51, 0.5])
    assert [one.rule for one in stored] == [None, "smeared"]
    assert [one.target_value for one in stored] == [0.3, 0.05]
    assert worst(stored[1]) <= 0.05 < worst(stored[0])
    assert stored[1].probes == sum(number == 1 for number, _ in bench.ours)


def test_what_came_out_badly_may_be_given_to_av1() -> None:
    (one,), bench = run([LOST], [sight()], tiles=[0.2])
    assert (one.rule, one.codec, one.target_met) == ("lost", "av1", True)
    assert bench.ours
    assert one.probes == len(bench.ours) + len(bench.theirs)


def test_an_earlier_rule_decides_though_it_takes_coding() -> None:
    marked = sight(text=0.5)
    assert [one.rule for one in run([SMEARED, TEXT], [marked], tiles=[0.4])[0]] == ["smeared"]
    assert [one.rule for one in run([SMEARED, TEXT], [marked], tiles=[0.9])[0]] == ["text"]
    (one,), bench = run([TEXT, SMEARED], [marked], tiles=[0.4])
    assert one.rule == "text"
    assert one.probes == len(bench.ours)


def test_misses_fall_back_as_the_policy_says() -> None:
    strict = Rule("strict", (("text_density", 0.25),), Floor("lpips_alex", 0.01))
    for fallback, codec, met in (("av1", "av1", True), ("none", "s2vc", False), ("smaller", "av1", True)):
        (one,), _ = run([strict], [sight(text=0.5)], fallback=fallback)
        assert (one.codec, one.target_met, one.rule) == (codec, met, "strict")


def test_a_gop_that_is_to_be_av1_is_av1_also_where_that_misses() -> None:
    (one,), bench = run([FACES], [sight(faces=1)], floor=0.25, best=0.31, fallback="none")
    assert (one.codec, one.target_met) == ("av1", False)
    assert bench.ours == []


def test_figures_that_were_not_taken_meet_no_rule() -> None:
    assert run([FACES], [sight(faces=None)])[0][0].rule is None


def test_pictures_too_large_for_av1() -> None:
    policy = Policy(Floor("lpips_alex", 0.01), "av1", (FACES,))
    bench = Bench([0.9])
    (one,) = hold([policy], 63, [sight()], [Way(bench.code)], None)
    assert (one.codec, one.target_met) == ("s2vc", False)
    with pytest.raises(SourceError, match=r"'faces'.*16384x8704"):
        hold([policy], 63, [sight(faces=1)], [Way(bench.code)], None)
    given = replace(policy, rules=(), codec="av1", name="stills")
    with pytest.raises(SourceError, match=r"^where 'stills' .*16384x8704"):
        hold([policy, given], 63, [sight(), sight()], [Way(bench.code)], None)


def test_each_gop_is_held_to_its_own_policy() -> None:
    lax = Policy(Floor("lpips_alex", 0.35), "none")
    never = Policy(Floor("lpips_alex", 0.01), "none")
    strict = Policy(Floor("lpips_alex", 0.01), "av1")
    given = Policy(Floor("lpips_alex", 0.2), codec="av1")
    smeared = Policy(Floor("lpips_alex", 0.3), rules=(SMEARED,))
    policies = [lax, given, never, strict, smeared]
    bench = Bench([0.4] * len(policies))
    stored = hold(policies, 63, [sight() for _ in policies], [Way(bench.code)], bench.code_av1)
    assert [(one.codec, one.target_met, one.target_value, one.rule) for one in stored] == [
        ("s2vc", True, 0.35, None),
        ("av1", True, 0.2, None),
        ("s2vc", False, 0.01, None),
        ("av1", True, 0.01, None),
        ("s2vc", True, 0.05, "smeared"),
    ]
    assert {number for number, _ in bench.ours} == {0, 2, 3, 4}
    assert {number for number, _ in bench.theirs} == {1, 3}
