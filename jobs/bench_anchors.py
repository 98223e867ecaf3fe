"""The classical codecs a result stands beside: real encodes, decoded from their bytes.

Owns the table of them, and the settings of those inside PyAV with the colour conversion they need. A further
codec is one more entry of ``ANCHORS`` behind the ``Anchor`` protocol. Knows no metric and no file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from jobs.bench_clips import Pixels
from jobs.bench_coded import Anchor, Coded
from jobs.bench_ffmpeg import VvencAnchor
from s2vc_ray.errors import ConfigError
from s2vc_ray.priority import ordinary_priority

_FLAGS = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True, slots=True)
class FfmpegAnchor:
    """An encoder of the FFmpeg libraries inside PyAV, 8-bit 4:2:0, BT.709 limited range, one CRF per run.

    Attributes:
        options: of the encoder.
        parameters: name of the encoder option that holds its own parameters, and their text.
        gop_parameters: what that text begins with for closed GOPs of ``{gop}`` frames.
    """

    name: str
    encoder: str
    decoder: str
    ladder: Sequence[int]
    options: Mapping[str, str]
    parameters: tuple[str, str]
    gop_parameters: str

    @property
    def version(self) -> str:
        return f"PyAV {av.__version__}"

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        key, text = self.parameters
        text = ":".join(filter(None, (self.gop_parameters.format(gop=gop) if gop else "", text)))
        return {"encoder": self.encoder, "crf": str(point), **self.options, **({key: text} if text else {})}

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        started = time.perf_counter()
        packets = self._encode(frames, rate, point, gop)
        encoded = time.perf_counter()
        decoded = self._decode(packets)
        finished = time.perf_counter()
        if decoded.shape != frames.shape:
            raise RuntimeError(f"{self.name}: {frames.shape} came back as {decoded.shape}")
        size = sum(map(len, packets))
        return Coded(size, size, decoded, encoded - started, finished - encoded)

    def _encode(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> list[bytes]:
        # SVT-AV1 reports its settings on standard error unless told before it starts.
        os.environ.setdefault("SVT_LOG", "1")
        context = cast(VideoCodecContext, av.CodecContext.create(self.encoder, "w"))
        context.height, context.width = frames.shape[1:3]
        context.pix_fmt = "yuv420p"
        context.framerate, context.time_base = rate, 1 / rate
        if gop:
            context.gop_size = gop
        context.options = {k: v for k, v in self.settings(point, gop).items() if k != "encoder"}
        with ordinary_priority():
            context.open()
        scaler, packets = VideoReformatter(), []
        for index, picture in enumerate(frames):
            frame = scaler.reformat(
                VideoFrame.from_ndarray(picture, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=_FLAGS,
            )
            frame.pts, frame.time_base = index, context.time_base
            packets += [bytes(packet) for packet in context.encode(frame)]
        return packets + [bytes(packet) for packet in context.encode(None)]

    def _decode(self, packets: Sequence[bytes]) -> Pixels:
        context = cast(VideoCodecContext, av.CodecContext.create(self.decoder, "r"))
        frames: list[VideoFrame] = []
        for data in packets:
            frames += context.decode(av.Packet(data))
        frames += context.decode(None)
        scaler = VideoReformatter()
        pictures = [
            scaler.reformat(
                frame,
                format="rgb24",
                src_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                interpolation=_FLAGS,
            ).to_ndarray()
            for frame in frames
        ]
        return np.stack(pictures)


ANCHORS: Mapping[str, Anchor] = MappingProxyType(
    {
        anchor.name: anchor
        for anchor in (
            # The anchor at its best on short, small clips: info=0 leaves out the two kilobytes of settings
            # text that would be most of such a stream, pools=none the wavefronts, which cost up to a tenth.
            FfmpegAnchor(
                name="x265 slow",
                encoder="libx265",
                decoder="hevc",
                ladder=(28, 32, 36, 40, 43, 46, 49, 51),
                options={"preset": "slow"},
                parameters=("x265-params", "info=0:pools=none:frame-threads=1:log-level=none"),
                gop_parameters="keyint={gop}:min-keyint={gop}:open-gop=0",
            ),
            FfmpegAnchor(
                name="SVT-AV1 p4",
                encoder="libsvtav1",
                decoder="libdav1d",
                ladder=(35, 42, 48, 54, 58, 60, 62, 63),
                options={"preset": "4"},
                parameters=("svtav1-params", ""),
                gop_parameters="keyint={gop}:irefresh-type=2",
            ),
            VvencAnchor(),
        )
    }
)


def known_anchors(names: Sequence[str]) -> list[Anchor]:
    """Anchors by name.

    Raises:
        ConfigError: there is no such one.
    """
    unknown = [name for name in names if name not in ANCHORS]
    if unknown:
        raise ConfigError(f"unknown anchor {unknown[0]!r}; known: {', '.join(ANCHORS)}")
    return [ANCHORS[name] for name in names]
