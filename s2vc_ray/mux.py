"""Decoded pictures and a passthrough in, one playable file out: .mp4, .mkv, .y4m or y4m on standard output.

Owns encoding, time stamps, rotation, aspect and colour tags of the written file. It writes under a temporary
name, reads the result's time stamps back, and only then renames it. It must not know archives or the codec.

Time stamps: .mp4 uses the source's own time base as the track's timescale, so every one is kept exactly.
Matroska counts milliseconds: times are rounded to the nearest, and the report says by how much. y4m has only a
frame rate. Even sizes are written as 4:2:0; odd sizes as 4:4:4, since H.264 4:2:0 cannot have them and a crop
or a pad would change the picture.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from s2vc_ray import y4m
from s2vc_ray.colour import EXACT, FULL, LIMITED, effective_matrix, scaler_matrix
from s2vc_ray.errors import ConfigError, ObjectExists, StorageError
from s2vc_ray.passthrough_format import Omitted, Passthrough
from s2vc_ray.remux import Remux, portable_tags
from s2vc_ray.source_io import TAG_ERRORS
from s2vc_ray.values import ColourTags, VideoInfo

_MAX_TIMESCALE = (1 << 31) - 1
_WITH_CRF = frozenset({"libx264", "libx265", "libsvtav1", "libvpx-vp9"})
_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".y4m": "y4m"}

TimedFrame = tuple[int, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What a written file must say about its pictures; the fields are those of ``VideoInfo``."""

    width: int
    height: int
    time_base: Fraction
    rotation: int
    sample_aspect: Fraction
    colour: ColourTags
    average_rate: Fraction | None
    last_duration: int

    @classmethod
    def from_info(cls, info: VideoInfo) -> VideoHeader:
        """The header of a probed source."""
        return cls(
            width=info.width,
            height=info.height,
            time_base=info.time_base,
            rotation=info.rotation,
            sample_aspect=info.sample_aspect,
            colour=info.colour,
            average_rate=info.average_rate,
            last_duration=info.last_duration,
        )


@dataclass(frozen=True, slots=True)
class MuxReport:
    """What was written, and what could not be.

    Attributes:
        frames: pictures written.
        pts_error: largest difference in seconds between a frame's time and what the file says; 0 is exact.
        carried: source indices of the streams that are in the file.
        omitted: streams and attachments that are not, with reasons.
        rounded: source index of a carried stream to the largest rounding of its packets' times in seconds.
        notes: whatever else differs from the source, one sentence each.
    """

    frames: int
    pts_error: Fraction
    carried: tuple[int, ...]
    omitted: tuple[Omitted, ...]
    rounded: dict[int, Fraction]
    notes: tuple[str, ...]


def write_video(
    out: str | os.PathLike[str],
    frames: Iterable[TimedFrame],
    header: VideoHeader,
    passthrough: Passthrough | None = None,
    *,
    codec: str = "libx264",
    crf: int = 16,
    overwrite: bool = False,
) -> MuxReport:
    """Write pictures and carried streams to ``out``.

    Args:
        out: a path ending in .mp4, .mkv or .y4m, or "-" for y4m on standard output.
        frames: (pts in ``header.time_base`` units, uint8 RGB (H, W, 3)), pts ascending.
        passthrough: audio, subtitles and the rest, stream-copied as far as the container can hold them.
        codec: an encoder of FFmpeg; ``crf`` applies to those that have it.
        overwrite: replace an existing file.

    Raises:
        ConfigError: an unknown suffix or encoder, or times that the container cannot express.
        ObjectExists: ``out`` exists and ``overwrite`` is false.
        StorageError: no frames came, their sizes or order are wrong, or the written file reads back wrong.
    """
    if os.fspath(out) == "-":
        return _write_y4m(sys.stdout.buffer, frames, header, passthrough)
    path = Path(out)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: unknown output format; use one of {', '.join(_FORMATS)} or -")
    if path.exists() and not overwrite:
        raise ObjectExists(f"{path} exists; remove it or choose another name")

    def write(temporary: Path) -> MuxReport:
        if kind == "y4m":
            with temporary.open("wb") as file:
                return _write_y4m(file, frames, header, passthrough)
        return _write_container(temporary, kind, frames, header, passthrough, codec, crf)

    return _renamed_on_success(path, write)


