"""Where scenes begin: one decode of a source, its pictures made small, each compared with the one before.

The measure is that of FFmpeg's ``scdet`` filter. A picture's change is the mean absolute difference of its luma from
the one before, in percent of full scale; its score is the lesser of its change and of how much that differs from the
change before. So steady motion scores nothing, however fast, and a flash scores once: when it comes, not when it goes.
In integers, so that equal pictures give equal cuts. It must not know GOPs.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from s2vc_ray.frames import decode_all
from s2vc_ray.source_io import Source
from s2vc_ray.values import VideoInfo

THRESHOLD = 10
"""The least score of a cut, in percent; FFmpeg's own default."""
LONG_SIDE = 160
"""Pixels that pictures are compared at: enough to tell scenes apart, and noise and grain are averaged out."""

_SCALER = Interpolation.AREA | Interpolation.BITEXACT | Interpolation.ACCURATE_RND


def find_cuts(source: Source, info: VideoInfo, *, uri: str = "") -> tuple[int, ...]:
    """Numbers of the frames of ``info`` with which scenes begin, ascending; never that of the first.

    Decodes every frame once and holds two small ones, so memory stays flat.

    Args:
        source: a local path, or a seekable binary file.
        uri: what to call it in error messages.

    Raises:
        SourceError: it cannot be opened.
    """
    shrink = _Shrinker(info.width, info.height)
    before: npt.NDArray[np.int16] | None = None
    change_before = 0
    cuts = []
    for pts, frame in decode_all(source, info, uri=uri):
        luma = shrink(frame)
        if before is not None:
            change = int(np.abs(luma - before).sum(dtype=np.int64))
            score = min(change, abs(change - change_before))
            at = bisect_left(info.pts, pts, lo=1)
            if 100 * score >= 256 * THRESHOLD * luma.size and info.pts[at : at + 1] == (pts,):
                cuts.append(at)
            change_before = change
        before = luma
    return tuple(sorted(set(cuts)))


class _Shrinker:
    """Small luma planes of a source's pictures, all of one size."""

    def __init__(self, width: int, height: int) -> None:
        scale = max(1.0, max(width, height) / LONG_SIDE)
        self._width, self._height = max(1, round(width / scale)), max(1, round(height / scale))
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> npt.NDArray[np.int16]:
        """int16, shape (h, w), values 0..255."""
        small = self._scaler.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="gray",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALER,
            threads=1,
        )
        return np.asarray(small.to_ndarray(), np.int16)
