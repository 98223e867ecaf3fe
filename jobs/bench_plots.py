"""Rate-distortion plots: one picture per clip, and one of the mean over the clips.

matplotlib is imported when a plot is drawn: only benchmarks need it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench_rows import Row
from s2vc_model.metrics import METRICS

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Codec name to (bits per pixel, score) by ascending rate."""
_ACROSS = 3
_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(step / 2 for step in range(2, 20)),
    tuple(step / 5 for step in range(5, 50)),
)
_MAX_TICKS = 6


def write_plots(rows: Sequence[Row], metrics: Sequence[str], out: Path) -> None:
    """Write ``rd-CLIP.png`` for each clip and ``summary.png`` into the folder ``out``."""
    clips: dict[str, list[Row]] = {}
    for row in rows:
        clips.setdefault(row.clip, []).append(row)
    for clip, own in clips.items():
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", clip)
        _plot(clip, {metric: clip_curves(own, metric) for metric in metrics}, out / f"rd-{name}.png")
    if clips:
        title = f"mean over {len(clips)} clips at equal settings"
        _plot(title, {metric: mean_curves(rows, metric) for metric in metrics}, out / "summary.png")


def clip_curves(rows: Sequence[Row], metric: str) -> Curves:
    """The curves of one clip."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault(row.codec, []).append((row.bpp, row.means[metric]))
    return {codec: sorted(points) for codec, points in curves.items()}


def mean_curves(rows: Sequence[Row], metric: str) -> Curves:
    """Mean rate and mean score of each setting, of the settings that every clip was coded with.

    A mean over some of the clips would bend a curve with their content instead of the codec's quality.
    """
    points: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        points[row.codec][row.point].append(row)
    clips = len({row.clip for row in rows})
    return {
        codec: sorted(
            (statistics.fmean(r.bpp for r in group), statistics.fmean(r.means[metric] for r in group))
            for group in settings.values()
            if len(group) == clips
        )
        for codec, settings in points.items()
    }


def rate_ticks(low: float, high: float) -> list[float]:
    """At most ``_MAX_TICKS`` round rates in [low, high], on a logarithmic scale; three or more where they fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for steps in _STEPS:
        # Rounded, or a boundary such as 0.003 would come out as 0.0030000000000000001 and miss its own range.
        ticks = [round(step * 10.0**decade, 12) for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(best) < 3 and len(ticks) <= _MAX_TICKS:
            best = ticks
    return best or [low, high]


def plain_number(value: float) -> str:
    """A decimal without an exponent: 0.00005, not 5e-05."""
    return np.format_float_positional(float(f"{value:.3g}"), trim="-")


def _plot(title: str, panels: Mapping[str, Curves], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down, across = math.ceil(len(panels) / _ACROSS), min(len(panels), _ACROSS)
    figure = Figure(figsize=(5 * across, 3.8 * down + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        _panel(axes, name, curves)
    for axes in grid[len(panels) :]:
        axes.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _panel(axes: Any, name: str, curves: Curves) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    for codec, curve in curves.items():
        # Dashed: the anchor's own GOPs, in the colour order of the codecs.
        style = "--" if codec.endswith("default GOP") else "-"
        axes.plot(
            *zip(*curve, strict=True) if curve else ((), ()), style, marker="o", markersize=3, label=codec
        )
    axes.set_xscale("log")
    rates = [rate for curve in curves.values() for rate, _ in curve]
    if rates:
        axes.xaxis.set_major_locator(FixedLocator(rate_ticks(min(rates) / 1.1, max(rates) * 1.1)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    metric = METRICS[name]
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(f"{name} [{metric.unit}]" if metric.unit else name)
    axes.set_title("higher is better" if metric.higher_is_better else "lower is better", fontsize=9)
    axes.grid(alpha=0.3)
