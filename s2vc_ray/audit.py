"""What a manifest says, summed up for somebody who must believe it: rates, quality, failures, outliers, provenance.

Asks questions of `AuditTables` and puts the answers together as plain values. Knows no terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from s2vc_ray.audit_tables import AuditTables, open_tables
from s2vc_ray.errors import ConfigError
from s2vc_ray.fenced_duckdb import expression
from s2vc_ray.manifest import QUALITY
from s2vc_ray.policy import Policy
from s2vc_ray.policy_audit import held_to, policies
from s2vc_ray.storage import Storage, open_storage

TABLES = {"video": "videos", "job": "jobs", "gop": "chosen"}
"""What an audit can list, and the table that it is."""
GOP_NOTES = ("codec", "target", "target_met", "probes", "policy_rule")
"""Columns of ``gops`` that say how a GOP came to be, told where there are any; older manifests lack some."""
PLACES = {"face_worst": "faces", "text_worst": "text", "tile_worst": "any tile"}
"""Columns of the worst place of a GOP, and what it is a place of; see `s2vc_ray.risk`."""
OUTLIER_DEVIATIONS = 5.0
OUTLIER_GROUP = 10
_ORDER = {"video": "source_name, video_id", "job": "created, job", "gop": "source_name, video_id, gop_index"}
_PLACE = ("text_density", "faces", "tile_worst", "tile_worst_frame", "tile_worst_x", "tile_worst_y")
_NAMED = {"video": "source_name", "job": "job", "gop": "source_name || ' GOP ' || gop_index"}


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What is asked of a manifest.

    Attributes:
        where: a condition on the columns of ``gops``; rows for which it does not hold are left out of everything.
        require: conditions on each row of what ``by`` names; one for which it does not hold is a fault.
        by: ``video``, ``job`` or ``gop``: what is listed, held against ``require`` and searched for outliers.
        limit: most rows of each list; 0 is all of them.
        percentiles: work out each video's too; a requirement may speak of them.
        policy: require that every GOP was coded under it and conforms to it.
    """

    where: str = ""
    require: tuple[str, ...] = ()
    by: str = "video"
    limit: int = 20
    percentiles: bool = True
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if self.by not in TABLES:
            raise ConfigError(f"--by {self.by}: choose from {', '.join(TABLES)}")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition, how many rows it was held against, of how many it does not hold, and the first of those.

    A row without the figures that it speaks of fails it.
    """

    condition: str
    checked: int
    failed: int
    examples: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Whether it holds for all, and there was something to hold it against."""
        return bool(self.checked) and not self.failed


@dataclass(slots=True)
class AuditReport:
    """What a manifest says. Lists hold dicts of plain values, at most ``limit`` of them where ``totals`` has the count.

    Attributes:
        totals: the figures of all videos together.
        quality: for each metric there, over all GOPs: mean over measured frames, 5th percentile of the GOPs' means on
            the bad side, and worst frame.
        rows: of the table that was asked for.
        worst: for each metric there, the GOPs with the worst frames.
        places: for each of `PLACES` that any GOP has, the GOPs with the worst.
        failures: videos that failed, are partial, or failed again after they were compressed.
        excluded: videos that a policy left out, and why.
        policies: those that GOPs were coded under, and how they conform; see `s2vc_ray.policy_audit.policies`.
        outliers: what lies over `OUTLIER_DEVIATIONS` robust standard deviations from its group's median.
        provenance: with what and where GOPs were coded, and how they were verified and measured when they were.
        verification: archives by their last fixity check.
        unreadable: manifest parts and copies left out, and why.
    """

    destination: str
    where: str
    by: str
    totals: dict[str, Any] = field(default_factory=dict)
    quality: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    worst: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    places: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    policies: list[dict[str, Any]] = field(default_factory=list)
    outliers: list[dict[str, Any]] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    verification: list[dict[str, Any]] = field(default_factory=list)
    requirements: list[Requirement] = field(default_factory=list)
    unreadable: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every requirement is met, and every part of the manifest was read."""
        return not self.unreadable and all(one.met for one in self.requirements)


def audit(destination: Storage | str, options: AuditOptions) -> AuditReport:
    """Audit a destination.

    Raises:
        ObjectMissing: there is no manifest.
        ConfigError: a condition makes no sense.
        StorageError: the store refused or failed.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    with open_tables(storage) as tables:
        tables.sum_up(options.where, percentiles=options.percentiles)
        return report_of(tables, storage.uri, options)


