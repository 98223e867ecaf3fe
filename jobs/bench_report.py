"""How a quality run looks: a table for people, CSV and JSON for programs, and rate-distortion plots."""

from __future__ import annotations

import csv
import json
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import av
import torch
from rich.console import Console
from rich.table import Table

from jobs.bench_quality import OURS, QualityOptions, QualityResult, Row
from s2vc_model.metrics import METRICS


def write_report(result: QualityResult, options: QualityOptions, codec: dict[str, str], out: Path) -> None:
    """Write ``rows.csv``, ``result.json`` and one ``rd-CLIP.png`` per clip into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(result.rows, options.metrics, out / "rows.csv")
    document = {
        "codec": codec,
        "options": asdict(options),
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "av": av.__version__,
            "bjontegaard": version("bjontegaard"),
        },
        "rows": [asdict(row) for row in result.rows],
        "bd_rate": [asdict(comparison) for comparison in result.comparisons],
        "skipped": dict(result.skipped),
    }
    (out / "result.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    for clip in dict.fromkeys(row.clip for row in result.rows):
        rows = [row for row in result.rows if row.clip == clip]
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", clip)
        _plot(clip, rows, options.metrics, out / f"rd-{name}.png")


def print_report(result: QualityResult, metrics: Sequence[str], console: Console) -> None:
    """Print every row, then the BD-rates per clip and their means, then what was skipped."""
    console.print(_rows_table(result.rows, metrics))
    console.print(_bd_table(result, metrics))
    for clip, reason in result.skipped.items():
        console.print(f"skipped {clip}: {reason}", markup=False)


def _rows_table(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    table = Table(title="Rate and quality (mean, worst frame)")
    for column in ("clip", "codec", "q/crf", "bytes", "bpp", *metrics, "enc fps", "dec fps"):
        table.add_column(column, justify="left" if column in ("clip", "codec") else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        scores = [f"{_number(row.means[name])} {_number(row.worsts[name])}" for name in metrics]
        first = before is None or before.clip != row.clip
        table.add_row(
            row.clip if first else "",
            row.codec if first or before is None or before.codec != row.codec else "",
            str(row.point),
            str(row.bytes),
            f"{row.bpp:.4f}",
            *scores,
            f"{row.encode_fps:.1f}",
            f"{row.decode_fps:.1f}",
        )
    return table


def _bd_table(result: QualityResult, metrics: Sequence[str]) -> Table:
    table = Table(title=f"BD-rate of {OURS}, whole archives counted (negative is better)")
    for column in ("clip", "against", *metrics):
        table.add_column(column)
    cells: dict[tuple[str, str], list[str]] = {}
    for item in result.comparisons:
        cells.setdefault((item.clip, item.anchor), []).append(str(item.bd))
    for (clip, anchor), texts in cells.items():
        table.add_row(clip, anchor, *texts)
    for anchor in dict.fromkeys(item.anchor for item in result.comparisons):
        table.add_row("mean", anchor, *(_mean(result, anchor, metric) for metric in metrics))
    return table


def _mean(result: QualityResult, anchor: str, metric: str) -> str:
    """Mean over the clips that have a number, and how many of them do."""
    items = [item.bd.percent for item in result.comparisons if (item.anchor, item.metric) == (anchor, metric)]
    numbers = [percent for percent in items if percent is not None]
    if not numbers:
        return f"no number on any of {len(items)} clips"
    return f"{statistics.fmean(numbers):+.1f} % ({len(numbers)} of {len(items)} clips)"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def _write_csv(rows: Sequence[Row], metrics: Sequence[str], path: Path) -> None:
    plain = [name for name in Row.__slots__ if name not in ("means", "worsts")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *metrics, *(f"{name}_worst" for name in metrics)])
        for row in rows:
            scores = [*(row.means[name] for name in metrics), *(row.worsts[name] for name in metrics)]
            writer.writerow([*(getattr(row, name) for name in plain), *scores])


def _plot(clip: str, rows: Sequence[Row], metrics: Sequence[str], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for codec in dict.fromkeys(row.codec for row in rows):
            curve = sorted((row.bpp, row.means[name]) for row in rows if row.codec == codec)
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=codec)
        metric = METRICS[name]
        axes.set_xscale("log")
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(f"{name} [{metric.unit}]" if metric.unit else name)
        axes.set_title("higher is better" if metric.higher_is_better else "lower is better", fontsize=9)
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend()
    figure.suptitle(clip)
    figure.savefig(path, dpi=110)
