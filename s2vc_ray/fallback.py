"""The fallback codec: a GOP through SVT-AV1 and back through dav1d, both as FFmpeg has them.

    RGB ─ pad ─ BT.709, limited range, 4:2:0 ─ SVT-AV1 ─ Av1Gop ─ dav1d ─ planes ─┬─ checked against the CRC
                                                                               └─ RGB ─ crop

AV1 decoding is exact: any right decoder finds the same planes, and their CRC travels with them. One encoder thread
and fixed settings, so equal frames give equal bytes with one build of SVT-AV1 on CPUs with AVX2. Knows no archive, Ray
or torch.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from s2vc_model.errors import BitstreamError, ModelError, SymbolMismatch
from s2vc_ray.av1_gop import MAX_CRF, MAX_HEIGHT, MAX_WIDTH, Av1Gop, coded_size, temporal_units
from s2vc_ray.colour import EXACT, LIMITED
from s2vc_ray.fixity import crc32c
from s2vc_ray.priority import ordinary_priority

_PRESET = "6"
# One thread; tuned for the eye, which on training clips takes a quarter off LPIPS for 3 % of the bits; and of the
# instruction sets one that servers have, since not all of them give the same bytes (SSE4.1 does not).
_PARAMETERS = "lp=1:tune=0" + (":asm=avx2" if platform.machine() in ("x86_64", "AMD64") else "")
_BT709 = 1
_FORMAT = "yuv420p"

Frames = npt.NDArray[np.uint8]


def takes(width: int, height: int) -> bool:
    """Whether pictures of this size can be coded."""
    return width <= MAX_WIDTH and height <= MAX_HEIGHT


def encode_av1(frames: Frames, crf: int) -> Av1Gop:
    """Code a GOP: (T, H, W, 3) uint8 RGB, full range; CRF 0 (best) .. 63 (smallest).

    Raises:
        ValueError: there is no such CRF, or the frames are too large; see `takes`.
        ModelError: SVT-AV1 did not code them.
    """
    count, height, width, _ = frames.shape
    if not 0 <= crf <= MAX_CRF or not takes(width, height):
        raise ValueError(
            f"AV1 at CRF {crf} of {width}x{height} pixels: 0..63, {MAX_WIDTH}x{MAX_HEIGHT} at most"
        )
    try:
        units = _coded(frames, crf)
    except av.FFmpegError as error:
        raise ModelError(f"SVT-AV1 failed on {count} frames of {width}x{height}: {error}") from error
    crc, checks = 0, bytearray()
    for decoded in _decoded(units, width, height):
        crc = _crc(decoded, crc)
        checks.append(crc & 255)
    return Av1Gop(width, height, crf, crc, bytes(checks), temporal_units(b"".join(units), count))


def iter_decode_av1(gop: Av1Gop) -> Iterator[Frames]:
    """The frames of a GOP, one at a time, each (H, W, 3) uint8 RGB, as soon as its planes are checked.

    Raises:
        BitstreamError: the stream does not decode to the frames that it should hold.
        SymbolMismatch: it decodes to other planes than those that were coded.
    """
    scaler = VideoReformatter()
    for frame in _checked(gop):
        rgb = _converted(scaler, frame, "rgb24").to_ndarray()
        yield np.ascontiguousarray(rgb[: gop.height, : gop.width])


def check_av1(gop: Av1Gop) -> None:
    """Decode all planes and compare their checksums, without making a picture; errors as `iter_decode_av1`."""
    for _ in _checked(gop):
        pass


def _checked(gop: Av1Gop) -> Iterator[VideoFrame]:
    crc = 0
    for at, (frame, check) in enumerate(
        zip(_decoded(gop.units, gop.width, gop.height), gop.checks, strict=True)
    ):
        crc = _crc(frame, crc)
        if crc & 255 != check or (at + 1 == gop.frames and crc != gop.plane_crc):
            raise SymbolMismatch(f"AV1 frame {at} of {gop.frames} decodes to other planes than were coded")
        yield frame


def _coded(frames: Frames, crf: int) -> list[bytes]:
    count, height, width, _ = frames.shape
    padded = coded_size(width, height)
    # SVT-AV1 tells every setting on standard error otherwise.
    os.environ.setdefault("SVT_LOG", "1")
    encoder = _context("libsvtav1", "w")
    encoder.width, encoder.height = padded
    encoder.pix_fmt = _FORMAT
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.gop_size = count
    encoder.color_range, encoder.colorspace = LIMITED, _BT709
    encoder.options = {"crf": str(crf), "preset": _PRESET, "svtav1-params": _PARAMETERS}
    with ordinary_priority():
        encoder.open()
    scaler, packets = VideoReformatter(), []
    margins = ((0, padded[1] - height), (0, padded[0] - width), (0, 0))
    for at, rgb in enumerate(frames):
        picture = VideoFrame.from_ndarray(np.pad(rgb, margins, mode="edge"), format="rgb24")
        yuv = _converted(scaler, picture, _FORMAT)
        yuv.pts = at
        packets += encoder.encode(yuv)
    packets += encoder.encode(None)
    return [bytes(packet) for packet in packets]


def _context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    context = av.CodecContext.create(name, mode)
    assert isinstance(context, VideoCodecContext)
    return context


def _converted(scaler: VideoReformatter, frame: VideoFrame, to: str) -> VideoFrame:
    """RGB to BT.709 in limited range, or back. In full range the scaler would lose half a step of all chroma."""
    return scaler.reformat(
        frame,
        format=to,
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG if frame.format.is_rgb else ColorRange.MPEG,
        dst_color_range=ColorRange.MPEG if frame.format.is_rgb else ColorRange.JPEG,
        interpolation=EXACT,
        threads=1,
    )


def _decoded(units: tuple[bytes, ...] | list[bytes], width: int, height: int) -> Iterator[VideoFrame]:
    """The decoded pictures, padded, as many as there are units.

    Raises:
        BitstreamError: it does not decode, or to pictures of another number, size or format.
    """
    size = coded_size(width, height)
    decoder = _context("libdav1d", "r")
    decoder.thread_count = 1
    # A forged stream may claim any size, and would be given the memory for it.
    decoder.options = {"max_pixels": str(size[0] * size[1])}
    found = 0
    try:
        for unit in (*units, None):
            for frame in decoder.decode(None if unit is None else av.Packet(unit)):
                found += 1
                if found > len(units) or (frame.width, frame.height, frame.format.name) != (*size, _FORMAT):
                    raise BitstreamError(
                        f"AV1 stream holds a frame {found} of {frame.width}x{frame.height} {frame.format.name}, not "
                        f"{len(units)} of {size[0]}x{size[1]} {_FORMAT}"
                    )
                yield frame
    except av.FFmpegError as error:
        raise BitstreamError(f"AV1 stream does not decode behind frame {found}: {error}") from error
    if found != len(units):
        raise BitstreamError(f"AV1 stream decodes to {found} frames, not {len(units)}")


def _crc(frame: VideoFrame, crc: int) -> int:
    """CRC-32C of the frame's planes Y, U, V, row by row without padding, continuing from ``crc``."""
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        crc = crc32c(rows[: plane.height, : plane.width].tobytes(), crc)
    return crc
