"""A policy's TOML file: read strictly, and told in plain words. What it means is `s2vc_ray.policy`'s."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
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
}
_RULE = {"name": "a text", "when": "a table", "floor": "a text", "codec": "a text"}


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
    rules = [_rule(number, item) for number, item in enumerate(values.get("rule", ()), 1)]
    exclude = values.get("exclude", [])
    if not all(isinstance(pattern, str) for pattern in exclude):
        raise ConfigError('exclude must be a list of texts, such as exclude = ["masters/**"]')
    return Policy(floor, values.get("fallback", FALLBACKS[0]), tuple(rules), tuple(exclude))


def in_words(policy: Policy) -> Iterator[str]:
    """What a policy means, a sentence a line."""
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
    yield {
        "av1": "Where S2VC misses what a GOP is held to, AV1 holds it if it can.",
        "smaller": "AV1 holds a GOP where S2VC misses, or where AV1 takes fewer bytes for it.",
        "none": "Where S2VC misses what a GOP is held to, its best attempt is stored, and the job exits with 1.",
    }[policy.fallback]
    for pattern in policy.exclude:
        yield f"Sources whose name matches {pattern} are not coded."
    if policy.needs_faces:
        yield "Faces are looked for, which needs the extra 'guards'."
    yield f"Policy SHA-256: {policy.sha256}"


def _floor(floor: Floor) -> str:
    frames = (
        "in its worst measured frame" if floor.statistic == "worst" else "as the mean of its measured frames"
    )
    return f"{floor.metric} {floor.value:g} or better {frames}"


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
