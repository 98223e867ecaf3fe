"""How a quality run looks: tables for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table

from jobs.bench_plots import write_plots
from jobs.bench_quality import COUNTED, Comparison, QualityOptions, QualityResult
from jobs.bench_rows import OURS, Row

_PACKAGES = ("torch", "av", "bjontegaard", "imageio-ffmpeg", "cvvdp")
_TITLES = {
    "archive": f"BD-rate of {OURS}, whole archives counted (negative is better)",
    "payload": f"BD-rate of {OURS}, payloads alone counted, without the archive around them",
}


class RowsFile:
    """``rows.csv``, a line at a time: a run that is killed leaves what it had measured.

    Args:
        path: of the file, replaced if it is there.
        metrics: whose means and worsts the columns hold.
    """

    def __init__(self, path: Path, metrics: Sequence[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._metrics = tuple(metrics)
        self._plain = [name for name in Row.__slots__ if name not in ("means", "worsts")]
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._write([*self._plain, *metrics, *(f"{name}_worst" for name in metrics)])

    def append(self, row: Row) -> None:
        """Write one row and hand it to the operating system."""
        scores = [*(row.means[name] for name in self._metrics), *(row.worsts[name] for name in self._metrics)]
        self._write([*(getattr(row, name) for name in self._plain), *scores])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _write(self, cells: Sequence[object]) -> None:
        self._writer.writerow(cells)
        self._file.flush()


def write_report(result: QualityResult, options: QualityOptions, codec: dict[str, str], out: Path) -> None:
    """Write ``result.json`` and the plots into the folder ``out``, beside the rows written on the way."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "codec": codec,
        "options": asdict(options),
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "rows": [asdict(row) for row in result.rows],
        "bd_rate": [asdict(comparison) for comparison in result.comparisons],
        "skipped": dict(result.skipped),
    }
    (out / "result.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    write_plots(result.rows, options.metrics, out)


def print_report(result: QualityResult, metrics: Sequence[str], console: Console) -> None:
    """Print every row, then both ways of counting our rate as BD-rates, then what was skipped."""
    console.print(_rows_table(result.rows, metrics))
    for counted in COUNTED:
        items = [item for item in result.comparisons if item.counted == counted]
        console.print(_bd_table(_TITLES[counted], items, metrics))
    for clip, reason in result.skipped.items():
        console.print(f"skipped {clip}: {reason}", markup=False)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _rows_table(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    table = Table(title="Rate and quality (mean, worst)")
    for column in ("clip", "codec", "q/crf/qp", "bytes", "payload", "bpp", *metrics, "enc fps", "dec fps"):
        table.add_column(column, justify="left" if column in ("clip", "codec") else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        scores = [f"{_number(row.means[name])} {_number(row.worsts[name])}" for name in metrics]
        first = before is None or before.clip != row.clip
        table.add_row(
            row.clip if first else "",
            row.codec if first or before is None or before.codec != row.codec else "",
            str(row.point),
            str(row.bytes),
            str(row.payload_bytes),
            f"{row.bpp:.4f}",
            *scores,
            f"{row.encode_fps:.1f}",
            f"{row.decode_fps:.1f}",
        )
    return table


def _bd_table(title: str, items: Sequence[Comparison], metrics: Sequence[str]) -> Table:
    """Two lines per clip and anchor, the numbers and how far the curves overlap; then the means over clips.

    What two curves without overlap span is in ``result.json``; here it would fold every column.
    """
    table = Table(title=title, caption="mean: over the clips that have a number (so many of how many)")
    for column in ("clip", "against", *metrics):
        table.add_column(column, no_wrap=column in ("clip", "against"))
    found: dict[tuple[str, str], list[Comparison]] = {}
    for item in items:
        found.setdefault((item.clip, item.anchor), []).append(item)
    for (clip, anchor), own in found.items():
        numbers = (
            i.bd.note.split(" (")[0] if i.bd.percent is None else f"{i.bd.percent:+.1f} %" for i in own
        )
        table.add_row(clip, anchor, *numbers)
        overlaps = (f"{i.bd.overlap:.0%}" for i in own)
        table.add_row("", "  overlap", *overlaps, style="dim")
    for anchor in dict.fromkeys(item.anchor for item in items):
        table.add_row("mean", anchor, *(_mean(items, anchor, metric) for metric in metrics))
    return table


def _mean(items: Sequence[Comparison], anchor: str, metric: str) -> str:
    """Mean over the clips that have a number, and how many of them do."""
    own = [item.bd.percent for item in items if (item.anchor, item.metric) == (anchor, metric)]
    numbers = [percent for percent in own if percent is not None]
    if not numbers:
        return f"none (0 of {len(own)})"
    return f"{statistics.fmean(numbers):+.1f} % ({len(numbers)} of {len(own)})"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"
