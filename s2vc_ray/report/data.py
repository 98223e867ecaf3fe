"""What an HTML report shows beyond an `AuditReport`: videos, their course over time, distributions, settings.

Every list is bounded, so that the file is too: of more videos than it holds those with something to look at come
first, and the rest are drawn by a hash of their ids. Asks `AuditTables` and knows no HTML.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from s2vc_ray.audit import GOP_NOTES, PLACES, AuditReport, plain_rows
from s2vc_ray.audit_tables import AuditTables
from s2vc_ray.manifest import QUALITY

VIDEOS = 2000
"""Most videos in a report."""
PROBLEMS = 500
"""How many of those not ``ok`` are taken before others."""
TIMELINES = 200
"""Most videos whose course over time it holds."""
POINTS = 24_000
"""Points of all timelines together, a GOP each or an equal number of neighbouring ones."""
GOPS = 3000
"""GOPs drawn for the scatter plot."""
_BINS = 40
_EDGE = 1e-9
"""Of a bin's width: what lies on an edge belongs to the bin above it, however the division rounds."""
_FIRST = 20
_CONFIGS = 6


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many GOPs have which value: ``counts`` in bins of ``step`` from ``low`` on, the outer ones open."""

    figure: str
    low: float
    step: float
    counts: tuple[int, ...]
    open_below: bool
    open_above: bool


@dataclass(slots=True)
class ReportData:
    """All that is drawn. Rows hold plain values.

    Attributes:
        metrics: names of the metrics that any GOP has, as `QUALITY` orders them.
        videos: rows of ``videos``, in order of name, each with what its GOPs say in `GOP_NOTES`.
        videos_total: how many there are.
        timelines: by place in ``videos``: columns of points, and of how many GOPs a point is.
        gops: (place in ``videos``, GOP, bpp, q, then each metric's mean) of GOPs of these videos.
        gops_total: how many GOPs there are.
        guards: for each of `PLACES` that any GOP has, how many have it, the value that 95 % of them are better than,
            and the worst.
        codecs: GOPs and payload bytes of each codec.
        targets: GOPs that met their target, and that did not; None where there were none.
        configs: options of the jobs, the most used first; ``configs_total`` of them there are.
    """

    metrics: tuple[str, ...]
    videos: list[dict[str, Any]] = field(default_factory=list)
    videos_total: int = 0
    timelines: dict[int, dict[str, Any]] = field(default_factory=dict)
    gops: list[list[Any]] = field(default_factory=list)
    gops_total: int = 0
    histograms: list[Histogram] = field(default_factory=list)
    guards: list[dict[str, Any]] = field(default_factory=list)
    codecs: list[dict[str, Any]] = field(default_factory=list)
    targets: tuple[int, int] | None = None
    configs: list[dict[str, Any]] = field(default_factory=list)
    configs_total: int = 0

    def place(self, archive: str | None) -> int | None:
        """Where the video of an archive is in ``videos``."""
        if archive is None:
            return None
        return next((at for at, video in enumerate(self.videos) if video["archive"] == archive), None)


def report_data(tables: AuditTables, report: AuditReport) -> ReportData:
    """Ask tables that are summed up for all that the page of ``report`` draws."""
    data = ReportData(tables.measured, videos_total=report.totals["videos"])
    data.gops_total = report.totals["gops"] or 0
    there = set(tables.columns("chosen"))
    notes = [name for name in GOP_NOTES if name in there]
    data.videos = plain_rows(tables, f"SELECT * EXCLUDE (turn) FROM ({_picked(tables.measured, VIDEOS)})")  # noqa: S608
    data.videos.sort(key=lambda row: (row["source_name"], row["video_id"]))
    places = {(row["job"], row["video_id"]): at for at, row in enumerate(data.videos)}
    _add_notes(tables, data, places, notes)
    data.timelines = _timelines(tables, places)
    data.gops = _gops(tables, places)
    data.histograms = list(_histograms(tables))
    data.guards = _guards(tables)
    data.codecs = plain_rows(
        tables,
        "SELECT codec, count(*) AS gops, sum(payload_bytes)::BIGINT AS payload_bytes FROM chosen "
        "WHERE payload_bytes IS NOT NULL GROUP BY codec ORDER BY gops DESC, codec",
    )
    if "target_met" in there:
        (found,) = plain_rows(
            tables,
            "SELECT count(*) FILTER (WHERE target_met) AS met, "
            "count(*) FILTER (WHERE NOT target_met) AS missed FROM chosen",
        )
        data.targets = (found["met"], found["missed"]) if found["met"] or found["missed"] else None
    configs = plain_rows(
        tables,
        "SELECT config, config_hash, count(DISTINCT video_id) AS videos FROM chosen "
        "GROUP BY config, config_hash ORDER BY videos DESC, config_hash, config",
    )
    data.configs_total = len(configs)
    data.configs = [{**row, "config": _parsed(row["config"])} for row in configs[:_CONFIGS]]
    return data


def _parsed(config: str) -> dict[str, Any]:
    try:
        options = json.loads(config)
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}


def _picked(metrics: Iterable[str], most: int) -> str:
    """The videos to show, the same ones each time it is asked: those of the worst GOPs, some with a problem, others."""
    worst = [
        f"(SELECT video_id FROM chosen WHERE {name}_worst IS NOT NULL "  # noqa: S608
        f"ORDER BY {name}_worst {'ASC' if QUALITY[name] else 'DESC'}, job, video_id, gop_index LIMIT {_FIRST})"
        for name in metrics
    ]
    flagged = " UNION ".join(worst) or "SELECT video_id FROM videos WHERE false"
    return f"""
        SELECT * FROM (
            SELECT *, row_number() OVER (
                ORDER BY video_id IN ({flagged}) DESC, status <> 'ok' AND problem <= {PROBLEMS} DESC, lot, video_id
            ) AS turn FROM (
                SELECT *, hash(video_id) AS lot,
                    row_number() OVER (PARTITION BY status = 'ok' ORDER BY hash(video_id), video_id) AS problem
                FROM videos
            )
        ) WHERE turn <= {most}
    """  # noqa: S608


def _add_notes(
    tables: AuditTables, data: ReportData, places: dict[tuple[str, str], int], notes: Sequence[str]
) -> None:
    """What a video's GOPs say where they say it: codecs, targets, how many of those were missed, probes, rules; and its
    worst places."""
    said = {
        "codec": "string_agg(DISTINCT codec, ', ' ORDER BY codec) AS codec",
        "target": "string_agg(DISTINCT target::VARCHAR, ', ' ORDER BY target::VARCHAR) AS target",
        "target_met": "CASE WHEN count(target_met) > 0 THEN count(*) FILTER (WHERE NOT target_met) END "
        "AS targets_missed",
        "probes": "sum(probes)::BIGINT AS probes",
        "policy_rule": "string_agg(DISTINCT policy_rule, ', ' ORDER BY policy_rule) AS policy_rule",
    }
    worst = [f"min({name}) AS {name}" for name in PLACES]
    most = ["max(faces) AS faces", "max(text_density) AS text_density"]
    query = f"""
        SELECT job, video_id, {", ".join([*(said[name] for name in notes), *worst, *most])}
        FROM chosen SEMI JOIN ({_picked(data.metrics, VIDEOS)}) USING (job, video_id) GROUP BY job, video_id
    """  # noqa: S608
    for row in plain_rows(tables, query):
        data.videos[places[row.pop("job"), row.pop("video_id")]].update(row)


def _guards(tables: AuditTables) -> list[dict[str, Any]]:
    """Percentiles hold all their values in memory, so one place is asked for at a time."""
    found = [
        {"place": place, **row}
        for name, place in PLACES.items()
        for row in plain_rows(
            tables,
            f"SELECT count({name}) AS gops, quantile_cont({name}, 0.05) AS p5, min({name}) AS worst FROM chosen",  # noqa: S608
        )
    ]
    return [row for row in found if row["gops"]]


def _timelines(tables: AuditTables, places: dict[tuple[str, str], int]) -> dict[int, dict[str, Any]]:
    """The course of some videos, in order of their GOPs; those of many GOPs have several in a point."""
    metrics = tables.measured
    picked = _picked(metrics, TIMELINES)
    (found,) = plain_rows(tables, f"SELECT count(*) AS videos FROM ({picked})")  # noqa: S608
    most = min(600, max(1, POINTS // (found["videos"] or 1)))
    figures = "".join(
        f", sum({name}_mean * metric_frames) / nullif(sum(metric_frames) FILTER (WHERE {name}_mean IS NOT NULL), 0)"
        f" AS {name}_mean, {'min' if QUALITY[name] else 'max'}({name}_worst) AS {name}_worst"
        for name in metrics
    )
    query = f"""
        SELECT job, video_id, max(per) AS per, min(gop_index) AS gop, min(pts_seconds - begins) AS at,
            max(pts_seconds - begins + seconds) AS until,
            8 * sum(payload_bytes) / sum(pixels) AS bpp, avg(q) AS q {figures}
        FROM (
            SELECT chosen.*, ceil(count(*) OVER (PARTITION BY job, video_id) / {most})::BIGINT AS per,
                row_number() OVER (PARTITION BY job, video_id ORDER BY gop_index) - 1 AS number
            FROM chosen SEMI JOIN ({picked}) USING (job, video_id) WHERE payload_bytes IS NOT NULL
        ) JOIN words USING (job, video_id)
        GROUP BY job, video_id, number // per ORDER BY job, video_id, gop
    """  # noqa: S608
    columns = [
        "gop",
        "at",
        "until",
        "bpp",
        "q",
        *(f"{name}_{kind}" for name in metrics for kind in ("mean", "worst")),
    ]
    found_of: dict[int, dict[str, Any]] = defaultdict(lambda: {name: [] for name in columns})
    for row in plain_rows(tables, query):
        timeline = found_of[places[row["job"], row["video_id"]]]
        timeline["per"] = row["per"]
        for name in columns:
            timeline[name].append(row[name])
    return dict(found_of)


def _gops(tables: AuditTables, places: dict[tuple[str, str], int]) -> list[list[Any]]:
    means = "".join(f", {name}_mean" for name in tables.measured)
    query = f"""
        SELECT job, video_id, gop_index, bpp, q {means}
        FROM chosen SEMI JOIN ({_picked(tables.measured, VIDEOS)}) USING (job, video_id)
        WHERE payload_bytes IS NOT NULL ORDER BY hash(video_id, gop_index), video_id, gop_index LIMIT {GOPS}
    """  # noqa: S608
    rows = [list(row.values()) for row in plain_rows(tables, query)]
    return [[places[job, video], *rest] for job, video, *rest in rows]


def _histograms(tables: AuditTables) -> Iterable[Histogram]:
    """Of the rate, each metric's mean and worst frame, quality index and speed, over all GOPs."""
    figures = ["bpp", *(f"{name}_{kind}" for name in tables.measured for kind in ("mean", "worst"))]
    figures += ["q", "encode_fps"]
    ranges = ", ".join(
        f"count({name}) AS {name}_n, min({name}) AS {name}_low, max({name}) AS {name}_high, "
        f"approx_quantile({name}, 0.001) AS {name}_below, approx_quantile({name}, 0.999) AS {name}_above"
        for name in figures
    )
    (found,) = plain_rows(tables, f"SELECT {ranges} FROM chosen")  # noqa: S608
    for name in figures:
        count, low, high = (found[f"{name}_{kind}"] for kind in ("n", "low", "high"))
        if not count or low is None or high is None:
            continue
        # Some far ones would leave all others one bin.
        begin, end = (found[f"{name}_below"], found[f"{name}_above"]) if count > 2000 else (low, high)
        wanted = max(8, min(_BINS, round(math.sqrt(count))))
        step = 1.0 if name == "q" else _round_step((end - begin) / wanted, begin)
        first = math.floor(begin / step + _EDGE)
        bins = max(1, math.floor(end / step + _EDGE) - first + 1)
        query = f"""
            SELECT greatest(0, least({bins - 1}, floor({name} / {step!r} + {_EDGE}) - {first}))::BIGINT AS bin,
                count(*) AS count
            FROM chosen WHERE {name} IS NOT NULL GROUP BY bin
        """  # noqa: S608
        counts = [0] * bins
        for row in plain_rows(tables, query):
            counts[row["bin"]] = row["count"]
        outer = (low < first * step, high >= (first + bins) * step)
        yield Histogram(name, first * step, step, tuple(counts), *outer)


def _round_step(step: float, value: float) -> float:
    """The next 1, 2 or 5 times a power of ten; one that can be told from ``value``."""
    step = max(step, abs(value) * 1e-6, 1e-9)
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if step <= factor * power * (1 + 1e-9))
