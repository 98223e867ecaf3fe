"""The report of an audit as one HTML file that needs nothing beside it.

`data` asks the manifest, `stills` decodes the worst frames, `page` makes HTML of a template; here they are put
together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from s2vc_ray.audit import (
    GOP_NOTES,
    OUTLIER_DEVIATIONS,
    PLACES,
    AuditOptions,
    AuditReport,
    plain_rows,
    report_of,
)
from s2vc_ray.audit_print import rules_of
from s2vc_ray.audit_tables import AuditTables, open_tables
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.manifest import QUALITY
from s2vc_ray.policy import policy_digest
from s2vc_ray.report import page
from s2vc_ray.report.data import TIMELINES, Histogram, ReportData, report_data
from s2vc_ray.report.stills import SIDE, StillOptions, StillPair, Wanted, choose, take_stills
from s2vc_ray.storage import Storage, local_path

LABELS = {
    "psnr": ("PSNR", "dB"),
    "ms_ssim": ("MS-SSIM", ""),
    "lpips_alex": ("LPIPS", ""),
    "dists": ("DISTS", ""),
    "vmaf": ("VMAF", ""),
    "vmaf_neg": ("VMAF NEG", ""),
    "flicker": ("Flicker", "levels"),
}
"""What metrics are called, and their units."""
_VIDEO = (
    *("source_name", "status", "gops", "frames", "seconds", "source_bytes", "archive_bytes", "ratio"),
    *("bpp", "kbps", "q_min", "q_max", "encode_fps", "job", "later_job"),
    *("codec", "target", "targets_missed", "probes", "policy_rule"),
    *("face_worst", "text_worst", "tile_worst", "faces", "text_density"),
)


def html_report(
    storage: Storage,
    options: AuditOptions,
    stills: StillOptions,
    *,
    now: datetime | None = None,
    watch: Callable[[int, int], None] = lambda done, count: None,
    load_codec: CodecLoader = load_s2vc,
) -> tuple[bytes, AuditReport]:
    """Audit a destination and draw what came out.

    Args:
        now: what the page says it was made at; None is this moment.
        watch: told how many stills are done, of how many.

    Returns:
        The page, UTF-8, and what the audit found.

    Raises:
        ObjectMissing, ConfigError, StorageError: as `s2vc_ray.audit.audit`.
    """
    with open_tables(storage) as tables:
        tables.sum_up(options.where, percentiles=options.percentiles)
        report = report_of(tables, storage.uri, options)
        data = report_data(tables, report)
        wanted = [_wanted(tables, metric, row) for metric, row in choose(report, stills.count)]
    pairs = list(
        take_stills(
            storage, wanted, stills, watch=lambda done: watch(done, len(wanted)), load_codec=load_codec
        )
    )
    return _page(report, data, pairs, now or datetime.now(UTC)), report


def _wanted(tables: AuditTables, metric: str, row: dict[str, Any]) -> Wanted:
    # What no query can hold is no key either, and is told so where it is opened.
    archive = row["archive"].replace("\0", "").replace("'", "''")
    of_it = f"archive = '{archive}' AND gop_index = {row['gop_index']}"
    found = plain_rows(tables, f"SELECT source_uri FROM gops WHERE {of_it} LIMIT 1")  # noqa: S608
    return Wanted(metric, row, found[0]["source_uri"] if found else "", row["source_name"])


def _page(report: AuditReport, data: ReportData, pairs: Sequence[StillPair], now: datetime) -> bytes:
    values = {
        "destination": _place(report.destination),
        "where": report.where,
        "totals": report.totals,
        "made": f"{now:%Y-%m-%d %H:%M} UTC",
        "version": version("s2vc-ray"),
        "labels": {name: label(name) for name in QUALITY},
        "units": {name: LABELS.get(name, ("", ""))[1] for name in QUALITY},
        "higher": dict(QUALITY),
        "quality": report.quality,
        "requirements": [
            {"condition": one.condition, "checked": one.checked, "failed": one.failed, "met": one.met}
            | {"examples": one.examples}
            for one in report.requirements
        ],
        "unreadable": report.unreadable,
        "failures": report.failures,
        "outliers": report.outliers,
        "deviations": OUTLIER_DEVIATIONS,
        "provenance": report.provenance,
        "verification": report.verification,
        "guards": data.guards,
        "policies": [{**one, "rules": rules_of(one)} for one in report.policies],
        "excluded": report.excluded,
        "codecs": data.codecs,
        "targets": data.targets,
        "settings": _settings(data.configs),
        "configs": data.configs,
        "configs_total": data.configs_total,
        "pairs": [_card(pair, data) for pair in pairs],
        "side": SIDE,
        "shown": len(data.videos),
        "total": data.videos_total,
        "coded": data.videos_total - report.totals["failed"] - report.totals["excluded"],
        "timelines": len(data.timelines),
        "timelines_most": TIMELINES,
        "points": len(data.gops),
        "gops_total": data.gops_total,
    }
    return page.render(
        __name__,
        "report.html.j2",
        _drawn(report, data),
        values,
        scripts=(
            "charts.js",
            "compare.js",
            "scatter.js",
            "histograms.js",
            "course.js",
            "rows.js",
            "report.js",
        ),
        styles=("base.css", "report.css"),
        policy={"img-src": "data:"},
    )


def _place(uri: str) -> str:
    return str(local_path(uri)) if uri.startswith("file://") else uri


def label(name: str) -> str:
    """What a metric is called."""
    return LABELS.get(name, (name.upper(), ""))[0]


def _card(pair: StillPair, data: ReportData) -> dict[str, Any]:
    """A pair of stills as the template shows it."""
    row, metric = pair.wanted.row, pair.wanted.metric
    return {
        "video": data.place(row["archive"]),
        "name": row["source_name"],
        "gop": row["gop_index"],
        "row": row,
        "metric": metric,
        "frame": pair.frame,
        "at": None if pair.seconds is None else float(pair.seconds),
        "exact": pair.exact,
        "source": page.data_uri(pair.source) if pair.source else None,
        "decoded": page.data_uri(pair.decoded) if pair.decoded else None,
        "source_reason": pair.source_reason,
        "decoded_reason": pair.decoded_reason,
        "width": pair.width,
        "height": pair.height,
    }


def _settings(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The jobs' options side by side: name, each job's value as text, and whether they differ."""
    names = sorted({name for one in configs for name in one["config"]})
    rows = []
    for name in names:
        told = [_told(name, one["config"].get(name)) for one in configs]
        rows.append({"name": name, "values": told, "differ": len(set(told)) > 1})
    return rows


