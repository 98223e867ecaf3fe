"""A batch of GOPs, each held to its own policy: which rule it is under, and the GOP as that rule wants it.

    figures of the source ─► rule? ─┬─ AV1 ─────────────────────────────────────────────► searched in AV1 alone
                                    ├─ a floor, or none ─► searched in S2VC ─► falls back
                                    └─ not known yet ─► searched in S2VC for the floor ─► rule? ─► as above

A GOP's own figures alone decide, so its neighbours in the batch, retries and workers change nothing. Knows no codec:
what codes is given, as in `s2vc_ray.target_search`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from s2vc_model.config import QUARTERS
from s2vc_ray.av1_gop import MAX_CRF, MAX_HEIGHT, MAX_WIDTH
from s2vc_ray.errors import SourceError
from s2vc_ray.fallback_search import fall_back
from s2vc_ray.policy import CONDITIONS, FALLBACKS, Figures, Policy, Rule
from s2vc_ray.risk import Risk, Sight
from s2vc_ray.target_search import Code, Way, Wish, seek_best

if TYPE_CHECKING:
    from s2vc_ray.lanes import CodedGop


def hold(
    policies: Sequence[Policy], top: int, sights: Sequence[Sight], ways: Sequence[Way], code_av1: Code | None
) -> list[CodedGop]:
    """Each GOP as its policy wants it, with `CodedGop.rule` and `CodedGop.target_value`.

    Seconds and probes are of all that was tried. A GOP whose rule wants AV1 is AV1, also where that misses its floor.

    Args:
        policies: of each GOP, as `Policy.of` gives them.
        top: the highest q that S2VC may take.
        sights: of each GOP, what is known before it is coded.
        ways: to code with S2VC, the level being q.
        code_av1: with AV1, the level being the CRF; None where pictures are too large for it.

    Raises:
        SourceError: a rule or a policy wants AV1, and pictures are too large for it.
    """
    known: list[Figures] = [_of_source(sight) for sight in sights]
    decided = [policy.rule_for(figures) for policy, figures in zip(policies, known, strict=True)]
    rules: list[Rule | None] = [rule for _, rule in decided]
    result: dict[int, CodedGop] = {}

    def search(numbers: Iterable[int], ways: Sequence[Way], most: int, parts: int) -> None:
        chosen = list(numbers)
        goals = [policies[number].goal(rules[number], most, parts) for number in chosen]
        own = [replace(way, code=partial(_renumbered, way.code, chosen)) for way in ways]
        found = seek_best(goals, own)
        for number, one in zip(chosen, found, strict=True):
            result[number] = _after(result.get(number), one)

    def is_av1(number: int) -> bool:
        rule = rules[number]
        return bool(policies[number].codec or (rule and rule.codec))

    numbers = range(len(policies))
    search((number for number in numbers if not is_av1(number)), ways, top, QUARTERS)
    again = []
    for number in (n for n, (is_known, _) in enumerate(decided) if not is_known):
        _, rules[number] = policies[number].rule_for({**known[number], **_of_decoded(result[number].risk)})
        if (rule := rules[number]) and rule.floor and not rule.codec:
            again.append(number)
    search(again, ways, top, QUARTERS)
    if code_av1 is None:
        if (wanted := next(filter(is_av1, numbers), None)) is not None:
            rule = rules[wanted]
            whose = f"rule {rule.name!r}" if rule and rule.codec else f"where {policies[wanted].name!r}"
            raise SourceError(
                f"{whose} of the policy wants AV1, which takes pictures of {MAX_WIDTH}x{MAX_HEIGHT} pixels "
                "at most: exclude the source, or change the policy"
            )
        return _named(result, rules)
    for fallback in FALLBACKS:
        others = [n for n in numbers if policies[n].fallback == fallback and not is_av1(n)]
        held = fall_back(
            fallback,
            [result[number] for number in others],
            [policies[number].goal(rules[number], top) for number in others],
            partial(_renumbered, code_av1, others),
        )
        result.update(zip(others, held, strict=True))
    search(
        filter(is_av1, numbers),
        [Way(lambda wishes: code_av1([(number, MAX_CRF - level) for number, level in wishes]))],
        MAX_CRF,
        1,
    )
    return _named(result, rules)


def _named(result: Mapping[int, CodedGop], rules: Sequence[Rule | None]) -> list[CodedGop]:
    return [replace(result[n], rule=rule.name if rule else None) for n, rule in enumerate(rules)]


def _renumbered(code: Code, numbers: Sequence[int], wishes: Sequence[Wish]) -> Sequence[CodedGop]:
    return code([(numbers[at], level) for at, level in wishes])


def _of_source(sight: Sight) -> Figures:
    return {"faces": sight.most_faces, "text_density": sight.text_density}


def _of_decoded(risk: Risk | None) -> Figures:
    figures = asdict(risk) if risk else {}
    return {name: figures.get(name) for name, asked in CONDITIONS.items() if asked.decoded}


def _after(earlier: CodedGop | None, later: CodedGop) -> CodedGop:
    """The later of two searches of one GOP, with the time and the probes of both."""
    if earlier is None:
        return later
    return replace(
        later,
        encode_seconds=earlier.encode_seconds + later.encode_seconds,
        probes=earlier.probes + later.probes,
    )
