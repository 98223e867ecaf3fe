"""Stills side by side: the source, our codec, and anchors that were given as many bytes.

What a metric says of a frame stands above it, so that drift within a GOP and the step to the next one can be read as
well as seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from jobs.bench_clips import Clip, ClipPolicy, Pixels, load_clip
from jobs.bench_coded import Anchor, Coded
from jobs.bench_quality import code_with_s2vc
from s2vc_model.metrics import measure
from s2vc_ray.errors import ConfigError, SourceError
from s2vc_ray.worker import LoadedCodec

METRIC = "lpips_alex"
_LABEL_HEIGHT = 16


@dataclass(frozen=True, slots=True)
class StillsOptions:
    """Which frames are shown of what.

    Attributes:
        q: our quality index.
        at: frames by number from 0; those that a clip does not have are left out.
        gop: frames per GOP, of all codecs.
        policy: which pictures of a clip are coded.
    """

    q: int
    at: tuple[int, ...] = (1, 15, 31, 32)
    gop: int = 32
    policy: ClipPolicy = field(default_factory=lambda: ClipPolicy(frames=40))

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 63 or self.gop < 1:
            raise ConfigError(f"q must be 0..63 and gop at least 1, not {self.q} and {self.gop}")
        if not self.at or min(self.at) < 0:
            raise ConfigError(f"frames are numbered from 0: {self.at}")


@dataclass(frozen=True, slots=True)
class Column:
    """One codec's part of a sheet: ``scores`` are `METRIC` of the frames shown, ``point`` its quality setting."""

    codec: str
    point: int
    payload_bytes: int
    bpp: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One clip's stills: numbers of the frames shown, our column first."""

    clip: str
    frames: tuple[int, ...]
    columns: tuple[Column, ...]
    path: Path


def run_stills(
    paths: Sequence[Path], codec: LoadedCodec, anchors: Sequence[Anchor], options: StillsOptions, out: Path
) -> Iterator[Sheet | SourceError]:
    """Write ``out``/CLIP.png of each clip; of one that cannot be read, or has none of the frames, the error."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        try:
            yield _sheet(load_clip(path, options.policy), codec, anchors, options, out / f"{path.stem}.png")
        except SourceError as error:
            yield error


def print_stills(
    paths: Sequence[Path],
    codec: LoadedCodec,
    anchors: Sequence[Anchor],
    options: StillsOptions,
    out: Path,
    console: Console,
    *,
    as_json: bool = False,
) -> int:
    """Write the sheets and print their figures; how many clips have one."""
    sheets: list[Sheet] = []
    for found in run_stills(paths, codec, anchors, options, out):
        if isinstance(found, Sheet):
            sheets.append(found)
        else:
            print(f"error: {found}", file=sys.stderr)
    if as_json:
        print(json.dumps([{**asdict(sheet), "path": str(sheet.path)} for sheet in sheets], indent=2))
        return len(sheets)
    for sheet in sheets:
        table = Table(title=f"{sheet.clip}: {METRIC} by frame; {sheet.path}")
        for heading in ("codec", "setting", "bytes", "bpp", *map(str, sheet.frames)):
            table.add_column(heading, justify="right")
        for one in sheet.columns:
            scores = (f"{score:.3f}" for score in one.scores)
            table.add_row(one.codec, str(one.point), str(one.payload_bytes), f"{one.bpp:.4f}", *scores)
        console.print(table)
    return len(sheets)


def nearest(anchor: Anchor, clip: Clip, gop: int, size: int) -> tuple[int, Coded]:
    """The setting of an anchor whose payload comes nearest to ``size`` bytes, by bisection, and what it made."""
    low, high = min(anchor.ladder), max(anchor.ladder)
    found: dict[int, Coded] = {}

    def made(point: int) -> Coded:
        if point not in found:
            found[point] = anchor.code(clip.frames, clip.rate, point, gop)
        return found[point]

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if made(middle).payload_bytes <= size else (middle, high)
    point = min((low, high), key=lambda one: abs(made(one).payload_bytes - size))
    return point, made(point)


def _sheet(
    clip: Clip, codec: LoadedCodec, anchors: Sequence[Anchor], options: StillsOptions, path: Path
) -> Sheet:
    shown = tuple(at for at in options.at if at < len(clip.frames))
    if not shown:
        raise SourceError(f"{clip.name} has {len(clip.frames)} frames: none of {options.at}")
    ours = code_with_s2vc(clip, codec, options.q, options.gop)
    coded = [("s2vc", options.q, ours)]
    coded += [(one.name, *nearest(one, clip, options.gop, ours.payload_bytes)) for one in anchors]
    columns = tuple(_column(clip, shown, *one, str(codec.device)) for one in coded)
    _draw(clip.frames, shown, columns, [made.decoded for _, _, made in coded], path)
    return Sheet(clip.name, shown, columns, path)


def _column(clip: Clip, shown: Sequence[int], name: str, point: int, coded: Coded, device: str) -> Column:
    reference, decoded = (
        np.stack([pictures[at] for at in shown]) for pictures in (clip.frames, coded.decoded)
    )
    (result,) = measure(reference, decoded, (METRIC,), device=device).values()
    scores = tuple(float(score) for score in result.values)
    return Column(name, point, coded.payload_bytes, 8 * coded.payload_bytes / clip.pixels, scores)


def _draw(
    source: Pixels, shown: Sequence[int], columns: Sequence[Column], decoded: Sequence[Pixels], path: Path
) -> None:
    height, width = source.shape[1:3]
    step = height + _LABEL_HEIGHT
    page = Image.new("RGB", (width * (1 + len(columns)), step * len(shown)), "white")
    pen = ImageDraw.Draw(page)
    for row, at in enumerate(shown):
        labels = [f"source, frame {at}"]
        labels += [
            f"{one.codec} {one.point}: {one.bpp:.4f} bpp, LPIPS {one.scores[row]:.3f}" for one in columns
        ]
        for column, (label, pictures) in enumerate(zip(labels, (source, *decoded), strict=True)):
            pen.text((column * width + 4, row * step + 2), label, fill="black")
            page.paste(Image.fromarray(pictures[at]), (column * width, row * step + _LABEL_HEIGHT))
    page.save(path)
