"""Random access: an archive as a lazy sequence of decoded pictures, of which any stretch can be had by itself.

Reads the archive's header and footer, then only the GOPs that a stretch needs; loads the codec when the first
picture is asked for. It must not know output files or carried streams.

    with s2vc_ray.open_archive("s3://bucket/film.mp4.s2vc") as archive:
        for frame in archive.frames(start=754, end=764):
            show(frame.rgb, frame.seconds)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.errors import ConfigError, CorruptArchive
from s2vc_ray.gop_decoder import check_weights, coded_gop, iter_decode
from s2vc_ray.lanes import CodecLoader, LoadedCodec, load_s2vc
from s2vc_ray.moments import FrameNumber, Moment, clock
from s2vc_ray.storage import open_source
from s2vc_ray.stretch import Frame, Stretch

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Frame", "OpenArchive", "Stretch", "open_archive"]

_MEMORY = 4 << 30
"""What the GOPs decoded side by side may take, where the caller does not say how many."""
_WORKING = 600
"""Bytes that decoding takes for each pixel of a frame, buffers and activations together; measured on a CPU."""


def open_archive(
    uri: str,
    *,
    model: str = "small",
    device: str = "auto",
    salvage: bool = False,
    batch: int = 0,
    load_codec: CodecLoader = load_s2vc,
) -> OpenArchive:
    """Open the archive at ``uri``: a path, a ``file://`` URI or an ``s3://`` object. To be used with ``with``.

    Args:
        model: the packaged model's name, or the weights directory, that coded the archive.
        device: auto, cpu or cuda.
        salvage: take what is whole of a damaged or truncated archive.
        batch: GOPs decoded side by side, on a GPU in lockstep; 0 is as many as the codec likes and 4 GiB hold.

    Raises:
        ObjectMissing: there is no such archive.
        ArchiveError: not an archive, damaged, or without a whole GOP.
        ConfigError: ``batch`` is negative, or the URI is of no known kind.
    """
    if batch < 0:
        raise ConfigError(f"batch is {batch}: give 1 or more, or 0 to have it chosen")
    stream = open_source(uri)
    try:
        reader = ArchiveReader(stream, salvage=salvage)
        if not len(reader):
            raise CorruptArchive(f"{uri}: no whole GOP is left in it")
    except BaseException:
        stream.close()
        raise
    return OpenArchive(uri, stream, reader, lambda: load_codec(model, device), batch)


class OpenArchive:
    """One open archive; what `open_archive` returns. A context manager. For one thread at a time.

    Attributes:
        uri: where it lies.
        reader: its records, passthrough bytes and damage.
    """

    def __init__(
        self, uri: str, stream: BinaryIO, reader: ArchiveReader, load: Callable[[], LoadedCodec], batch: int
    ) -> None:
        self.uri = uri
        self.reader = reader
        self._stream = stream
        self._load = load
        self._batch = batch
        self._starts = [entry.first_pts for entry in reader.index.gops]
        self._ends: dict[int, GopRecord] = {}

    def __enter__(self) -> OpenArchive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive; nothing can be read from it any more."""
        self._ends.clear()
        self._stream.close()

    @property
    def header(self) -> ArchiveHeader:
        """What the archive says about its video."""
        return self.reader.header

    @cached_property
    def codec(self) -> LoadedCodec:
        """The codec that decodes it, loaded now at the latest.

        Raises:
            WrongWeights: the model is not the one that coded the archive.
            ModelError: the model cannot be loaded.
        """
        codec = self._load()
        check_weights(self.header, codec, self.uri)
        return codec

    @cached_property
    def duration(self) -> Fraction:
        """Seconds from the first picture to the end of the last; reads the last GOP.

        A last picture of unknown duration counts as one of average rate.
        """
        last = self._seconds(self._pts_of(len(self._starts) - 1)[-1])
        if self.header.last_duration or self.header.average_rate is None:
            return last + self.header.last_duration * self.header.time_base
        return last + 1 / self.header.average_rate

    def frames(
        self, start: Moment | float | None = None, end: Moment | float | None = None
    ) -> Iterator[Frame]:
        """Decode the pictures that are on screen between ``start`` and ``end``, one at a time.

        The first is the one at or before ``start``; a picture that begins at ``end`` is out.

        Args:
            start, end: seconds since the first picture, or a `FrameNumber`; None: from or to the end.

        Raises:
            ConfigError: the archive has no such stretch.
            ArchiveError: a GOP is damaged, or (`WrongWeights`) coded by another model.
            ModelError: the model cannot be loaded, or decoded symbols are not those that were coded.
        """
        return self.decode(self.stretch(start, end))

    def stretch(self, start: Moment | float | None = None, end: Moment | float | None = None) -> Stretch:
        """What `frames` of the same arguments would decode; reads the GOPs at its ends and decodes nothing.

        Raises:
            ConfigError: the archive has no such stretch.
        """
        self._ends.clear()
        begin, until = (None if moment is None else self._pts(moment) for moment in (start, end))
        if begin is not None and until is not None and until <= begin:
            raise ConfigError(f"nothing lies between {start} and {end}: the end must be later than the start")
        if self._starts != sorted(self._starts):
            raise CorruptArchive(f"{self.uri}: the time stamps of its GOPs go back")
        first, before, begin_pts = self._first(begin)
        last, behind, end_pts, duration = self._last(until)
        entries = self.reader.index.gops[first : last + 1]
        return Stretch(
            gops=range(first, last + 1),
            frames=sum(entry.frames for entry in entries) - before - behind,
            payload_bytes=sum(entry.payload_bytes for entry in entries),
            begin=begin_pts,
            end=end_pts,
            until=until,
            last_duration=duration,
        )

    def decode(self, stretch: Stretch) -> Iterator[Frame]:
        """Decode the pictures of a `stretch` of this archive; errors as `frames`."""
        codec = self.codec
        batch = self._batch or self._fitting(stretch, codec.parallel)
        positions = iter(stretch.gops)
        while group := list(islice(positions, batch)):
            records = [self._ends.pop(at) if at in self._ends else self.reader.gop(at) for at in group]
            yield from self._decode(stretch, records)

    def _decode(self, stretch: Stretch, records: list[GopRecord]) -> Iterator[Frame]:
        """The pictures of GOPs decoded side by side: the first one's as they come, the others' held."""
        gops = [coded_gop(record, self.header) for record in records]
        later: list[list[Frame]] = [[] for _ in records]
        last = max(
            (at for record in records for at, pts in enumerate(record.pts) if stretch.holds(pts)), default=-1
        )
        for at, pictures in enumerate(iter_decode(self.codec, gops)):
            for number, rgb in pictures.items():
                record, pts = records[number], records[number].pts[at]
                if stretch.holds(pts):
                    frame = Frame(record.first_frame + at, pts, self._seconds(pts), rgb)
                    if number:
                        later[number].append(frame)
                    else:
                        yield frame
            if at >= last:
                break
        for frames in later:
            yield from frames

    def _first(self, begin: Fraction | None) -> tuple[int, int, int | None]:
        """The GOP that a stretch begins in, how many of its pictures are out, and the first picture's pts."""
        if begin is None:
            return 0, 0, None
        position = max(0, bisect_right(self._starts, begin) - 1)
        if position == len(self._starts) - 1 and self._seconds(begin) >= self.duration:
            at = clock(self._seconds(begin))
            raise ConfigError(f"{self.uri} has no picture at {at}: it lasts {clock(self.duration)}")
        pts = self._pts_of(position)
        first = pts[max(0, bisect_right(pts, begin) - 1)]
        before = bisect_left(pts, first)
        return position, before, first if position or before else None

    def _last(self, until: Fraction | None) -> tuple[int, int, int | None, int]:
        """The GOP that a stretch ends in, how many pictures are out, where the last one ends, how long it is."""
        position = len(self._starts) - 1 if until is None else bisect_left(self._starts, until) - 1
        if until is None:
            return position, 0, None, self.header.last_duration
        pts = self._pts_of(position)
        kept = bisect_left(pts, until)
        if kept < len(pts):
            end = pts[kept]
        elif position + 1 < len(self._starts):
            end = self._starts[position + 1]
        else:
            return position, 0, None, self.header.last_duration
        return position, len(pts) - kept, end, max(0, end - pts[kept - 1])

    def seconds_at(self, moment: Moment | float) -> Fraction:
        """Seconds since the first picture.

        Raises:
            ConfigError: it is negative, or the archive has no such frame.
        """
        return self._seconds(self._pts(moment))

    def _pts(self, moment: Moment | float) -> Fraction:
        """The place in ``time_base`` units."""
        if isinstance(moment, FrameNumber):
            return Fraction(self._pts_of_frame(moment))
        if moment < 0:
            raise ConfigError(f"{moment} s lies before the first picture: give 0 or more")
        # A float is the decimal that somebody wrote, not its nearest binary fraction.
        seconds = Fraction(repr(moment)) if isinstance(moment, float) else Fraction(moment)
        return self._starts[0] + seconds / self.header.time_base

    def _pts_of_frame(self, frame: FrameNumber) -> int:
        if not 0 <= frame.number < self.header.frames:
            raise ConfigError(f"{self.uri} has no frame {frame}: it has #0 to #{self.header.frames - 1}")
        entries = self.reader.index.gops
        position = max(0, bisect_right([entry.first_frame for entry in entries], frame.number) - 1)
        within = max(0, frame.number - entries[position].first_frame)
        return self._pts_of(position)[min(within, entries[position].frames - 1)]

    def _pts_of(self, position: int) -> tuple[int, ...]:
        """The time stamps of one GOP; its record is kept until it is decoded."""
        if position not in self._ends:
            self._ends[position] = self.reader.gop(position)
        return self._ends[position].pts

    def _seconds(self, pts: int | Fraction) -> Fraction:
        return (pts - self._starts[0]) * self.header.time_base

    def _fitting(self, stretch: Stretch, most: int) -> int:
        """As many GOPs, up to ``most``, as fit the memory: the frames held of each, and what decoding takes."""
        frames = max(self.reader.index.gops[position].frames for position in stretch.gops)
        one = self.header.width * self.header.height * (3 * frames + _WORKING)
        return max(1, min(most, _MEMORY // one))