def _renamed_on_success(path: Path, write: Callable[[Path], MuxReport]) -> MuxReport:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        report = write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _write_y4m(
    file: IO[bytes], frames: Iterable[TimedFrame], header: VideoHeader, passthrough: Passthrough | None
) -> MuxReport:
    rate = header.average_rate or Fraction(25)
    colour_range = FULL if header.colour.range == FULL else LIMITED
    file.write(y4m.header_line(header.width, header.height, rate, header.sample_aspect, colour_range == FULL))
    convert = YuvConverter(header, y4m.FORMAT)
    count, first, error = 0, 0, Fraction(0)
    for pts, rgb in _checked(frames, header):
        first = pts if count == 0 else first
        error = max(error, abs((pts - first) * header.time_base - count / rate))
        y4m.write_frame(file, convert(rgb))
        count += 1
    file.flush()
    notes = [f"y4m shows every frame for {1 / rate} s"] if error else []
    if first:
        notes.append("y4m begins at time 0")
    if header.rotation:
        notes.append(f"y4m cannot say that the picture is rotated by {header.rotation} degrees")
    omitted: list[Omitted] = []
    if passthrough is not None:
        head = passthrough.head
        omitted += head.omitted
        omitted += [
            Omitted(one.index, one.kind, one.codec, "y4m holds only pictures") for one in head.streams
        ]
        omitted += [
            Omitted(-1, "attachment", one.name, "y4m holds only pictures") for one in head.attachments
        ]
        if head.metadata or head.chapters:
            notes.append("y4m holds no tags and no chapters")
    return MuxReport(count, error, (), tuple(omitted), {}, tuple(notes))


def _checked(frames: Iterable[TimedFrame], header: VideoHeader) -> Iterator[TimedFrame]:
    """The frames as they come; StorageError when one has the wrong size or goes back in time, or none comes."""
    last: int | None = None
    for pts, rgb in frames:
        if rgb.shape != (header.height, header.width, 3) or rgb.dtype != np.uint8:
            raise StorageError(
                f"frame at pts {pts} is {rgb.dtype} {rgb.shape}, not uint8 {(header.height, header.width, 3)}"
            )
        if last is not None and pts <= last:
            raise StorageError(f"frame times must ascend: pts {pts} after {last}")
        last = pts
        yield pts, rgb
    if last is None:
        raise StorageError("no frames to write")


