"""The live picture of a job on a terminal: `Counts` in, a few rich lines out. Pure; knows no events.

━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━  52 %  1664/3200 frames  1 min 03 s, 58 s left
52 GOPs  26.4 fps  0.0182 bpp  videos 3 of 7
planning 4  queued 31  coding 8/8  committing 1  workers 4  encoder 97 %  GPU 91 %, 31.0 GB of 85.9 GB
tried again: TimeoutError 2   sources with an error: SourceError 1
tape-7.mov: FAILED, SourceError: no video stream
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from s2vc_ray.job_meter import Counts
from s2vc_ray.pool import GpuReading
from s2vc_ray.words import duration, share, size, tally


def panel(counts: Counts, retries: int = 0, failures: Sequence[str] = ()) -> RenderableType:
    """The picture.

    Args:
        counts: what is to be shown.
        retries: what was tried again below the job, such as requests to storage.
        failures: the last sources with an error, one line each.
    """
    lines = [text for text in (_speed(counts), _stages(counts), _troubles(counts, retries)) if text]
    return Group(_bar(counts), *map(_line, lines), *(_line(failure, "red") for failure in failures))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _bar(counts: Counts) -> RenderableType:
    total, done = counts.planned_frames, counts.frames_settled
    row = Table.grid(padding=(0, 2), expand=False)
    row.add_row(
        ProgressBar(total=max(1, total), completed=done, width=40),
        share(done / total) if total else "-",
        f"{done}/{total} frames",
        f"{duration(counts.seconds)}, {left(counts)}",
    )
    return row


def left(counts: Counts) -> str:
    """How long it will take: ``58 s left``, ``at least 58 s left`` while sources are still being found."""
    if counts.seconds_left is None:
        return "time left not known yet"
    depths = counts.depths
    open_ended = not counts.sources and (depths is None or depths.planning > 0 or depths.queued > 0)
    return f"{'at least ' * open_ended}{duration(counts.seconds_left)} left"


def _speed(counts: Counts) -> str:
    ended = counts.videos.total()
    parts = [f"{counts.gops_coded} GOPs"]
    if counts.gops_resumed:
        parts.append(f"{counts.gops_resumed} staged before")
    if counts.fps is not None:
        parts.append(f"{counts.fps:.1f} fps")
    if counts.bpp is not None:
        parts.append(f"{counts.bpp:.4f} bpp")
    parts.append(f"videos {ended} of {counts.sources}" if counts.sources else f"videos {ended}")
    return "  ".join(parts)


def _stages(counts: Counts) -> str:
    parts = []
    if counts.depths is not None:
        depths = counts.depths
        parts += [
            f"planning {depths.planning}",
            f"queued {depths.queued}",
            f"coding {depths.coding}/{depths.window}",
            f"committing {depths.committing}",
        ]
    if counts.pool is not None:
        parts.append(f"workers {counts.pool.workers}")
        if counts.busy is not None:
            parts.append(f"encoder {share(counts.busy)}")
        parts += _gpus(counts.pool.readings)
    return "  ".join(parts)


def _gpus(readings: Sequence[GpuReading]) -> list[str]:
    """All GPUs in one figure: their mean load and their memory together."""
    loads = [reading.utilisation for reading in readings if reading.utilisation is not None]
    memory = [
        (r.memory_used, r.memory_total) for r in readings if r.memory_used is not None and r.memory_total
    ]
    parts = []
    if loads:
        parts.append(share(sum(loads) / len(loads)))
    if memory:
        parts.append(f"{size(sum(used for used, _ in memory))} of {size(sum(total for _, total in memory))}")
    return [f"GPU {', '.join(parts)}"] if parts else []


def _troubles(counts: Counts, retries: int) -> str:
    parts = []
    if counts.retries:
        parts.append(f"GOPs tried again: {tally(counts.retries)}")
    if retries:
        parts.append(f"requests tried again: {retries}")
    if counts.failures:
        parts.append(f"sources with an error: {tally(counts.failures)}")
    return "  ".join(parts)
