"""Where a generative codec may have invented: figures of the worst place in a GOP, not of its mean.

    source frames ─ look ─► Sight (which tiles look like text, where faces are) ─┐
    decoded frames ──────────────────────────────────────────── assess ──────────┴─► Risk

A smeared face or caption is a small part of a picture, and means pass over it. So structural similarity (SSIM; Wang et
al., 2004) of luma is taken in windows of 8x8 pixels, a window every 4 as x264 does it, and averaged over tiles: of the
worst tile, of the worst that looks like text, and of the worst face. Text is told by its look alone, dark and bright
far apart in many strokes: 9 in 10 tiles of captions, and 1 in 100 of photos. Pure numpy; knows no codec, file or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two exclusive."""

TILE = 64
"""Pixels along each side of a tile, about: tiles cover the picture, so they may be somewhat larger or smaller."""
TEXT_TILE = 32
_STEP = 4
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_CONTRAST = 120.0
"""Least distance, in luma, between the mean of a tile's dark pixels and that of its bright ones: below and above its
own mean."""
_STROKES = 0.12
"""Least share of pixels from which luma changes by over `_EDGE` to the next one right or below."""
_EDGE = 40.0


@dataclass(frozen=True, slots=True)
class Risk:
    """What was found in a GOP's measured frames. Similarities are SSIM of luma, at most 1.

    Attributes:
        tile_worst: mean similarity of the worst tile.
        tile_worst_frame, tile_worst_x, tile_worst_y: which frame of the GOP it is in, from 0, and the pixel at its top
            left.
        text_density: share of the source's tiles that look like text, of the frame with most.
        text_worst: of the worst such tile; None when there is none.
        faces: most faces found in one source frame; None where they were not looked for.
        face_worst: of the worst of them; None when there is none.
    """

    tile_worst: float
    tile_worst_frame: int
    tile_worst_x: int
    tile_worst_y: int
    text_density: float
    text_worst: float | None = None
    faces: int | None = None
    face_worst: float | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be kept of a GOP's source frames.

    ``text`` has a truth value for each tile of each frame; ``faces`` are boxes of each frame, None where they were not
    looked for.
    """

    text: tuple[npt.NDArray[np.bool_], ...]
    faces: tuple[tuple[Box, ...], ...] | None = None

    @property
    def text_density(self) -> float:
        """Share of tiles that look like text, of the frame with most."""
        return max((float(marked.mean()) for marked in self.text if marked.size), default=0.0)

    @property
    def most_faces(self) -> int | None:
        """Most faces in one frame; None where they were not looked for."""
        return None if self.faces is None else max(map(len, self.faces), default=0)


def look(source: Frames, faces: Sequence[Sequence[Box]] | None = None) -> Sight:
    """Look at the source frames, (T, H, W, 3) uint8 RGB.

    Args:
        faces: boxes of each frame, where somebody looked for them.
    """
    boxes = None if faces is None else tuple(tuple(of_frame) for of_frame in faces)
    return Sight(tuple(_looks_like_text(_luma(frame)) for frame in source), boxes)


def assess(sight: Sight, source: Frames, decoded: Frames, chosen: Sequence[int]) -> Risk | None:
    """Compare frames of one shape, whose numbers in the GOP are ``chosen``; None without any as large as a window."""
    if not len(source) or min(source.shape[1:3]) < 2 * _STEP:
        return None
    worst: tuple[float, int, int, int] = (np.inf, 0, 0, 0)
    text: list[float] = []
    faces: list[float] = []
    for at, (before, after) in enumerate(zip(source, decoded, strict=True)):
        similar = _similarity(_luma(before), _luma(after))
        tiles = _means(similar, _edges(similar.shape[0], TILE), _edges(similar.shape[1], TILE))
        row, column = np.unravel_index(tiles.argmin(), tiles.shape)
        if tiles[row, column] < worst[0]:
            tops, lefts = _edges(similar.shape[0], TILE), _edges(similar.shape[1], TILE)
            worst = float(tiles[row, column]), chosen[at], _STEP * int(lefts[column]), _STEP * int(tops[row])
        marked = sight.text[at]
        if marked.any():
            small = _means(similar, *(_edges(size, TEXT_TILE) for size in similar.shape))
            text.append(float(small[marked].min()))
        faces += [_of_box(similar, box) for box in (sight.faces[at] if sight.faces else ())]
    return Risk(
        *worst,
        text_density=sight.text_density,
        text_worst=min(text, default=None),
        faces=sight.most_faces,
        face_worst=min(faces, default=None),
    )


def _luma(frame: npt.NDArray[np.uint8]) -> Plane:
    """BT.601's, rounded to 8 bits and given as floats."""
    red, green, blue = (frame[:, :, at].astype(np.uint16) for at in range(3))
    luma: Plane = ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(np.float32)
    return luma


