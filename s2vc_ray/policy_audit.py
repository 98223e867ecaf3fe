"""Whether GOPs conform to the policy that they say they were coded under, worked out anew from the manifest's figures.

Nothing is taken from ``target_met``: the floor is held against the metric's column, the codec against the rule's, and
the rule against the source's figures. Only that a rule about decoded pictures should have applied, and did not, cannot
be seen afterwards: what was stored is no longer what S2VC made of the GOP at first. Asks `AuditTables`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from s2vc_ray.audit_tables import AuditTables
from s2vc_ray.errors import ConfigError
from s2vc_ray.name_patterns import expression
from s2vc_ray.policy import AV1, CONDITIONS, Policy, Rule, policy_digest
from s2vc_ray.policy_file import in_words
from s2vc_ray.targets import SCALES, Floor

CONFORMS, UNKNOWN = "conforms", "not measured"
_POLICIES = 20
"""Most policies that are told of one destination."""
_CONFIGS = 1000


def conformance(policy: Policy) -> str:
    """An SQL expression over columns of ``gops``: `CONFORMS`, `UNKNOWN`, or what a GOP of this policy lacks."""
    none, rules = len(policy.rules), list(enumerate(policy.rules))
    recorded = _case([(f"policy_rule = '{rule.name}'", at) for at, rule in rules], "-1")
    recorded = f"CASE WHEN policy_rule IS NULL THEN {none} ELSE {recorded} END"
    # By the source alone; a rule about decoded pictures that stands before it may have come first.
    expected = _case([(_source_holds(rule), at) for at, rule in rules if not rule.needs_decoding], none)
    earlier = [
        (f"{recorded} = {at}", f"{at} < {expected} AND {_source_holds(rule)}")
        for at, rule in rules
        if rule.needs_decoding
    ]
    right_rule = _case(earlier, f"{recorded} = {expected}")
    own = [(f"{recorded} = {at}", _number(rule.floor.value)) for at, rule in rules if rule.floor]
    floor = _case(own, _number(policy.floor.value))
    column = measured(policy.floor)
    held = f"{column} {'>=' if SCALES[policy.floor.metric].higher else '<='} {floor}"
    given = [(f"{recorded} = {at}", "TRUE") for at, rule in rules if rule.codec]
    needs_av1 = "TRUE" if policy.codec else _case(given, "FALSE")
    lacks = [
        (f"NOT ({right_rule})", "another rule applies"),
        (f"{needs_av1} AND codec <> '{AV1}'", "is not AV1"),
        (f"{column} IS NULL OR isnan({column})", "has no such figure"),
        (f"NOT ({held})", "misses its floor"),
    ]
    if policy.fallback == "none":
        lacks.append((f"NOT {needs_av1} AND codec = '{AV1}'", "fell back"))
    if policy.floor.max_bpp is not None:
        lacks.append((f"bpp > {_number(policy.floor.max_bpp)}", "takes more bits than allowed"))
    said = [(condition, f"'{says}'") for condition, says in lacks]
    return _case([("coalesce(metric_frames, 0) = 0", f"'{UNKNOWN}'"), *said], f"'{CONFORMS}'")


def measured(floor: Floor) -> str:
    """The column that a floor is about."""
    return f"{floor.metric}_{floor.statistic}"


def policies(tables: AuditTables, limit: int) -> list[dict[str, Any]]:
    """For each policy that chosen GOPs were coded under: what it says, how many conform, rule by rule, and the first
    ``limit`` that do not. Counts of one whose text nobody tells are of GOPs alone."""
    if "policy_sha256" not in tables.columns("chosen"):
        return []
    found = _rows(
        tables,
        "SELECT policy_sha256 AS sha256, count(*) AS gops FROM chosen "  # noqa: S608
        "WHERE payload_bytes IS NOT NULL AND policy_sha256 IS NOT NULL "
        f"GROUP BY ALL ORDER BY gops DESC, sha256 LIMIT {_POLICIES}",
    )
    return [row | _told(tables, row["sha256"], limit) for row in found]


def held_to(tables: AuditTables, policy: Policy, limit: int) -> tuple[int, int, tuple[str, ...]]:
    """How many chosen GOPs there are, how many were not coded under what this very policy says of their source, or are
    not shown to conform to that, and the first of those. A video whose source it excludes counts as one of them."""
    verdict = _case([(_matches(own.sources), _verdict(own)) for own in policy.where], _verdict(policy))
    if "policy_sha256" not in tables.columns("chosen"):
        verdict = "'no policy'"
    table = f"(SELECT *, {verdict} AS verdict FROM chosen WHERE payload_bytes IS NOT NULL)"  # noqa: S608
    (counts,) = _rows(
        tables,
        f"SELECT count(*) AS gops, count(*) FILTER (WHERE verdict <> '{CONFORMS}') AS failed FROM {table}",  # noqa: S608
    )
    others = _rows(
        tables,
        f"SELECT source_name || ' GOP ' || gop_index || ': ' || verdict AS name FROM {table} "  # noqa: S608
        f"WHERE verdict <> '{CONFORMS}' ORDER BY source_name, video_id, gop_index LIMIT {limit or 1_000_000}",
    )
    wrong = list(_excluded(tables, policy))
    examples = [*wrong, *(row["name"] for row in others)]
    return counts["gops"] + len(wrong), counts["failed"] + len(wrong), tuple(examples[: limit or None])


def _verdict(policy: Policy) -> str:
    """An SQL expression: `conformance`, or that a GOP was not coded under this policy."""
    none = ("policy_sha256 IS NULL", "'no policy'")
    return _case([none, (f"policy_sha256 <> '{policy.sha256}'", "'another policy'")], conformance(policy))


def _matches(patterns: Sequence[str]) -> str:
    """An SQL expression: whether a source's name matches any pattern."""
    expressions = [expression(pattern).replace("'", "''") for pattern in patterns]
    return " OR ".join(f"regexp_full_match(source_name, '{one}', 's')" for one in expressions)


