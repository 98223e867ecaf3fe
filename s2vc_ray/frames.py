"""A ``GopSpec`` in, its RGB pictures out: seek, decode, and keep exactly the frames the spec names.

Owns seeking and the conversion to RGB. It never makes a frame up: what cannot be decoded is left out and
counted. It must not know codecs of ours, archives or Ray.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from s2vc_ray.colour import EXACT, scaler_matrix, scaler_range
from s2vc_ray.deinterlace import deinterlaced
from s2vc_ray.errors import SourceError
from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.picture_sizes import check_size
from s2vc_ray.seeking import frames_on_the_way
from s2vc_ray.source_io import Source, name_of
from s2vc_ray.standby import Standby
from s2vc_ray.values import FrameDigest, GopSpec

_LATER = 64
"""Frames behind a GOP's last that are looked at for one that is missing: damaged times do not ascend."""


@dataclass(frozen=True, slots=True)
class DecodedGop:
    """The frames of one GOP that could be decoded.

    Attributes:
        frames: uint8 RGB, shape (T, H, W, 3), full range, in presentation order, before any rotation.
        pts: time stamp of each frame; a subset of the spec's.
        corrupt: how many of ``frames`` the decoder marked as damaged.
        interlaced: how many of ``frames`` it flagged as interlaced, as they are in the source.
        missing: how many frames of the spec did not come out at all.
        digests: of each of ``frames``, in its native planes before any conversion.
        strayed: whether seeking led elsewhere than planning had been, so that they were found by reading from the
            source's beginning.
    """

    frames: npt.NDArray[np.uint8]
    pts: tuple[int, ...]
    corrupt: int
    interlaced: int
    missing: int
    digests: tuple[FrameDigest, ...]
    strayed: bool = False


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: its time stamp, uint8 RGB of shape (H, W, 3), and of the source's own picture whether the decoder
    marked it as damaged and as interlaced, and its digest. ``strayed`` as in `DecodedGop`."""

    pts: int
    rgb: npt.NDArray[np.uint8]
    corrupt: bool
    interlaced: bool
    digest: FrameDigest
    strayed: bool


_Fact = tuple[int, bool, bool, FrameDigest, bool]
"""What is said of a decoded picture: pts, damaged, interlaced, digest, strayed."""


def decode_gop(
    source: Source | Standby, spec: GopSpec, *, threads: int = 1, deinterlace: bool = False
) -> DecodedGop:
    """Decode the frames of ``spec`` from ``source`` (a path, a seekable binary file, or one that is held open).

    When frames do not come out from the spec's own seek point, decoding is tried once more from further
    back, since some encoders flag as keyframes pictures that need what lies before them.

    Args:
        deinterlace: as `read_gop`.

    Raises:
        SourceError: nothing of the GOP decodes, or its pictures are not of the size the spec names.
    """
    place = {pts: at for at, pts in enumerate(spec.pts)}
    # Filled in place: a list of frames and the array stacked from it would take the memory twice.
    frames = np.empty((spec.frames, spec.height, spec.width, 3), np.uint8)
    found: dict[int, _Fact] = {}
    for further_back in (False, True):
        if len(found) < spec.frames:
            for frame in read_gop(
                source, spec, threads=threads, further_back=further_back, deinterlace=deinterlace
            ):
                if frame.pts not in found:
                    frames[place[frame.pts]] = frame.rgb
                    found[frame.pts] = (
                        frame.pts,
                        frame.corrupt,
                        frame.interlaced,
                        frame.digest,
                        frame.strayed,
                    )
    if not found:
        raise SourceError(
            f"{_name(source, spec)}: none of the {spec.frames} frames of GOP {spec.index} "
            f"decodes (pts {spec.pts[0]}..{spec.pts[-1]})"
        )
    pts = tuple(pts for pts in spec.pts if pts in found)
    return DecodedGop(
        frames=frames if len(pts) == spec.frames else frames[[place[one] for one in pts]],
        pts=pts,
        corrupt=sum(corrupt for _, corrupt, _, _, _ in found.values()),
        interlaced=sum(interlaced for _, _, interlaced, _, _ in found.values()),
        missing=spec.frames - len(pts),
        digests=tuple(found[one][3] for one in pts),
        strayed=any(strayed for *_, strayed in found.values()),
    )


def read_gop(
    source: Source | Standby,
    spec: GopSpec,
    *,
    threads: int = 1,
    further_back: bool = False,
    deinterlace: bool = False,
) -> Iterator[DecodedFrame]:
    """Yield the frames of ``spec`` in presentation order, one at a time, so that memory stays flat.

    Args:
        deinterlace: see `s2vc_ray.deinterlace`; only frames of ``spec`` are looked at for it.
        further_back: begin at the seek point before the spec's own (at the very beginning for sources without
            presentation times).

    Raises:
        SourceError: the source cannot be opened, or a frame's size is not the spec's.
    """
    to_rgb, digest = RgbConverter(), FrameHasher()
    frames: Iterator[tuple[_Fact, VideoFrame]] = (
        ((pts, frame.is_corrupt, frame.interlaced_frame, digest(frame), strayed), frame)
        for pts, frame, strayed in _wanted_frames(source, spec, threads, further_back)
    )
    for (pts, corrupt, interlaced, md5, strayed), frame in deinterlaced(frames) if deinterlace else frames:
        yield DecodedFrame(pts, to_rgb(frame), corrupt, interlaced, md5, strayed)


class RgbConverter:
    """Converts decoded pictures to uint8 RGB (H, W, 3) of full range, by each picture's own matrix and range.

    Keeps the scaler between frames of one source.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Convert one frame.

        Raises:
            SourceError: the picture's colour matrix has no conversion.
        """
        rgb = self._scaler.reformat(
            frame,
            format="rgb24",
            src_colorspace=scaler_matrix(frame.colorspace, frame.width, frame.height),
            src_color_range=scaler_range(frame.color_range, frame.format.name),
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
            threads=1,
        )
        return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _name(source: Source | Standby, spec: GopSpec) -> str:
    return name_of(source.source if isinstance(source, Standby) else source, spec.source_uri)


def _wanted_frames(
    source: Source | Standby, spec: GopSpec, threads: int, further_back: bool
) -> Iterator[tuple[int, VideoFrame, bool]]:
    """The frames of ``spec``, each once, with their time stamps and whether they were come by on a way around."""
    name = _name(source, spec)
    wanted = set(spec.pts)
    later = 0
    with closing(frames_on_the_way(source, spec, threads=threads, further_back=further_back)) as found:
        for pts, frame, strayed in found:
            if pts in wanted:
                number = spec.first_frame + bisect_left(spec.pts, pts)
                check_size(name, frame, (spec.width, spec.height), number)
                wanted.remove(pts)
                yield pts, frame, strayed
            later += pts > spec.pts[-1]
            if not wanted or later > _LATER:
                return
