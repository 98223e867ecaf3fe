"""Where the codec's time goes, what it computes, and what the machine could do.

All of it is looked at from outside, so that it costs nothing when nobody looks.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from s2vc_model import codec as codec_module
from s2vc_model.codec import S2vcCodec
from s2vc_model.entropy import StreamReader, StreamWriter

_WRAPPED: dict[str, list[tuple[Any, str]]] = {
    "upload": [(S2vcCodec, "_upload")],
    "download": [(S2vcCodec, "_download")],
    "prior": [(codec_module, "encode_frame"), (codec_module, "decode_frame")],
    "entropy": [(StreamReader, "take"), (StreamWriter, "put"), (StreamWriter, "finish")],
}
STAGES = ("upload", "network", "prior", "entropy", "download")


class Stages:
    """Seconds by stage, over all threads: what is called inside a stage counts as its own stage only."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._device = device
        self._lock = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what happens inside. On a GPU every stage waits for its kernels, which costs some overlap."""
        originals = []
        try:
            for stage, places in _WRAPPED.items():
                for owner, name in places:
                    original = getattr(owner, name)
                    originals.append((owner, name, original))
                    setattr(owner, name, self._timed(stage, original))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = self._now()
            outer, self._local.inside = getattr(self._local, "inside", 0.0), 0.0
            try:
                return function(*args, **kwargs)
            finally:
                took = self._now() - begun
                with self._lock:
                    self.seconds[stage] += took - self._local.inside
                self._local.inside = outer + took

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def stage_seconds(codec: S2vcCodec, work: Callable[[], object]) -> dict[str, float]:
    """Seconds of ``work`` on one GOP by stage; the networks are what the others leave."""
    stages = Stages(codec.device)
    begun = time.perf_counter()
    with stages.watching():
        work()
    whole = time.perf_counter() - begun
    return {**stages.seconds, "network": whole - sum(stages.seconds.values())}


def gflop(work: Callable[[], object]) -> float:
    """10^9 floating-point operations of ``work``; a multiplication and an addition are two. In this thread only."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e9


def matmul_gflops(device: torch.device, seconds: float = 1.0) -> float:
    """10^9 operations a second of a large matrix product, in the codec's precision, by all threads."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return float(2 * side**3 / best / 1e9)


def joules(device: torch.device) -> float | None:
    """Energy that a GPU has used since its driver was loaded; None where nobody counts."""
    if device.type != "cuda":
        return None
    # As in `s2vc_ray.pool`: the module has no types.
    pynvml = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None
