"""Cutting a probed video into GOPs of our own length. Pure: no I/O, no decoding.

Our GOP boundaries have nothing to do with the source's: a GOP may begin anywhere, and decoding it begins at a
seek point of the source at or before its first frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from s2vc_ray.times import Times
from s2vc_ray.trail import UNKNOWN
from s2vc_ray.values import GopSpec, VideoInfo


@dataclass(frozen=True, slots=True)
class GopSpecs(Sequence[GopSpec]):
    """The GOPs of ``info`` that begin with the frames ``starts``; each is made when it is asked for.

    A film of ten hours has 30,000: a driver that holds this holds the frames' times, once.
    """

    info: VideoInfo
    source_uri: str
    video_id: str
    starts: Sequence[int]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> GopSpec: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[GopSpec, ...]: ...

    def __getitem__(self, index: int | slice) -> GopSpec | tuple[GopSpec, ...]:
        info, places = self.info, range(len(self.starts))[index]
        if isinstance(places, range):
            return tuple(self[at] for at in places)
        first = self.starts[places]
        end = self.starts[places + 1] if places + 1 < len(self.starts) else info.frames
        seek_pts, seek_trail = _seek_point(info, info.pts[first])
        return GopSpec(
            source_uri=self.source_uri,
            video_id=self.video_id,
            index=places,
            first_frame=first,
            pts=info.pts[first:end],
            seek_pts=seek_pts,
            stream_index=info.stream_index,
            width=info.width,
            height=info.height,
            trail=info.trail[first:end],
            seek_trail=seek_trail,
            index_hidden=info.index_hidden,
            encoder_note=info.encoder_note,
        )


def split(info: VideoInfo, *, source_uri: str, video_id: str, gop: int) -> GopSpecs:
    """Cover every frame of ``info`` once, in order, with GOPs of ``gop`` frames; the last may have fewer.

    ``seek_pts`` is the last keyframe whose time is at or before the GOP's first frame. That is right for open
    GOPs too: the frames that lead such a keyframe in presentation, though they follow it in the file, are
    earlier than the keyframe, so a GOP that begins with one of them seeks to the keyframe before. When the
    source has no keyframe that early, ``seek_pts`` is the video's first frame.

    Raises:
        ValueError: ``gop`` is not positive.
    """
    if gop < 1:
        raise ValueError(f"GOP length must be at least 1 frame, not {gop}")
    return split_at(info, source_uri=source_uri, video_id=video_id, starts=range(0, info.frames, gop))


def split_at(info: VideoInfo, *, source_uri: str, video_id: str, starts: Sequence[int]) -> GopSpecs:
    """Cover every frame of ``info`` with GOPs that begin with the frames ``starts``, of which the first is 0."""
    return GopSpecs(info, source_uri, video_id, starts if isinstance(starts, range) else Times(starts))


def _seek_point(info: VideoInfo, pts: int) -> tuple[int, int]:
    """Time stamp of the seek point for a frame, and the trail in front of it."""
    at = bisect_right(info.keyframe_pts, pts) - 1
    if at < 0:
        return info.pts[0], UNKNOWN
    return info.keyframe_pts[at], info.keyframe_trail[at] if info.keyframe_trail else UNKNOWN
