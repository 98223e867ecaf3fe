"""The frames of an archive's source, found by their time stamps: what a decoded picture is held against.

Only the source's size is compared with the archive's word of it: a digest would read all of it. It must not know
archives' payloads, codecs or manifests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.errors import SourceError
from s2vc_ray.frames import read_gop
from s2vc_ray.probe import probe
from s2vc_ray.sources import open_media
from s2vc_ray.split import split_at
from s2vc_ray.storage import stat_source
from s2vc_ray.values import GopSpec, VideoInfo

_NEIGHBOURS = 2
"""Frames on each side that a deinterlacer looks at."""


class SourceFrames:
    """The pictures of the source at ``uri`` from which the archive with ``header`` was made.

    Raises:
        ObjectMissing: there is no such source.
        SourceError: it is not of the size that the archive's source had.
    """

    def __init__(self, uri: str, header: ArchiveHeader) -> None:
        self.uri = uri
        self._header = header
        size = stat_source(uri).size
        if size != header.source_size:
            raise SourceError(
                f"{uri} is not the source: it has {size} bytes, the source had {header.source_size}"
            )

    def frame(self, pts: int) -> npt.NDArray[np.uint8]:
        """The picture with this time stamp: uint8 RGB (H, W, 3), as the encoder was given it.

        Raises:
            SourceError: the source has no such frame, or it does not decode.
        """
        for at, rgb in self.frames([pts]):
            if at == pts:
                return rgb
        raise SourceError(f"{self.uri}: the frame at pts {pts} does not decode")

    def frames(self, pts: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """The pictures with these ascending time stamps, one at a time, as far as they decode.

        Raises:
            SourceError: the source lacks one of them.
        """
        wanted = set(pts)
        for spec in self._specs(pts):
            with open_media(self.uri) as media:
                for frame in read_gop(media, spec, deinterlace=self._header.deinterlace):
                    if frame.pts in wanted:
                        yield frame.pts, frame.rgb

    @cached_property
    def _info(self) -> VideoInfo:
        with open_media(self.uri) as media:
            return probe(media, uri=self.uri)

    def _specs(self, pts: Sequence[int]) -> Iterator[GopSpec]:
        """One reference to all frames from the first to the last, and to their neighbours where those matter."""
        info = self._info
        first, last = (bisect_left(info.pts, one) for one in (pts[0], pts[-1]))
        if any(at >= info.frames or info.pts[at] != one for at, one in ((first, pts[0]), (last, pts[-1]))):
            raise SourceError(f"{self.uri} has no frame at pts {pts[0]}: it is not the source")
        around = _NEIGHBOURS if self._header.deinterlace else 0
        begin, end = max(0, first - around), min(info.frames, last + around + 1)
        starts = sorted({0, begin, end} - {info.frames})
        specs = split_at(info, source_uri=self.uri, video_id="", starts=starts)
        yield from (spec for spec in specs if spec.first_frame == begin)
