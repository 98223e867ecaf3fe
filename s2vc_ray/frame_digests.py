"""The digest of a decoded source frame as FFmpeg's own ``-f framemd5`` counts it.

That is the MD5 of what FFmpeg's ``rawvideo`` encoder makes of the frame: its planes in their native pixel format, one
behind the other, rows without padding. Asking that encoder, instead of copying planes here, holds for every format.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from s2vc_ray.values import FrameDigest


class FrameHasher:
    """Digests frames of one source. Keeps the encoder between frames of one format and size."""

    def __init__(self) -> None:
        self._kind: tuple[str, int, int, Fraction | None] | None = None
        self._encoder: VideoCodecContext | None = None

    def __call__(self, frame: VideoFrame) -> FrameDigest:
        """Digest one frame, which stays as it is."""
        kind = (frame.format.name, frame.width, frame.height, frame.time_base)
        if self._encoder is None or kind != self._kind:
            self._encoder, self._kind = _rawvideo(*kind), kind
        (packet,) = self._encoder.encode(frame)
        return FrameDigest(packet.size, hashlib.md5(packet, usedforsecurity=False).hexdigest())


def _rawvideo(pix_fmt: str, width: int, height: int, time_base: Fraction | None) -> VideoCodecContext:
    encoder = av.CodecContext.create("rawvideo", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.pix_fmt, encoder.width, encoder.height = pix_fmt, width, height
    # The frame's own: by any other the frame's time would be rescaled in place.
    encoder.time_base = time_base or Fraction(1, 1000)
    return encoder
