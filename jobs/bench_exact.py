"""Whether streams decode to the same symbols in every way of computing that a machine offers.

    encode once ─ decode by every combination: batch x lockstep or side by side x threads x kernels x precision x device
    encode by every combination ─ decode once

Every frame carries a checksum over all integers of its priors, means included, so decoding to the end is the proof.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from jobs.bench_clips import Pixels, synthetic_clip
from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec
from s2vc_model.errors import BitstreamError, SymbolMismatch
from s2vc_model.weight_files import LoadedWeights, load_weights
from s2vc_ray.errors import ConfigError

SIZES = ((32, 32), (64, 32), (50, 40))
QUALITIES = (0, 13, 26, 39, 51, 63)
Load = Callable[[str], LoadedWeights]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ExactOptions:
    """``gops`` GOPs of 1 to 3 frames; every tenth, or one of each size, is also encoded by every combination."""

    model: str = "small"
    gops: int = 204

    def __post_init__(self) -> None:
        if self.gops < len(SIZES):
            raise ConfigError(f"gops must be at least {len(SIZES)}, one of each size")


@dataclass(frozen=True, slots=True)
class Way:
    """One way of computing."""

    device: str
    lockstep: bool
    batch: int
    threads: int
    mkldnn: bool
    half: bool


PLAIN = Way("cpu", lockstep=True, batch=1, threads=1, mkldnn=True, half=False)
"""One GOP at a time, one thread, float32."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``wrong`` of ``decoded`` GOPs gave other symbols; the plain decoder failed on ``unread`` of ``encoded``."""

    way: Way
    decoded: int
    wrong: int
    encoded: int
    unread: int
    seconds: float


def ways() -> list[Way]:
    """All combinations here. Side by side a GOP has one thread."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    product = itertools.product(devices, (True, False), (1, 2, 3), (1, 2), (True, False), (False, True))
    every = itertools.starmap(Way, product)
    return [w for w in every if w.lockstep or (w.device == "cpu" and w.threads == 1)]


def run_exact(options: ExactOptions, load: Load = load_weights) -> Iterator[Outcome]:
    """Try every way, one after the other.

    Raises:
        ModelError: no such model.
    """
    kinds = dict.fromkeys((w.device, w.lockstep, w.half) for w in (PLAIN, *ways()))
    codecs = {kind: S2vcCodec(load(options.model), torch.device(kind[0]), *kind[1:]) for kind in kinds}
    plain = codecs[PLAIN.device, PLAIN.lockstep, PLAIN.half]
    clips = _clips(options.gops)
    with computing(PLAIN):
        streams = [plain.encode_gops([clip], _quality(n))[0] for n, clip in enumerate(clips)]
    for way in ways():
        begun = time.perf_counter()
        codec = codecs[way.device, way.lockstep, way.half]
        with computing(way):
            parts = _batches(streams, way.batch, lambda gop: (gop.height, gop.width))
            wrong = sum(_wrong(codec, part) for part in parts)
            sources = _batches(
                clips[:: min(10, len(clips) // len(SIZES))], way.batch, lambda clip: clip.shape[1:]
            )
            again = [gop for n, part in enumerate(sources) for gop in codec.encode_gops(part, _quality(n))]
        with computing(PLAIN):
            unread = sum(_wrong(plain, [gop]) for gop in again)
        yield Outcome(way, len(streams), wrong, len(again), unread, time.perf_counter() - begun)


@contextmanager
def computing(way: Way) -> Iterator[None]:
    """Torch's own settings of ``way`` hold inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(way.threads)
    try:
        with torch.backends.mkldnn.flags(enabled=way.mkldnn):
            yield
    finally:
        torch.set_num_threads(before)


def _wrong(codec: S2vcCodec, gops: Sequence[EncodedGop]) -> int:
    try:
        codec.decode_gops([EncodedGop.from_payload(gop.to_payload()) for gop in gops])
    except (SymbolMismatch, BitstreamError):
        return len(gops)
    return 0


def _clips(count: int) -> list[Pixels]:
    """Clips of each size in one stretch, with 1, 2 and 3 frames in turn, all different."""
    out = []
    for n in range(count):
        width, height = SIZES[n * len(SIZES) // count]
        frames = synthetic_clip(width, height, 3).frames[: n % 3 + 1]
        out.append(np.roll(frames + np.uint8(n), n, axis=2))
    return out


def _quality(n: int) -> int:
    return QUALITIES[n % len(QUALITIES)]


def _batches(items: Sequence[_Item], size: int, shape: Callable[[_Item], object]) -> Iterator[list[_Item]]:
    """Neighbours of one frame size, ``size`` at most."""
    for _, same in itertools.groupby(items, shape):
        group = list(same)
        yield from (group[at : at + size] for at in range(0, len(group), size))


def print_exact(options: ExactOptions, console: Console, *, as_json: bool, load: Load = load_weights) -> bool:
    """Run and print; whether all was the same."""
    outcomes = []
    for outcome in run_exact(options, load):
        outcomes.append(outcome)
        print(f"{len(outcomes)} of {len(ways())} ways: {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    clean = not any(o.wrong or o.unread for o in outcomes)
    if as_json:
        print(json.dumps({"clean": clean, "outcomes": [asdict(o) for o in outcomes]}, indent=2))
        return clean
    table = Table(title=f"{options.model}: {options.gops} GOPs, {len(outcomes)} ways of computing")
    for column in (
        "device",
        "lockstep",
        "GOPs at once",
        "threads",
        "oneDNN",
        "float",
        "wrong",
        "unread",
        "s",
    ):
        table.add_column(column, justify="right")
    for o in outcomes:
        w = o.way
        chosen = (
            w.device,
            "yes" if w.lockstep else "no",
            str(w.batch),
            str(w.threads),
            "on" if w.mkldnn else "off",
        )
        found = (f"{o.wrong}/{o.decoded}", f"{o.unread}/{o.encoded}", f"{o.seconds:.1f}")
        table.add_row(*chosen, "bf16" if w.half else "fp32", *found)
    console.print(table)
    console.print("all the same" if clean else "NOT the same everywhere")
    return clean
