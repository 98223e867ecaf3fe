"""A policy: what an operator holds a whole archive to, as a value with one canonical spelling and one digest.

    the floor of every GOP · rules that hold some GOPs to more · what becomes of misses · which videos stay out
    · what else holds for sources of certain names

A rule is about one GOP: what was seen in the measured frames of its source, or how its worst place came out as S2VC
coded it for the floor. The first rule in the policy's order that applies decides, and nothing outside the GOP has a
say. Pure: knows no codec, no frames and no files; `s2vc_ray.policy_file` reads one from TOML. See ``docs/policy.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from s2vc_ray.errors import ConfigError
from s2vc_ray.name_patterns import check_pattern, covers, matching
from s2vc_ray.targets import SCALES, Floor, Goal

FALLBACKS = ("av1", "smaller", "none")
AV1 = "av1"
MAX_TEXT = 4096
"""Characters of a policy's canonical text: archive headers hold it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")

Figures = Mapping[str, float | None]
"""Figures of a GOP by name; None where it has no such figure. One that is missing is not known yet."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule may ask of a figure.

    Attributes:
        decoded: it is of decoded pictures, so a GOP is coded before it is known; else of the source's alone.
        at_least: it holds at the threshold and above; else at it and below.
        low, high: thresholds that make sense, both included.
        whole: they are whole numbers.
        says: in words, with the threshold to be put in.
    """

    decoded: bool
    at_least: bool
    low: float
    high: float
    whole: bool
    says: str


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "faces": Condition(False, True, 1, 1000, True, "{} or more faces are found in a source frame"),
        "text_density": Condition(
            False, True, 1e-6, 1, False, "{} or more of a source frame looks like text"
        ),
        "tile_worst": Condition(True, False, -1, 0.9999, False, "its worst tile has an SSIM of {} or less"),
        "text_worst": Condition(True, False, -1, 0.9999, False, "its worst text has an SSIM of {} or less"),
        "face_worst": Condition(True, False, -1, 0.9999, False, "its worst face has an SSIM of {} or less"),
    }
)
"""What rules may ask, by the manifest's names; see `s2vc_ray.risk.Risk`."""
_OF_FACES = frozenset({"faces", "face_worst"})


@dataclass(frozen=True, slots=True)
class Rule:
    """GOPs for which all of ``when`` holds are held to ``floor``, or coded by ``codec`` alone, or both.

    Attributes:
        name: what the manifest calls it.
        when: figures of `CONDITIONS` and their thresholds, ordered by name.
        floor: None: the policy's.
        codec: ``av1``, or empty: S2VC, with what falls back from it.

    Raises:
        ConfigError: it has no name, no condition or no consequence, or a threshold that makes no sense.
    """

    name: str
    when: tuple[tuple[str, float], ...]
    floor: Floor | None = None
    codec: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"rule name {self.name!r}: give 1 to 64 letters, digits, spaces, dots, dashes or underscores"
            )
        if not self.when:
            raise ConfigError(f"rule {self.name!r} has no condition: choose from {', '.join(CONDITIONS)}")
        for figure, threshold in self.when:
            asked = CONDITIONS.get(figure)
            if asked is None:
                raise ConfigError(
                    f"rule {self.name!r}: no condition {figure!r}: choose from {', '.join(CONDITIONS)}"
                )
            if not asked.low <= threshold <= asked.high or (asked.whole and threshold % 1):
                kind = "a whole number" if asked.whole else "a number"
                raise ConfigError(
                    f"rule {self.name!r}: {figure} is {threshold:g}: give {kind} from {asked.low:g} to {asked.high:g}"
                )
        _check_codec(f"rule {self.name!r}", self.codec)
        if self.floor is None and not self.codec:
            raise ConfigError(
                f"rule {self.name!r} has no consequence: give floor = …, codec = 'av1', or both"
            )

    @property
    def needs_decoding(self) -> bool:
        """Whether a GOP has to be coded before it is known that the rule applies."""
        return any(CONDITIONS[figure].decoded for figure, _ in self.when)

    def applies(self, figures: Figures) -> bool | None:
        """Whether it does; None where that takes figures that are not known yet. A figure that a GOP does not have
        meets no threshold."""
        unknown = False
        for name, threshold in self.when:
            if name not in figures:
                unknown = True
                continue
            figure = figures[name]
            if figure is None or (figure < threshold if CONDITIONS[name].at_least else figure > threshold):
                return False
        return None if unknown else True


