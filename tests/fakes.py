"""A codec of a few lines of numpy behind the `GopCodec` seam: the whole job runs without torch or weights.

It stores every eighth pixel of each frame with zlib. `load_fake` is given to the job in place of the real
loader. The model's name says how it misbehaves: ``fake``; ``fake:fail=7`` refuses GOPs of 7 frames;
``fake:die=7:PATH`` kills its process on a GOP of 7 frames unless PATH exists, which it creates first;
``fake:crash=7`` always kills its process on them; ``fake:wait=7:PATH`` waits until PATH exists;
``fake:hang=7:PATH`` never comes back unless PATH exists, which it creates first; ``fake:cuda=7:PATH`` loses its device
for good in the same way; ``fake:room=2`` has memory for two GOPs at once, ``fake:fits=2`` says so;
``fake:curve`` keeps levels of grey the more finely, and takes the more bytes, the higher q is; several are joined by
``+``. ``fake:other`` has other weights.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import BitstreamError, WeightsError
from s2vc_model.picture_scale import Size
from s2vc_ray.staging import StagedGop

STEP = 8
Frames = npt.NDArray[np.uint8]


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class FakeCodec:
    """Keeps every eighth pixel; decoding repeats it."""

    model_id = "fake"
    reads: Sequence[str] = ()
    preset = "fake"
    parallel = 2

    def __init__(self, model: str, device: str) -> None:
        name, _, behaviours = model.partition(":")
        if name != "fake":
            raise WeightsError(f"no model {model!r}")
        self.device = "cpu" if device == "auto" else device
        self.weights_sha256 = ("ff" if behaviours in ("other", "later") else "fa") * 32
        if behaviours == "later":
            self.model_id, self.reads = "fake-later", ("fa" * 32,)
        self.calls: list[int] = []
        self.qualities: list[float] = []
        self._curve = "curve" in behaviours.split("+")
        self._lost = False
        self._room = 0
        self._fits = sys.maxsize
        self._misbehaves: dict[int, tuple[str, str]] = {}
        for behaviour in behaviours.split("+"):
            kind, _, argument = behaviour.partition("=")
            frames, _, marker = argument.partition(":")
            if kind == "room":
                self._room = int(frames)
            elif kind == "fits":
                self._fits = int(frames)
            else:
                self._misbehaves[int(frames or -1)] = (kind, marker)

    def fitting(self, stage: str, height: int, width: int) -> int:
        return self._fits

    def sizes(self, height: int, width: int) -> Sequence[Size]:
        return (Size(),)

    def encode_gops(
        self, gops: Sequence[Frames], q: float | Sequence[float], larger: bool | None = None
    ) -> list[EncodedGop]:
        self.calls.append(len(gops))
        qualities = [q] * len(gops) if isinstance(q, int | float) else list(q)
        self.qualities += qualities
        if self._room and len(gops) > self._room:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
        for frames in gops:
            self._misbehave(*self._misbehaves.get(len(frames), ("", "")))
        return [self._encode(frames, own) for frames, own in zip(gops, qualities, strict=True)]

    def decode_gops(self, gops: Sequence[EncodedGop]) -> list[Frames]:
        return [self._decode(gop) for gop in gops]

    def iter_decode(self, gops: Sequence[EncodedGop]) -> Iterator[dict[int, Frames]]:
        decoded = [self._decode(gop) for gop in gops]
        for at in range(max(map(len, decoded), default=0)):
            yield {number: gop[at] for number, gop in enumerate(decoded) if at < len(gop)}

    def check_symbols(self, gops: Sequence[EncodedGop]) -> None:
        for gop in gops:
            self._decode(gop)

    def _misbehave(self, kind: str, marker: str) -> None:
        if kind == "fail":
            raise BitstreamError("the fake codec refuses GOPs of this length")
        if kind == "crash":
            os._exit(1)
        if kind == "die" and _first(marker):
            os._exit(1)
        if kind == "cuda" and _first(marker):
            self._lost = True
        if self._lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        while kind == "wait" and not Path(marker).exists():
            time.sleep(0.02)
        if kind == "hang" and _first(marker):
            time.sleep(3600)

    def _encode(self, frames: Frames, q: float) -> EncodedGop:
        count, height, width, _ = frames.shape
        kept = np.ascontiguousarray(frames[:, ::STEP, ::STEP])
        if self._curve:
            kept = (kept // (64 - q) * (64 - q)).astype(np.uint8)
        intra, inter = (
            zlib.compress(kept[0].tobytes()),
            zlib.compress(kept[1:].tobytes()) if count > 1 else b"",
        )
        crc = zlib.crc32(kept.tobytes())
        whole, fine = divmod(round(4 * q), 4)
        return EncodedGop(width, height, count, whole, intra, inter, bytes(count), crc, fine=fine)

    @staticmethod
    def _decode(gop: EncodedGop) -> Frames:
        raw = zlib.decompress(gop.intra) + (zlib.decompress(gop.inter) if gop.inter else b"")
        if zlib.crc32(raw) != gop.symbol_crc:
            raise BitstreamError("symbols differ")
        kept = np.frombuffer(raw, np.uint8).reshape(
            gop.frames, -(-gop.height // STEP), -(-gop.width // STEP), 3
        )
        return kept.repeat(STEP, axis=1).repeat(STEP, axis=2)[:, : gop.height, : gop.width]


def _first(marker: str) -> bool:
    """Whether nobody was here before."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def load_fake(model: str, device: str, enlarge: bool = True, refine: int = 0) -> FakeCodec:
    """Stands in for `s2vc_ray.worker.load_s2vc`. A fake has only one way to code."""
    return FakeCodec(model, device)


def staged_gop(
    index: int, *, pts: Sequence[int] = (0, 1, 2, 3), payload: bytes = b"payload", key: str = ""
) -> StagedGop:
    """A plausible staged GOP that nothing has staged."""
    return StagedGop(
        video_id="v",
        index=index,
        key=key,
        pts=tuple(pts),
        frames_expected=len(pts),
        frames_corrupt=0,
        width=32,
        height=32,
        q=32,
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        bits_i=8 * len(payload),
        bits_p=0,
        metrics=(),
        metric_policy="none",
        verified="no",
        model_id="fake",
        weights_sha256="fa" * 32,
        device="cpu",
        torch="",
        source_seconds=0.0,
        encode_seconds=0.0,
        decode_seconds=0.0,
        attempts=1,
    )
