"""RGB pictures into encoded packets of an output stream: clock, colour conversion, encoder settings.

It must not know files, carried streams or archives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from s2vc_ray.colour import EXACT, FULL, LIMITED, effective_matrix, scaler_matrix
from s2vc_ray.encoders import Encoder
from s2vc_ray.errors import ConfigError, StorageError
from s2vc_ray.priority import ordinary_priority
from s2vc_ray.stream_tags import encoder_options, tag_stream
from s2vc_ray.values import UNTAGGED, ColourTags, Durations, PictureTags, VideoInfo

_MAX_TIMESCALE = (1 << 31) - 1

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
    tags: PictureTags = UNTAGGED
    durations: Durations = ()

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
            tags=info.tags,
            durations=info.durations,
        )


def checked(frames: Iterable[TimedFrame], header: VideoHeader) -> Iterator[TimedFrame]:
    """The frames as they come; StorageError on a wrong size, a step back in time, or no frame."""
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


def add_video(out: OutputContainer, header: VideoHeader, encoder: Encoder, clock: Clock) -> VideoStream:
    """A video stream of ``out`` for pictures as ``header`` describes them.

    Raises:
        ConfigError: there is no such encoder, or the container does not take its stream.
    """
    rate = header.average_rate or Fraction(25)
    pix_fmt, options = encoder.for_size(header.width, header.height)
    options = encoder_options(encoder.name, options, header.tags, header.height)
    try:
        # The names of encoders are not known to the type checker, so neither is the stream's class.
        video: VideoStream = out.add_stream(encoder.name, rate=rate, options=options)  # type: ignore[assignment]
    except (av.FFmpegError, ValueError) as error:
        raise ConfigError(f"cannot encode {encoder.name} into {out.format.name} ({error})") from error
    context = video.codec_context
    context.width, context.height = header.width, header.height
    context.pix_fmt = pix_fmt
    if encoder.tag and out.format.name in ("mp4", "mov"):
        context.codec_tag = encoder.tag
    context.time_base = Fraction(1, clock.rate)
    video.time_base = Fraction(1, clock.rate)
    context.sample_aspect_ratio = header.sample_aspect
    colour = header.colour
    context.color_range = FULL if colour.range == FULL else LIMITED
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    context.colorspace = (
        effective_matrix(0, header.width, header.height) if colour.matrix == 0 else colour.matrix
    )
    if VideoFormat(pix_fmt).is_rgb:
        context.color_range, context.colorspace = FULL, 0
    tag_stream(video, header.tags, header.rotation)
    return video


def encode(
    video: VideoStream, frames: Iterator[TimedFrame], header: VideoHeader, clock: Clock
) -> Iterator[Packet[VideoStream]]:
    """Encode every frame; packets come in decode order, each with its duration.

    Raises:
        ConfigError: two frames would get the same time on the written clock.
    """
    convert = YuvConverter(header, video.codec_context.pix_fmt or "yuv420p")
    durations: dict[int, int] = {}
    brief = dict(header.durations)
    for (pts, rgb), following in _with_next(frames):
        tick = clock.tick(pts)
        after = clock.tick(pts + _last_duration(header) if following is None else following)
        if after == tick and following is not None:
            raise ConfigError(f"pts {pts} and {following} fall into one millisecond; write .mp4 instead")
        if following is not None and pts in brief:
            after = max(tick + 1, min(after, clock.tick(pts + brief[pts])))
        durations[tick] = after - tick
        frame = convert(rgb)
        frame.pts, frame.time_base = tick, Fraction(1, clock.rate)
        # The first frame opens the encoder.
        with ordinary_priority():
            packets = video.encode(frame)
        yield from _timed(packets, durations)
    yield from _timed(video.encode(None), durations)


def _timed(packets: list[Packet[VideoStream]], durations: dict[int, int]) -> Iterator[Packet[VideoStream]]:
    for packet in packets:
        packet.duration = durations.pop(packet.pts or 0, 0)
        yield packet


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
        full = header.colour.range == FULL or VideoFormat(pix_fmt).is_rgb
        self._range = ColorRange.JPEG if full else ColorRange.MPEG
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
