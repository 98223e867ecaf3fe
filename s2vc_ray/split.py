"""Cutting a probed video into GOPs of our own length. Pure: no I/O, no decoding.

Our GOP boundaries have nothing to do with the source's: a GOP may begin anywhere, and decoding it begins at a
seek point of the source at or before its first frame.
"""

from __future__ import annotations

from bisect import bisect_right

from s2vc_ray.values import GopSpec, VideoInfo


def split(info: VideoInfo, *, source_uri: str, video_id: str, gop: int) -> list[GopSpec]:
    """Cover every frame of ``info`` once, in order, with GOPs of ``gop`` frames (the last may be shorter).

    ``seek_pts`` is the last keyframe whose time is at or before the GOP's first frame. That is right for open
    GOPs too: the frames that lead such a keyframe in presentation, though they follow it in the file, are
    earlier than the keyframe, so a GOP that begins with one of them seeks to the keyframe before. When the
    source has no keyframe that early, ``seek_pts`` is the video's first frame.

    Raises:
        ValueError: ``gop`` is not positive.
    """
    if gop < 1:
        raise ValueError(f"GOP length must be at least 1 frame, not {gop}")
    return [
        GopSpec(
            source_uri=source_uri,
            video_id=video_id,
            index=index,
            first_frame=first,
            pts=info.pts[first : first + gop],
            seek_pts=_seek_point(info, info.pts[first]),
            stream_index=info.stream_index,
            width=info.width,
            height=info.height,
        )
        for index, first in enumerate(range(0, info.frames, gop))
    ]


def _seek_point(info: VideoInfo, pts: int) -> int:
    at = bisect_right(info.keyframe_pts, pts)
    return info.keyframe_pts[at - 1] if at else info.pts[0]
