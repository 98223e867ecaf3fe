"""The list of a video's decoded source frames, in the text form of FFmpeg's ``-f framemd5``, as ``NAME.framemd5``.

It lies beside the archive and proves what was compressed: ``docs/audit.md`` says how to compare it with FFmpeg's
own, and where the two differ. Equal frames give equal bytes: no clock, no version, no place is in it. Knows nothing of
decoding; `frame_digests` makes the digests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from s2vc_ray.values import FrameDigest, VideoInfo


@dataclass(frozen=True, slots=True)
class ListedFrame:
    """One line: presentation time and duration in the list's time base, and the frame's digest."""

    pts: int
    duration: int
    digest: FrameDigest


class FrameListWriter:
    """Writes the list of one video to ``out``, a GOP at a time.

    FFmpeg gives a source of constant rate the time base of its frames, so their times are 0, 1, 2 …; that form is
    written for a source whose every frame lies within half a frame of such a place. Any other keeps the times and the
    time base that it has.
    """

    def __init__(self, out: BinaryIO, info: VideoInfo, source_sha256: str) -> None:
        self._out = out
        self._info = info
        rate = info.average_rate
        self._constant = rate is not None and _is_constant(info.pts, info.time_base * rate)
        time_base = 1 / rate if rate is not None and self._constant else info.time_base
        for line in (
            "format: frame checksums",
            "version: 2",
            "hash: MD5",
            f"tb 0: {_ratio(time_base)}",
            "media_type 0: video",
            "codec_id 0: rawvideo",
            f"dimensions 0: {info.width}x{info.height}",
            f"sar 0: {_ratio(info.sample_aspect)}",
            f"source_sha256: {source_sha256}",
            "stream#, dts,        pts, duration,     size, hash",
        ):
            out.write(f"#{line}\n".encode())

    def add(self, pts: Sequence[int], digests: Sequence[FrameDigest]) -> None:
        """Append frames by their time in the source."""
        for one, digest in zip(pts, digests, strict=True):
            time, duration = self._place(one)
            line = f"0, {time:10}, {time:10}, {duration:8}, {digest.size:8}, {digest.md5}\n"
            self._out.write(line.encode())

    def _place(self, pts: int) -> tuple[int, int]:
        """Time and duration of a frame in the list's time base."""
        expected = self._info.pts
        at = bisect_left(expected, pts)
        if self._constant:
            return at, 1
        last = at + 1 == len(expected)
        return pts, self._info.last_duration if last else expected[at + 1] - pts


def read_frame_list(lines: BinaryIO) -> Iterator[ListedFrame]:
    """The frames of a list, ours or FFmpeg's.

    Raises:
        ValueError: a line is not such a list's.
    """
    for number, line in enumerate(lines, 1):
        if line.startswith(b"#"):
            continue
        try:
            _, _, pts, duration, size, md5 = line.decode("ascii").split(",")
            yield ListedFrame(int(pts), int(duration), FrameDigest(int(size), md5.strip()))
        except ValueError as error:
            raise ValueError(f"line {number} is not one of a frame list") from error


def _is_constant(pts: Sequence[int], frames_per_tick: Fraction) -> bool:
    """Whether every frame lies within half a frame of its place. In integers: there may be a million."""
    up, down = frames_per_tick.numerator, frames_per_tick.denominator
    return all(abs((one - pts[0]) * up - at * down) * 2 <= down for at, one in enumerate(pts))


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"