def _excluded(tables: AuditTables, policy: Policy) -> Iterator[str]:
    if not policy.exclude:
        return
    for batch in tables.stream(
        "SELECT source_name FROM videos WHERE archive IS NOT NULL ORDER BY source_name"
    ):
        for name in batch.column(0).to_pylist():
            if pattern := policy.excludes(name):
                yield f"{name}: has an archive, and {pattern} excludes it"


def _told(tables: AuditTables, sha256: str, limit: int) -> dict[str, Any]:
    policy = _policy(tables, sha256)
    if policy is None:
        return {
            "text": None,
            "figure": None,
            "words": [],
            "conforming": None,
            "unknown": None,
            "rules": [],
            "misses": [],
        }
    column = measured(policy.floor)
    table = (
        f"(SELECT *, {conformance(policy)} AS verdict FROM chosen "  # noqa: S608
        f"WHERE policy_sha256 = '{policy.sha256}' AND payload_bytes IS NOT NULL)"
    )
    rules = _rows(
        tables,
        f"""
        SELECT coalesce(policy_rule, '') AS rule, count(*) AS gops, count(*) FILTER (WHERE codec = '{AV1}') AS av1,
            sum(payload_bytes)::BIGINT AS payload_bytes, 8 * sum(payload_bytes) / sum(pixels) AS bpp,
            count(*) FILTER (WHERE verdict = '{CONFORMS}') AS conforming,
            count(*) FILTER (WHERE verdict = '{UNKNOWN}') AS unknown
        FROM {table} GROUP BY ALL ORDER BY gops DESC, rule
        """,  # noqa: S608
    )
    misses = _rows(
        tables,
        f"""
        SELECT source_name, gop_index, pts_seconds - begins AS at, rule, codec, floor, value, verdict FROM (
            SELECT job, video_id, gop_index, pts_seconds, coalesce(policy_rule, '') AS rule, codec,
                target_value AS floor, CASE WHEN isfinite({column}) THEN {column} END AS value, verdict
            FROM {table} WHERE verdict NOT IN ('{CONFORMS}', '{UNKNOWN}')
            ORDER BY source_name, video_id, gop_index LIMIT {limit or 1_000_000}
        ) JOIN words USING (job, video_id) ORDER BY source_name, video_id, gop_index
        """,  # noqa: S608
    )
    return {
        "text": policy.text,
        "figure": column,
        "words": list(in_words(policy)),
        "conforming": sum(row["conforming"] for row in rules),
        "unknown": sum(row["unknown"] for row in rules),
        "rules": rules,
        "misses": misses,
    }


def _policy(tables: AuditTables, sha256: str) -> Policy | None:
    """The policy with this digest, from any job's options; None where none has it. A GOP that was copied into a later
    version has its own policy and the later job's options."""
    query = "SELECT DISTINCT config FROM parts WHERE policy_sha256 IS NOT NULL AND contains(config, 'policy') LIMIT"
    for row in _rows(tables, f"{query} {_CONFIGS}"):
        try:
            options = json.loads(row["config"])
            text = options.get("policy") if isinstance(options, dict) else None
            if isinstance(text, str) and policy_digest(text) == sha256:
                policy = Policy.from_text(text)
                return policy if policy.sha256 == sha256 else None
        except (ValueError, ConfigError):
            continue
    return None


def _case(arms: Sequence[tuple[str, object]], otherwise: object) -> str:
    """What stands beside the first condition that holds."""
    told = "".join(f" WHEN {condition} THEN {result}" for condition, result in arms)
    return f"(CASE{told} ELSE {otherwise} END)" if arms else f"({otherwise})"


def _number(value: float) -> str:
    return f"{value!r}::DOUBLE"


def _source_holds(rule: Rule) -> str:
    """Whether the rule's conditions about the source hold; FALSE where there is no such figure."""
    held = [
        f"{name} {'>=' if CONDITIONS[name].at_least else '<='} {_number(value)}"
        for name, value in rule.when
        if not CONDITIONS[name].decoded
    ]
    return f"coalesce({' AND '.join(held)}, FALSE)" if held else "TRUE"


def _rows(tables: AuditTables, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tables.ask(query).to_pylist()
    return rows
