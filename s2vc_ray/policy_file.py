"""A policy's TOML file: read strictly, and told in plain words. What it means is `s2vc_ray.policy`'s."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import AV1, CONDITIONS, FALLBACKS, Policy, Rule
from s2vc_ray.targets import Floor

_TYPES: dict[str, tuple[type, ...]] = {
    "a text": (str,),
    "a number": (int, float),
    "a list": (list,),
    "a table": (dict,),
}
_LARGEST = 1 << 53
"""Whole numbers beyond it are none that anything here could mean."""
_POLICY = {
    "floor": "a text",
    "max_bpp": "a number",
    "fallback": "a text",
    "exclude": "a list",
    "rule": "a list",
    "where": "a list",
}
_WHERE = {
    "name": "a text",
    "sources": "a list",
    "floor": "a text",
    "max_bpp": "a number",
    "fallback": "a text",
    "codec": "a text",
    "rule": "a list",
}
_RULE = {"name": "a text", "when": "a table", "floor": "a text", "codec": "a text"}
_FALLBACKS = {
    "av1": "Where S2VC misses what a GOP is held to, AV1 holds it if it can.",
    "smaller": "AV1 holds a GOP where S2VC misses, or where AV1 takes fewer bytes for it.",
    "none": "Where S2VC misses what a GOP is held to, its best attempt is stored, and the job exits with 1.",
}


def read_policy(path: str) -> Policy:
    """The policy in a TOML file.

    Raises:
        ConfigError: it cannot be read, or is no policy; the message names the file, what is wrong, and what is allowed.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"policy {path} cannot be read: {error}") from error
    try:
        return parse_policy(text)
    except ConfigError as error:
        raise ConfigError(f"policy {path}: {error}") from error


def parse_policy(text: str) -> Policy:
    """The policy that TOML says.

    Raises:
        ConfigError: it says none.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this is no TOML: {error}") from error
    _check_keys("the policy", values, _POLICY)
    if "floor" not in values:
        raise ConfigError('floor is missing: say what every GOP is held to, such as floor = "lpips=0.3"')
    most = values.get("max_bpp")
    floor = Floor.parse(values["floor"], None if most is None else float(most))
    whole = Policy(floor, values.get("fallback", FALLBACKS[0]), _rules(values), _patterns(values, "exclude"))
    where = [_where(number, item, whole) for number, item in enumerate(values.get("where", ()), 1)]
    return replace(whole, where=tuple(where))


def in_words(policy: Policy) -> Iterator[str]:
    """What a policy means, a sentence a line."""
    if policy.where:
        yield "The first where that matches a source's name decides what all its GOPs are held to."
        for own in (*policy.where, policy):
            named = f"where {own.name}, names that match {' or '.join(own.sources)}"
            yield f"{named if own.sources else 'all other sources'}:"
            yield from (f"  {line}" for line in (*_held_to(own), f"Policy SHA-256: {own.sha256}"))
    else:
        yield from _held_to(policy)
    for pattern in policy.exclude:
        yield f"Sources whose name matches {pattern} are not coded."
    if policy.needs_faces:
        yield "Faces are looked for, which needs the extra 'guards'."
    if not policy.where:
        yield f"Policy SHA-256: {policy.sha256}"


def _held_to(policy: Policy) -> Iterator[str]:
    """What one policy means for its own sources."""
    if policy.codec == AV1:
        yield "Every GOP is stored as AV1, never as S2VC."
    most = "" if policy.floor.max_bpp is None else f", in at most {policy.floor.max_bpp:g} bits per pixel"
    yield f"Every GOP is held to {_floor(policy.floor)}{most}."
    for number, rule in enumerate(policy.rules, 1):
        when = " and ".join(CONDITIONS[name].says.format(f"{value:g}") for name, value in rule.when)
        then = " and ".join(
            ([f"it is held to {_floor(rule.floor)}"] if rule.floor else [])
            + (["it is stored as AV1, never as S2VC"] if rule.codec == AV1 else [])
        )
        known = " as S2VC codes it for the floor" if rule.needs_decoding else ""
        yield f"{number}. {rule.name}: where {when}{known}, {then}."
    if policy.rules:
        yield "Of several rules that apply to a GOP, the first decides."
    if not policy.codec:
        yield _FALLBACKS[policy.fallback]


def _floor(floor: Floor) -> str:
    frames = (
        "in its worst measured frame" if floor.statistic == "worst" else "as the mean of its measured frames"
    )
    return f"{floor.metric} {floor.value:g} or better {frames}"


def _where(number: int, values: Any, whole: Policy) -> Policy:
    """What a table says of its sources; of what it does not say, what the file says of all."""
    called = f"where {number}"
    if not isinstance(values, dict):
        raise ConfigError(f"{called} must be a table: write [[where]]")
    _check_keys(called, values, _WHERE)
    name, codec = values.get("name", called), values.get("codec", "")
    most = values.get("max_bpp", whole.floor.max_bpp)
    hint = ""
    try:
        floor = Floor.parse(values["floor"]) if "floor" in values else whole.floor
        own = Policy(
            replace(floor, max_bpp=None if most is None else float(most)),
            values.get("fallback", whole.fallback),
            codec=codec,
            name=name,
            sources=_patterns(values, "sources"),
        )
        if "rule" in values:
            return replace(own, rules=_rules(values))
        hint = (
            "; it has the rules of the whole file: give it [[where.rule]] of its own, or rule = [] for none"
        )
        # Rules about what S2VC makes of a GOP have no say where it makes none.
        kept = (rule for rule in whole.rules if not (codec and rule.needs_decoding))
        return replace(own, rules=tuple(kept))
    except ConfigError as error:
        raise ConfigError(f"where {name!r}: {error}{hint}") from error


def _patterns(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    patterns = values.get(key, [])
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigError(f'{key} must be a list of texts, such as {key} = ["masters/**"]')
    return tuple(patterns)


def _rules(values: Mapping[str, Any]) -> tuple[Rule, ...]:
    return tuple(_rule(number, item) for number, item in enumerate(values.get("rule", ()), 1))


def _rule(number: int, values: Any) -> Rule:
    where = f"rule {number}"
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table: write [[rule]]")
    _check_keys(where, values, _RULE)
    when = values.get("when", {})
    for name, threshold in when.items():
        if name in CONDITIONS and not _is(threshold, "a number"):
            raise ConfigError(f"{where}: when.{name} must be a number, not {threshold!r}")
    floor = Floor.parse(values["floor"]) if "floor" in values else None
    return Rule(values.get("name", where), tuple(sorted(when.items())), floor, values.get("codec", ""))


def _check_keys(where: str, values: Mapping[str, Any], allowed: Mapping[str, str]) -> None:
    for name, value in values.items():
        if name not in allowed:
            raise ConfigError(f"{where} has no key {name!r}: there are {', '.join(allowed)}")
        if not _is(value, allowed[name]):
            raise ConfigError(f"{where}: {name} must be {allowed[name]}, not {value!r}")


def _is(value: object, kind: str) -> bool:
    if isinstance(value, int) and (isinstance(value, bool) or abs(value) > _LARGEST):
        return False
    return isinstance(value, _TYPES[kind])