def _told(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "policy" and isinstance(value, str):
        return policy_digest(value)[:12]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _drawn(report: AuditReport, data: ReportData) -> dict[str, Any]:
    """What the script draws, small: tables are column names and rows."""
    kinds = [f"{name}_{kind}" for name in data.metrics for kind in ("mean", "worst")]
    columns = [
        name for name in (*_VIDEO, *kinds) if any(video.get(name) is not None for video in data.videos)
    ]
    return {
        "metrics": [
            {
                "name": name,
                "label": label(name),
                "unit": LABELS.get(name, ("", ""))[1],
                "higher": QUALITY[name],
            }
            for name in data.metrics
        ],
        "videos": {
            "columns": columns,
            "rows": [[video.get(name) for name in columns] for video in data.videos],
            "total": data.videos_total,
        },
        "timelines": {str(at): timeline for at, timeline in data.timelines.items()},
        "gops": data.gops,
        "gops_total": data.gops_total,
        "histograms": [_histogram(one) for one in data.histograms],
        "worst": [
            *(_worst(name, rows, data) for name, rows in report.worst.items()),
            *(_worst_places(name, rows, data) for name, rows in report.places.items()),
        ],
    }


def _worst(metric: str, rows: Sequence[Mapping[str, Any]], data: ReportData) -> dict[str, Any]:
    figures = (f"{metric}_worst", f"{metric}_mean", f"{metric}_worst_frame")
    return _ranking(metric, label(metric), (*figures, "bpp", "q", *GOP_NOTES), rows, data)


def _worst_places(name: str, rows: Sequence[Mapping[str, Any]], data: ReportData) -> dict[str, Any]:
    figures = dict.fromkeys((name, *(column for column in rows[0] if column not in _OF_GOP)))
    return _ranking(name, f"place: {PLACES[name]}", tuple(figures), rows, data)


_OF_GOP = ("source_name", "gop_index", "at", "archive")


def _ranking(
    name: str, title: str, figures: Sequence[str], rows: Sequence[Mapping[str, Any]], data: ReportData
) -> dict[str, Any]:
    """A list of the worst GOPs; columns in which nothing stands are left out."""
    columns = [one for one in (*_OF_GOP[:3], *figures) if any(row.get(one) is not None for row in rows)]
    return {
        "name": name,
        "label": title,
        "columns": columns,
        "rows": [[data.place(row["archive"]), *(row.get(one) for one in columns)] for row in rows],
    }


def _histogram(one: Histogram) -> dict[str, Any]:
    return {
        "figure": one.figure,
        "low": one.low,
        "step": one.step,
        "counts": list(one.counts),
        "below": one.open_below,
        "above": one.open_above,
    }