def report_of(tables: AuditTables, destination: str, options: AuditOptions) -> AuditReport:
    """What tables that are summed up say.

    Raises:
        ConfigError: a condition makes no sense.
    """
    report = AuditReport(destination, options.where, options.by, unreadable=tables.left_out)
    # First what may be refused.
    report.requirements = list(requirements(tables, options))
    report.totals = _one(tables, _TOTALS)
    metrics = tables.measured
    report.quality = [_one(tables, _distribution(name)) for name in metrics]
    limit = f"LIMIT {options.limit}" if options.limit else ""
    report.jobs = plain_rows(tables, f"FROM jobs ORDER BY created, job {limit}")
    report.rows = plain_rows(tables, f"FROM {TABLES[options.by]} ORDER BY {_ORDER[options.by]} {limit}")
    notes = [name for name in GOP_NOTES if name in tables.columns("chosen")]
    report.worst = {
        name: plain_rows(tables, _worst(name, metrics, notes, options.limit or 20)) for name in metrics
    }
    places = {name: plain_rows(tables, _worst_place(name, options.limit or 20)) for name in PLACES}
    report.places = {name: gops for name, gops in places.items() if gops}
    report.failures = plain_rows(tables, f"{_FAILURES} {limit}")
    report.policies = policies(tables, options.limit)
    report.excluded = plain_rows(tables, f"{_EXCLUDED} {limit}")
    # A median holds all its values, so no two are taken at once.
    outliers = (plain_rows(tables, f"{query} {limit}") for query in _outliers(options.by, metrics))
    report.outliers = sorted(chain.from_iterable(outliers), key=_nearness)[: options.limit or None]
    report.provenance = plain_rows(tables, f"{_PROVENANCE} {limit}")
    report.verification = plain_rows(tables, _VERIFICATION)
    return report


@dataclass(frozen=True, slots=True)
class AuditRows:
    """What ``by`` names, or a query's answer, in pieces; with the requirements, and what was left out of it."""

    rows: pa.RecordBatchReader
    requirements: tuple[Requirement, ...]
    unreadable: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """As `AuditReport.passed`."""
        return not self.unreadable and all(one.met for one in self.requirements)


@contextmanager
def audit_rows(destination: Storage | str, options: AuditOptions, sql: str = "") -> Iterator[AuditRows]:
    """All rows of what ``by`` names, or the answer to a query of the user's.

    Raises:
        ObjectMissing, ConfigError, StorageError: as `audit`; also for a query that is not one SELECT.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    with open_tables(storage) as tables:
        tables.sum_up(options.where)
        held = tuple(requirements(tables, options))
        limit = f"LIMIT {options.limit}" if options.limit else ""
        if sql:
            rows = tables.stream_freely(sql)
        else:
            rows = tables.stream(f"FROM {TABLES[options.by]} ORDER BY {_ORDER[options.by]} {limit}")
        yield AuditRows(rows, held, tables.left_out)


def requirements(tables: AuditTables, options: AuditOptions) -> Iterator[Requirement]:
    """Hold each condition against the rows of what ``by`` names.

    Raises:
        ConfigError: one makes no sense.
    """
    if options.policy:
        held = held_to(tables, options.policy, options.limit)
        yield Requirement(f"policy {options.policy.sha256[:12]}", *held)
    table, name = TABLES[options.by], _NAMED[options.by]
    for condition in options.require:
        holds = f"coalesce(({expression(condition)})::BOOLEAN, false)"
        counts = f"SELECT count(*) AS checked, count(*) FILTER (WHERE NOT {holds}) AS failed FROM {table}"  # noqa: S608
        examples = (
            f"SELECT {name} AS name FROM {table} WHERE NOT {holds} ORDER BY {_ORDER[options.by]} "  # noqa: S608
            f"LIMIT {options.limit or 1_000_000}"
        )
        found = _one(tables, counts)
        names = tables.ask(examples)["name"].to_pylist() if found["failed"] else []
        yield Requirement(condition, found["checked"], found["failed"], tuple(map(str, names)))


def plain_rows(tables: AuditTables, query: str) -> list[dict[str, Any]]:
    """The answer to a query as dicts; infinities, and what is no number, are None. Raises as `AuditTables.ask`."""
    return [{name: _plain(value) for name, value in row.items()} for row in tables.ask(query).to_pylist()]


def _one(tables: AuditTables, query: str) -> dict[str, Any]:
    return plain_rows(tables, query)[0]


def _plain(value: Any) -> Any:
    """JSON has no word for infinity or for no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


