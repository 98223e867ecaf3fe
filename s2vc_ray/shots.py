"""Scene cuts within a GOP, and the payload of a GOP that is coded anew at each of them.

An inter frame is coded as what differs from the one before, so behind a cut the old scene shines through until the
GOP ends. A GOP that holds cuts is therefore coded shot by shot: each begins with an intra frame, and the payload is
theirs, one after the other. The GOP stays what is planned, staged, found and decoded.

The measure of a cut is that of FFmpeg's ``scdet`` filter. A picture's change is the mean absolute difference of its
luma from the one before, in percent of full scale; its score is the lesser of its change and of how much that differs
from the change before. So steady motion scores nothing, however fast, and a flash scores once: when it comes, not
when it goes. In integers, so that equal pictures give equal cuts. Knows no codec and no archive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from s2vc_model.bitstream import MAX_FRAMES, EncodedGop
from s2vc_ray.archive.fields import Fields, put_varint
from s2vc_ray.errors import CorruptArchive

THRESHOLD = 10
"""The least score of a cut, in percent; FFmpeg's own default."""
_SAMPLES = 128
"""Pixels that are compared along the longer side, at least, where there are as many: enough to tell scenes apart."""


def find_cuts(frames: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    """Numbers of the frames with which scenes begin, ascending; never that of the first.

    The second frame is measured against the third, since nothing is known of what came before the first.

    Args:
        frames: uint8 RGB, shape (T, H, W, 3), of one GOP.
    """
    if len(frames) < 2:
        return ()
    step = max(1, max(frames.shape[1:3]) // _SAMPLES)
    seen = np.asarray(frames[:, step // 2 :: step, step // 2 :: step], np.int32)
    # BT.601 in 256ths.
    luma = seen @ np.array([77, 150, 29], np.int32)
    changes = np.abs(np.diff(luma, axis=0)).sum(axis=(1, 2), dtype=np.int64)
    before = np.concatenate([changes[1:2], changes[:-1]]) if len(changes) > 1 else np.zeros(1, np.int64)
    scores = np.minimum(changes, np.abs(changes - before))
    found = np.flatnonzero(100 * scores >= THRESHOLD * 256 * 256 * luma[0].size) + 1
    return tuple(int(at) for at in found)


def cut(frames: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """A GOP's shots, as views of its frames; the GOP itself when there is no cut in it."""
    bounds = (0, *find_cuts(frames), len(frames))
    return [frames[begin:end] for begin, end in pairwise(bounds)]


def joined(shots: Iterable[EncodedGop], counts: Iterable[int]) -> list[EncodedGop | ShotsGop]:
    """The GOPs that shots make, in order, of which each has as many as ``counts`` says."""
    left = iter(shots)
    return [next(left) if count == 1 else ShotsGop(tuple(islice(left, count))) for count in counts]


@dataclass(frozen=True, slots=True)
class ShotsGop:
    """A GOP of two shots or more, each coded as if it were a GOP. All are of one size and quality."""

    shots: tuple[EncodedGop, ...]

    @property
    def width(self) -> int:
        """Of the true picture, in pixels."""
        return self.shots[0].width

    @property
    def height(self) -> int:
        """Of the true picture, in pixels."""
        return self.shots[0].height

    @property
    def q(self) -> int:
        """Quality index, 0..63."""
        return self.shots[0].q

    @property
    def fine(self) -> int:
        """Quarters of an index above it."""
        return self.shots[0].fine

    @property
    def scale(self) -> int:
        """The place in `s2vc_model.picture_scale.SCALES` that pictures were coded at."""
        return self.shots[0].scale

    @property
    def frames(self) -> int:
        """Of all shots."""
        return sum(shot.frames for shot in self.shots)

    @property
    def bits_p(self) -> int:
        """Bits spent on inter frames."""
        return sum(shot.bits_p for shot in self.shots)

    @property
    def bits_i(self) -> int:
        """Bits spent on intra frames, headers and checksums."""
        return 8 * len(self.to_payload()) - self.bits_p

    def to_payload(self) -> bytes:
        """``varint shots``, then ``varint length | payload`` of each."""
        out = bytearray()
        put_varint(out, len(self.shots))
        for shot in self.shots:
            payload = shot.to_payload()
            put_varint(out, len(payload))
            out += payload
        return bytes(out)

    @classmethod
    def from_payload(cls, payload: bytes) -> ShotsGop:
        """Parse a payload.

        Raises:
            CorruptArchive: the bytes are not exactly two shots or more that belong together.
            BitstreamError: a shot's bytes are not a whole, plausible payload.
        """
        fields = Fields(payload, "GOP of shots")
        count = fields.varint()
        if not 2 <= count <= MAX_FRAMES:
            raise CorruptArchive(f"a GOP of {count} shots")
        # As many as there are bytes for: each takes some, or the fields end.
        shots = tuple(EncodedGop.from_payload(fields.take(fields.varint())) for _ in range(count))
        if fields.at != len(payload):
            raise CorruptArchive(f"{len(payload) - fields.at} bytes behind a GOP's last shot")
        gop = cls(shots)
        alike = {(shot.width, shot.height, shot.q, shot.fine, shot.scale) for shot in shots}
        if len(alike) > 1 or gop.frames > MAX_FRAMES:
            raise CorruptArchive("a GOP's shots differ in size or quality, or have too many frames")
        return gop