@dataclass(frozen=True, slots=True)
class Policy:
    """What all GOPs of a job are held to.

    Attributes:
        floor: of every GOP that no rule says more of, with the most bits that any may take for its floor.
        fallback: one of `FALLBACKS`, for GOPs that no rule gives to AV1.
        rules: the first that applies decides; their floors are of the same metric and at least as strict.
        exclude: patterns of source names that are not to be coded. They decide nothing of an archive's bytes, so they
            are no part of `text`.
        codec: ``av1``: no GOP is S2VC's; empty: those are that no rule gives to AV1.
        where: what holds for some sources instead, the first whose ``sources`` match; each is whole in itself, and none
            has any of its own. No part of `text`, for archives record what `of` gives.
        name, sources: of one that stands in another's ``where``: what it is called, and patterns of source names.

    Raises:
        ConfigError: it contradicts itself, or is too long to be recorded.
    """

    floor: Floor
    fallback: str = FALLBACKS[0]
    rules: tuple[Rule, ...] = ()
    exclude: tuple[str, ...] = ()
    codec: str = ""
    where: tuple[Policy, ...] = ()
    name: str = ""
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ConfigError(f"fallback is {self.fallback!r}: choose one of {', '.join(FALLBACKS)}")
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two rules are called {twice[0]!r}: the manifest tells them apart by name")
        for rule in self.rules:
            _check_floor(rule, self.floor)
            if self.codec and rule.needs_decoding:
                raise ConfigError(
                    f"rule {rule.name!r} is about GOPs as S2VC codes them, and codec {self.codec!r} has none of them so"
                )
        _check_codec("the policy", self.codec)
        for key in ("exclude", "sources"):
            for pattern in getattr(self, key):
                check_pattern(key, pattern)
        _check_where(self)
        if len(self.text) > MAX_TEXT:
            raise ConfigError(
                f"its canonical text takes {len(self.text)} characters, and archives record {MAX_TEXT} at most: "
                "use fewer rules or shorter names"
            )

    @property
    def text(self) -> str:
        """All that decides how GOPs are coded, as canonical JSON: equal policies have equal texts."""
        value = {
            "floor": str(replace(self.floor, max_bpp=None)),
            "max_bpp": self.floor.max_bpp,
            "fallback": self.fallback,
            "rules": [
                {
                    "name": rule.name,
                    "when": {name: _number(name, value) for name, value in rule.when},
                    **({"floor": str(replace(rule.floor, max_bpp=None))} if rule.floor else {}),
                    **({"codec": rule.codec} if rule.codec else {}),
                }
                for rule in self.rules
            ],
            # Only where there is one: what was recorded before there were these keeps its digest.
            **({"codec": self.codec} if self.codec else {}),
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """64 hex digits: of `text`."""
        return policy_digest(self.text)

    @classmethod
    def from_text(cls, text: str) -> Policy:
        """The policy of a canonical text.

        Raises:
            ConfigError: it is none.
        """
        try:
            value = json.loads(text)
            most = value["max_bpp"]
            rules = tuple(
                Rule(
                    rule["name"],
                    tuple(sorted(rule["when"].items())),
                    Floor.parse(rule["floor"]) if "floor" in rule else None,
                    rule.get("codec", ""),
                )
                for rule in value["rules"]
            )
            policy = cls(
                Floor.parse(value["floor"], most), value["fallback"], rules, codec=value.get("codec", "")
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ConfigError(f"not a policy's canonical text: {error}") from error
        if policy.text != text:
            raise ConfigError("not a policy's canonical text: it is written otherwise")
        return policy

    @property
    def needs_faces(self) -> bool:
        """Whether faces must be looked for."""
        return any(figure in _OF_FACES for one in self.all for rule in one.rules for figure, _ in rule.when)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Itself, for sources that no ``where`` speaks of, and those of ``where``."""
        return (self, *self.where)

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics that its floors are of."""
        return frozenset(one.floor.metric for one in self.all)

    def of(self, name: str) -> Policy:
        """What holds for the source of this name: the first of ``where`` that matches, else what this one says; without
        ``where``, and with its exclusions."""
        for own in self.where:
            if matching(own.sources, name):
                return replace(own, exclude=self.exclude)
        return replace(self, where=()) if self.where else self

    def rule_for(self, figures: Figures) -> tuple[bool, Rule | None]:
        """Whether it is decided, and if so the rule that a GOP is under; None is the floor alone."""
        for rule in self.rules:
            applies = rule.applies(figures)
            if applies is None:
                return False, None
            if applies:
                return True, rule
        return True, None

    def goal(self, rule: Rule | None, top: int, parts: int = 1) -> Goal:
        """What a GOP under ``rule`` is searched for, ``top`` being the highest level that may be taken.

        ``parts``: see `Goal`.
        """
        floor = rule.floor if rule and rule.floor else self.floor
        return Goal(replace(floor, max_bpp=self.floor.max_bpp), self.floor.max_bpp, top, parts)

    def excludes(self, name: str) -> str | None:
        """The first pattern that a source's name matches."""
        return matching(self.exclude, name)


def policy_digest(text: str) -> str:
    """What stands for a policy's canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _number(name: str, value: float) -> float:
    """A threshold as it is written, however it was given: 1 and 1.0 are one."""
    return int(value) if CONDITIONS[name].whole else float(value)


def _check_floor(rule: Rule, floor: Floor) -> None:
    own = rule.floor
    if own is None:
        return
    if (own.metric, own.statistic) != (floor.metric, floor.statistic):
        raise ConfigError(
            f"rule {rule.name!r}: floor {own} is of another metric than the policy's, {floor}: one metric holds for all"
        )
    if SCALES[floor.metric].margin(own.value, floor.value) < 0:
        raise ConfigError(
            f"rule {rule.name!r}: floor {own} is laxer than the policy's, {floor}: rules can only ask for more"
        )


def _check_codec(whose: str, codec: str) -> None:
    if codec not in ("", AV1):
        raise ConfigError(f"{whose}: codec {codec!r}: the one to be given is {AV1!r}")


def _check_where(policy: Policy) -> None:
    """Each has a name of its own, and sources that neither an exclusion nor an earlier one takes all of."""
    earlier, names = list(policy.exclude), set[str]()
    for own in policy.where:
        if not _NAME.fullmatch(own.name) or own.name in names:
            raise ConfigError(
                f"where name {own.name!r}: give each another, of 1 to 64 letters, digits, spaces, dots, dashes or "
                "underscores"
            )
        if not own.sources:
            raise ConfigError(
                f'where {own.name!r} has no sources: give patterns, such as sources = ["interviews/**"]'
            )
        taken = [next((one for one in earlier if covers(one, pattern)), "") for pattern in own.sources]
        if all(taken):
            raise ConfigError(
                f"where {own.name!r} can hold for no source: what it names matches {' or '.join(sorted(set(taken)))}, "
                "which comes before it (exclusions first, then each where in order): move it up, or leave it out"
            )
        names.add(own.name)
        earlier += own.sources
