"""VVenC, the H.266 encoder, inside the ffmpeg program that ``imageio-ffmpeg`` carries.

An ``Anchor`` like those of ``bench_anchors``, behind pipes instead of a library: pictures in, an elementary
stream out, and that stream alone in again to the same program's VVC decoder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jobs.bench_clips import Pixels
from jobs.bench_coded import Coded
from s2vc_model.metrics.tools import ffmpeg_version, run_ffmpeg

_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True, slots=True)
class VvencAnchor:
    """VVenC, 4:2:0 BT.709 limited range in 10 bits (it takes no other), one QP per run, one thread.

    Its perceptual adaptation stays on, as it is by default. Its own GOP begins with an IDR that pictures
    before it are predicted from, refreshed about once a second.
    """

    name: str = "VVenC medium"
    ladder: Sequence[int] = (26, 30, 34, 38, 42, 46, 50, 56)
    preset: str = "medium"

    @property
    def version(self) -> str:
        return ffmpeg_version()

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        # idr_no_radl: a GOP shows nothing before its IDR, as with the other anchors, so it stands alone.
        parameters = "verbosity=0" + (f":IntraPeriod={gop}:DecodingRefreshType=idr_no_radl" if gop else "")
        # One thread: VVenC's parallel modes may change the bytes.
        return {
            "c:v": "libvvenc",
            "preset": self.preset,
            "qp": str(point),
            "threads": "1",
            "vvenc-params": parameters,
        }

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        started = time.perf_counter()
        stream = self._encode(frames, rate, point, gop)
        encoded = time.perf_counter()
        decoded = self._decode(stream, frames.shape[1], frames.shape[2])
        finished = time.perf_counter()
        if decoded.shape != frames.shape:
            raise RuntimeError(f"{self.name}: {frames.shape} came back as {decoded.shape}")
        return Coded(len(stream), len(stream), decoded, encoded - started, finished - encoded)

    def _encode(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> bytes:
        height, width = frames.shape[1:3]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
        to_yuv = f"scale=out_color_matrix=bt709:out_range=tv:{_FLAGS},format=yuv420p10le"
        options = [word for key, value in self.settings(point, gop).items() for word in (f"-{key}", value)]
        arguments = [*raw, "-i", "pipe:0", "-vf", to_yuv, *options, "-f", "vvc", "pipe:1"]
        return run_ffmpeg(arguments, self.name, np.ascontiguousarray(frames).tobytes())

    def _decode(self, stream: bytes, height: int, width: int) -> Pixels:
        to_rgb = f"scale=in_color_matrix=bt709:in_range=tv:out_range=pc:{_FLAGS},format=rgb24"
        arguments = ["-threads", "1", "-f", "vvc", "-i", "pipe:0", "-vf", to_rgb]
        arguments += ["-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
        samples = np.frombuffer(run_ffmpeg(arguments, self.name, stream), np.uint8)
        return samples.reshape(-1, height, width, 3)
