"""Cutting a probed video into GOPs of our own length. Pure: no I/O, no decoding.

Our GOP boundaries have nothing to do with the source's: a GOP may begin anywhere, and decoding it begins at a
seek point of the source at or before its first frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

from s2vc_ray.times import Times
from s2vc_ray.values import GopSpec, VideoInfo

MIN_SCENE = 4
"""Frames from one scene cut to the next that counts: a flash, or a dissolve, must not make GOPs of single frames."""


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
        return GopSpec(
            source_uri=self.source_uri,
            video_id=self.video_id,
            index=places,
            first_frame=first,
            pts=info.pts[first:end],
            seek_pts=_seek_point(info, info.pts[first]),
            stream_index=info.stream_index,
            width=info.width,
            height=info.height,
        )


def split(
    info: VideoInfo, *, source_uri: str, video_id: str, gop: int, cuts: Sequence[int] | None = None
) -> GopSpecs:
    """Cover every frame of ``info`` once, in order, with GOPs of at most ``gop`` frames.

    Without ``cuts`` each has ``gop`` frames and the last may have fewer. With them a GOP ends at every cut too, save
    where a scene would have fewer than `MIN_SCENE` frames, and a scene longer than ``gop`` is cut into as few GOPs
    as it takes, whose lengths differ by one frame at most. So no GOP has fewer than the lesser of `MIN_SCENE` and
    half of ``gop`` (rounded up) frames, unless the video has.

    ``seek_pts`` is the last keyframe whose time is at or before the GOP's first frame. That is right for open
    GOPs too: the frames that lead such a keyframe in presentation, though they follow it in the file, are
    earlier than the keyframe, so a GOP that begins with one of them seeks to the keyframe before. When the
    source has no keyframe that early, ``seek_pts`` is the video's first frame.

    Args:
        cuts: numbers of the frames with which scenes begin, ascending, as `s2vc_ray.scene_cuts.find_cuts` finds them;
            none is not the same as None.

    Raises:
        ValueError: ``gop`` is not positive.
    """
    if gop < 1:
        raise ValueError(f"GOP length must be at least 1 frame, not {gop}")
    starts = range(0, info.frames, gop) if cuts is None else _starts(info.frames, gop, cuts)
    return split_at(info, source_uri=source_uri, video_id=video_id, starts=starts)


def split_at(info: VideoInfo, *, source_uri: str, video_id: str, starts: Sequence[int]) -> GopSpecs:
    """Cover every frame of ``info`` with GOPs that begin with the frames ``starts``, of which the first is 0."""
    return GopSpecs(info, source_uri, video_id, starts if isinstance(starts, range) else Times(starts))


def _starts(frames: int, gop: int, cuts: Iterable[int]) -> list[int]:
    scenes = [0]
    for cut in cuts:
        if scenes[-1] + MIN_SCENE <= cut <= frames - MIN_SCENE:
            scenes.append(cut)
    starts = []
    for begin, end in pairwise([*scenes, frames]):
        count = -(-(end - begin) // gop)
        starts += [begin + (end - begin) * k // count for k in range(count)]
    return starts


def _seek_point(info: VideoInfo, pts: int) -> int:
    at = bisect_right(info.keyframe_pts, pts)
    return info.keyframe_pts[at - 1] if at else info.pts[0]