def _write_container(
    path: Path,
    kind: str,
    frames: Iterable[TimedFrame],
    header: VideoHeader,
    passthrough: Passthrough | None,
    codec: str,
    crf: int,
) -> MuxReport:
    timed = _checked(frames, header)
    first = next(timed)
    # No container is safe with pictures before time 0: everything moves later by the same amount.
    shift = max(Fraction(0), -first[0] * header.time_base)
    clock = Clock.of(kind, header, shift)
    options = {"movie_timescale": str(clock.rate), "video_track_timescale": str(clock.rate)}
    with av.open(
        str(path),
        "w",
        format=kind,
        container_options=options if kind == "mp4" else {},
        metadata_errors=TAG_ERRORS,
    ) as out:
        video = _add_video(out, header, codec, crf, clock)
        remux = None
        if passthrough is not None:
            _describe_video(video, passthrough)
            remux = Remux(out, passthrough, shift)
            remux.add_streams()
        out.start_encoding()
        written = _encode(out, video, chain([first], timed), header, clock, remux)
    notes = [f"all times are {float(shift):.6f} s later than in the source"] if shift else []
    expected = [pts * header.time_base + shift for pts in written]
    error, missing_tags = _read_back(path, expected, passthrough)
    if missing_tags:
        notes.append(f"{kind} did not keep the tags {', '.join(missing_tags)}")
    return MuxReport(
        frames=len(written),
        pts_error=error,
        carried=tuple(remux.carried) if remux else (),
        omitted=tuple(remux.omitted) if remux else (),
        rounded=dict(remux.rounded) if remux else {},
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """The written track's clock: ``rate`` ticks per second."""

    rate: int
    time_base: Fraction
    shift: Fraction

    @classmethod
    def of(cls, kind: str, header: VideoHeader, shift: Fraction) -> Clock:
        """The clock of a container: milliseconds in Matroska, the source's own in MP4.

        Raises:
            ConfigError: the source's clock is finer than MP4 can count.
        """
        rate = 1000 if kind == "matroska" else header.time_base.denominator
        if rate > _MAX_TIMESCALE:
            raise ConfigError(f"time base {header.time_base} is too fine for .mp4; write .mkv")
        return cls(rate, header.time_base, shift)

    def tick(self, pts: int) -> int:
        """The track's time stamp nearest to ``pts``."""
        return round((pts * self.time_base + self.shift) * self.rate)


def _add_video(out: OutputContainer, header: VideoHeader, codec: str, crf: int, clock: Clock) -> VideoStream:
    options = {"crf": str(crf)} if codec in _WITH_CRF else {}
    if codec == "libx265":
        options["x265-params"] = "log-level=error"
    try:
        # The names of encoders are not known to the type checker, so neither is the stream's class.
        video: VideoStream = out.add_stream(codec, rate=header.average_rate or Fraction(25), options=options)  # type: ignore[assignment]
    except (av.FFmpegError, ValueError) as error:
        raise ConfigError(f"cannot encode {codec} into {out.format.name} ({error})") from error
    context = video.codec_context
    context.width, context.height = header.width, header.height
    context.pix_fmt = "yuv444p" if header.width % 2 or header.height % 2 else "yuv420p"
    context.time_base = Fraction(1, clock.rate)
    video.time_base = Fraction(1, clock.rate)
    context.sample_aspect_ratio = header.sample_aspect
    colour = header.colour
    context.color_range = FULL if colour.range == FULL else LIMITED
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    context.colorspace = (
        effective_matrix(0, header.width, header.height) if colour.matrix == 0 else colour.matrix
    )
    if header.rotation:
        video.set_display_rotation(header.rotation)
    return video


def _describe_video(video: VideoStream, passthrough: Passthrough) -> None:
    head = passthrough.head
    video.metadata.update(portable_tags(head.video_metadata))
    video.disposition = head.video_disposition  # type: ignore[assignment]


def _encode(
    out: OutputContainer,
    video: VideoStream,
    frames: Iterator[TimedFrame],
    header: VideoHeader,
    clock: Clock,
    remux: Remux | None,
) -> list[int]:
    """Encode and mux every frame in step with the carried streams; returns the time stamps written."""
    convert = YuvConverter(header, video.codec_context.pix_fmt or "yuv420p")
    written: list[int] = []
    durations: dict[int, int] = {}

    def mux(packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = durations.pop(packet.pts or 0, 0)
            if remux is not None and packet.dts is not None:
                remux.write_until(packet.dts * Fraction(1, clock.rate))
            out.mux(packet)

    for (pts, rgb), following in _with_next(frames):
        tick = clock.tick(pts)
        if following is None:
            durations[tick] = clock.tick(pts + _last_duration(header)) - tick
        else:
            durations[tick] = clock.tick(following) - tick
            if not durations[tick]:
                raise ConfigError(f"pts {pts} and {following} fall into one millisecond; write .mp4 instead")
        frame = convert(rgb)
        frame.pts, frame.time_base = tick, Fraction(1, clock.rate)
        mux(video.encode(frame))
        written.append(pts)
    mux(video.encode(None))
    if remux is not None:
        remux.write_until(None)
    return written


def _with_next(frames: Iterator[TimedFrame]) -> Iterator[tuple[TimedFrame, int | None]]:
    """Each frame with the next one's time stamp."""
    held = next(frames, None)
    while held is not None:
        following = next(frames, None)
        yield held, None if following is None else following[0]
        held = following


def _last_duration(header: VideoHeader) -> int:
    rate = header.average_rate or Fraction(25)
    return header.last_duration or max(1, round(1 / rate / header.time_base))


class YuvConverter:
    """Converts full-range RGB to the written pixel format, by the matrix and range that the header names."""

    def __init__(self, header: VideoHeader, pix_fmt: str) -> None:
        self._pix_fmt = pix_fmt
        self._matrix = scaler_matrix(header.colour.matrix, header.width, header.height)
        self._range = ColorRange.JPEG if header.colour.range == FULL else ColorRange.MPEG
        self._scaler = VideoReformatter()

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> VideoFrame:
        """Convert one uint8 (H, W, 3) picture."""
        return self._scaler.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            format=self._pix_fmt,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
            interpolation=EXACT,
            threads=1,
        )


def _read_back(
    path: Path, expected: list[Fraction], passthrough: Passthrough | None
) -> tuple[Fraction, list[str]]:
    """Largest difference between the file's times and ``expected`` (seconds), and the tags it lacks.

    Raises:
        StorageError: the file does not hold as many frames as were written.
    """
    with av.open(str(path), metadata_errors=TAG_ERRORS) as file:
        stream = file.streams.video[0]
        unit = stream.time_base or Fraction(1)
        times = sorted(packet.pts * unit for packet in file.demux(stream) if packet.pts is not None)
        kept = {key.lower() for key in file.metadata}
    if len(times) != len(expected):
        raise StorageError(f"{path.name}: {len(expected)} frames were written, {len(times)} read back")
    tags = portable_tags(passthrough.head.metadata) if passthrough is not None else {}
    missing = sorted(key for key in tags if key.lower() not in kept)
    return max(abs(a - b) for a, b in zip(times, expected, strict=True)), missing