def _similarity(a: Plane, b: Plane) -> Plane:
    """SSIM of each window; windows lie 4 pixels apart, and up to 3 rows and columns at the far edges are left out."""
    count = np.float32((2 * _STEP) ** 2)
    mean_a, mean_b = _windows(a) / count, _windows(b) / count
    both = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    variance = _windows(a * a + b * b) / count - squares
    covariance = _windows(a * b) / count - both
    similar = (2 * both + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variance + _C2))
    return np.asarray(similar, np.float32)


def _windows(plane: Plane) -> Plane:
    """Sums over windows of 8x8, from sums over blocks of 4x4."""
    blocks = _blocks(plane)
    pairs = blocks[:-1] + blocks[1:]
    sums: Plane = pairs[:, :-1] + pairs[:, 1:]
    return sums


def _blocks(plane: Plane) -> Plane:
    """Sums over blocks of 4x4; what is left over at the far edges is left out."""
    rows, columns = (size // _STEP * _STEP for size in plane.shape)
    cut = plane[:rows, :columns]
    lines = cut[0::_STEP] + cut[1::_STEP] + cut[2::_STEP] + cut[3::_STEP]
    sums: Plane = lines[:, 0::_STEP] + lines[:, 1::_STEP] + lines[:, 2::_STEP] + lines[:, 3::_STEP]
    return sums


def _edges(windows: int, tile: int) -> npt.NDArray[np.intp]:
    """Where tiles begin along a side of so many windows, in windows."""
    number = max(1, round((windows + 1) * _STEP / tile))
    return np.arange(number) * windows // number


def _means(plane: Plane, tops: npt.NDArray[np.intp], lefts: npt.NDArray[np.intp]) -> Plane:
    """Mean over each tile."""
    sums = np.add.reduceat(np.add.reduceat(plane, tops, 0), lefts, 1)
    means = sums / np.outer(_sizes(tops, plane.shape[0]), _sizes(lefts, plane.shape[1]))
    return np.asarray(means, np.float32)


def _sizes(starts: npt.NDArray[np.intp], end: int) -> npt.NDArray[np.intp]:
    return np.diff(np.append(starts, end))


def _of_box(similar: Plane, box: Box) -> float:
    """Mean over the windows that begin inside a box, one at least."""
    left, top, right, bottom = (edge // _STEP for edge in box)
    height, width = similar.shape
    rows = slice(min(top, height - 1), max(bottom, top + 1))
    columns = slice(min(left, width - 1), max(right, left + 1))
    return float(similar[rows, columns].mean())


def _looks_like_text(luma: Plane) -> npt.NDArray[np.bool_]:
    """Which tiles of `TEXT_TILE` do; the tiles are those of the similarity."""
    rows, columns = (size // _STEP for size in luma.shape)
    if min(rows, columns) < 2:
        return np.zeros((0, 0), np.bool_)
    tops, lefts = _edges(rows - 1, TEXT_TILE), _edges(columns - 1, TEXT_TILE)
    luma = luma[: rows * _STEP, : columns * _STEP]

    def mean(plane: Plane) -> Plane:
        return _means(_blocks(plane), tops, lefts) / _STEP**2

    level = mean(luma)
    heights, widths = _STEP * _sizes(tops, rows), _STEP * _sizes(lefts, columns)
    bright = (luma > level.repeat(heights, 0).repeat(widths, 1)).astype(np.float32)
    share = mean(bright).clip(1e-6, 1 - 1e-6)
    above = mean(luma * bright) / share
    below = (level - above * share) / (1 - share)
    steps = np.zeros_like(luma)
    steps[:, :-1] = np.abs(luma[:, 1:] - luma[:, :-1]) > _EDGE
    steps[:-1] += np.abs(luma[1:] - luma[:-1]) > _EDGE
    strokes = mean(np.minimum(steps, 1))
    found: npt.NDArray[np.bool_] = (above - below > _CONTRAST) & (strokes > _STROKES)
    return found
