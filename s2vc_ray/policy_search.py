"""A batch of GOPs held to a policy: which rule each is under, and the GOP as that rule wants it.

    figures of the source ─► rule? ─┬─ AV1 ─────────────────────────────────────────────► searched in AV1 alone
                                    ├─ a floor, or none ─► searched in S2VC ─► falls back
                                    └─ not known yet ─► searched in S2VC for the floor ─► rule? ─► as above

A GOP's own figures alone decide, so its neighbours in the batch, retries and workers change nothing. Knows no codec:
what codes is given, as in `s2vc_ray.target_search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from s2vc_ray.av1_gop import MAX_CRF, MAX_HEIGHT, MAX_WIDTH
from s2vc_ray.errors import SourceError
from s2vc_ray.fallback_search import fall_back
from s2vc_ray.policy import CONDITIONS, Figures, Policy, Rule
from s2vc_ray.risk import Risk, Sight
from s2vc_ray.target_search import Wish, seek

if TYPE_CHECKING:
    from s2vc_ray.lanes import CodedGop

Code = Callable[[Sequence[Wish]], Sequence["CodedGop"]]
"""Codes and measures GOPs: their numbers in the batch, and the level for each."""


def hold(
    policy: Policy, top: int, sights: Sequence[Sight], code: Code, code_av1: Code | None
) -> list[CodedGop]:
    """Each GOP as the policy wants it, with `CodedGop.rule` and `CodedGop.target_value`.

    Seconds and probes are of all that was tried. A GOP whose rule wants AV1 is AV1, also where that misses its floor.

    Args:
        top: the highest q that S2VC may take.
        sights: of each GOP, what is known before it is coded.
        code: with S2VC, the level being q.
        code_av1: with AV1, the level being the CRF; None where pictures are too large for it.

    Raises:
        SourceError: a rule wants AV1, and pictures are too large for it.
    """
    known: list[Figures] = [_of_source(sight) for sight in sights]
    decided = [policy.rule_for(figures) for figures in known]
    rules: list[Rule | None] = [rule for _, rule in decided]
    result: dict[int, CodedGop] = {}

    def search(numbers: Iterable[int], coder: Code, most: int) -> None:
        chosen = list(numbers)
        goals = [policy.goal(rules[number], most) for number in chosen]
        found = seek(goals, lambda wishes: coder([(chosen[at], level) for at, level in wishes]))
        for number, one in zip(chosen, found, strict=True):
            result[number] = _after(result.get(number), one)

    search((n for n, rule in enumerate(rules) if not _is_av1(rule)), code, top)
    again = []
    for number in (n for n, (is_known, _) in enumerate(decided) if not is_known):
        _, rules[number] = policy.rule_for({**known[number], **_of_decoded(result[number].risk)})
        if (rule := rules[number]) and rule.floor and not rule.codec:
            again.append(number)
    search(again, code, top)
    if code_av1 is None:
        if wants := next((rule for rule in rules if rule and rule.codec), None):
            raise SourceError(
                f"rule {wants.name!r} of the policy wants AV1, which takes pictures of {MAX_WIDTH}x{MAX_HEIGHT} pixels "
                "at most: exclude the source, or change the rule"
            )
        return _named(result, rules)
    others = [number for number, rule in enumerate(rules) if not _is_av1(rule)]
    held = fall_back(
        policy.fallback,
        [result[number] for number in others],
        [policy.goal(rules[number], top) for number in others],
        lambda wishes: code_av1([(others[at], crf) for at, crf in wishes]),
    )
    result.update(zip(others, held, strict=True))
    search(
        (n for n, rule in enumerate(rules) if _is_av1(rule)),
        lambda wishes: code_av1([(number, MAX_CRF - level) for number, level in wishes]),
        MAX_CRF,
    )
    return _named(result, rules)


def _named(result: Mapping[int, CodedGop], rules: Sequence[Rule | None]) -> list[CodedGop]:
    return [replace(result[n], rule=rule.name if rule else None) for n, rule in enumerate(rules)]


def _is_av1(rule: Rule | None) -> bool:
    return bool(rule and rule.codec)


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