_TOTALS = """
    SELECT count(*) AS videos, count(*) FILTER (WHERE status = 'ok') AS ok,
        count(*) FILTER (WHERE status = 'partial') AS partial, count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'excluded') AS excluded, count(later_job) AS failed_later,
        sum(gops)::BIGINT AS gops, sum(frames)::BIGINT AS frames,
        sum(seconds) AS seconds, sum(pixels)::BIGINT AS pixels,
        sum(source_bytes) FILTER (WHERE status <> 'failed')::BIGINT AS source_bytes,
        sum(archive_bytes)::BIGINT AS archive_bytes, sum(saved_bytes)::BIGINT AS saved_bytes,
        sum(payload_bytes)::BIGINT AS payload_bytes,
        8 * sum(payload_bytes) / sum(pixels) AS bpp, 8e-3 * sum(payload_bytes) / sum(seconds) AS kbps,
        sum(frames) / nullif(sum(encode_seconds), 0) AS encode_fps
    FROM videos
"""
_FAILURES = """
    FROM (
        SELECT source_name, status, job, error_class, error FROM videos
        WHERE status IN ('partial', 'failed')
        UNION ALL SELECT source_name, 'failed later', later_job, later_error_class, later_error FROM videos
        WHERE later_job IS NOT NULL
    ) ORDER BY status, source_name, job
"""
_EXCLUDED = """
    SELECT source_name, error AS reason, job FROM videos WHERE status = 'excluded' ORDER BY source_name, job
"""
_PROVENANCE = """
    SELECT model_id, weights_sha256, preset, codec, device, torch, creator, config_hash, verify, metric_policy,
        count(*) AS gops, sum(frames_encoded)::BIGINT AS frames
    FROM chosen WHERE payload_bytes IS NOT NULL GROUP BY ALL ORDER BY gops DESC, device, torch, config_hash
"""
_VERIFICATION = """
    SELECT coalesce(check_outcome, 'never checked') AS outcome, count(*) AS archives, min(checked) AS oldest,
        max(checked) AS newest
    FROM videos WHERE archive IS NOT NULL GROUP BY ALL ORDER BY archives DESC
"""


def _distribution(name: str) -> str:
    share, worst = (0.05, "min") if QUALITY[name] else (0.95, "max")
    weight = f"sum(metric_frames) FILTER (WHERE {name}_mean IS NOT NULL)"
    return f"""
        SELECT '{name}' AS metric, gops, mean, p5, worst FROM (
            SELECT count({name}_mean) AS gops, quantile_cont({name}_mean, {share}) AS p5 FROM chosen
        ), (SELECT sum({name}_mean * metric_frames) / {weight} AS mean, {worst}({name}_worst) AS worst FROM jobs)
    """  # noqa: S608


def _worst(name: str, measured: Iterable[str], notes: Iterable[str], limit: int) -> str:
    order = "ASC" if QUALITY[name] else "DESC"
    figures = (f"{one}_{kind}" for one in measured for kind in ("mean", "worst", "worst_frame"))
    others = ", ".join([*figures, *notes])
    return f"""
        SELECT source_name, gop_index, pts_seconds - begins AS at, q, crf, bpp, {others}, archive FROM (
            SELECT job, video_id, gop_index, pts_seconds, q, crf, bpp, {others} FROM chosen
            WHERE {name}_worst IS NOT NULL ORDER BY {name}_worst {order} LIMIT {limit}
        ) JOIN words USING (job, video_id) ORDER BY {name}_worst {order}, source_name, gop_index
    """  # noqa: S608


def _worst_place(name: str, limit: int) -> str:
    figures = f"{name}, {', '.join(one for one in _PLACE if one != name)}"
    return f"""
        SELECT source_name, gop_index, pts_seconds - begins AS at, {figures}, archive FROM (
            SELECT job, video_id, gop_index, pts_seconds, {figures} FROM chosen
            WHERE {name} IS NOT NULL ORDER BY {name} LIMIT {limit}
        ) JOIN words USING (job, video_id) ORDER BY {name}, source_name, gop_index
    """  # noqa: S608


def _nearness(outlier: Mapping[str, Any]) -> tuple[float, str]:
    """What sorts the furthest to the front. An infinite deviation, such as a lossless GOP's, is told as None."""
    deviations = outlier["deviations"]
    return -math.inf if deviations is None else -abs(deviations), str(outlier["name"])


def _outliers(by: str, metrics: Iterable[str]) -> Iterator[str]:
    """Of what is rated by median and median absolute deviation (MAD): the rows far off, a query for each figure.

    Groups are of one configuration, for speed of one device too. 0.6745 makes a MAD a normal distribution's standard
    deviation.
    """
    table = "chosen" if by == "gop" else "videos"
    figures = {"log bpp": ("bpp", "ln(nullif(bpp, 0))", "config_hash")}
    figures |= {name: (f"{name}_mean", f"{name}_mean", "config_hash") for name in metrics}
    figures["log encode_mpps"] = ("encode_mpps", "ln(nullif(encode_mpps, 0))", "config_hash, device")
    for figure, (column, scale, group) in figures.items():
        yield f"""
            SELECT {_NAMED["gop" if by == "gop" else "video"]} AS name, '{figure}' AS figure, {column} AS value, middle,
                0.6745 * ({scale} - middle) / spread AS deviations, job
            FROM {table} JOIN (
                SELECT {group}, median({scale}) AS middle, mad({scale}) AS spread FROM {table}
                WHERE {scale} IS NOT NULL GROUP BY {group} HAVING count(*) >= {OUTLIER_GROUP} AND mad({scale}) > 0
            ) USING ({group})
            WHERE abs(0.6745 * ({scale} - middle) / spread) > {OUTLIER_DEVIATIONS}
            ORDER BY abs(deviations) DESC, name
        """  # noqa: S608
