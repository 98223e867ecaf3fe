"""What a job's workers are and how busy their GPUs are, as values that an executor hands to the driver.

GPUs are read through NVML, where there is one: a machine without it has no readings rather than readings of
nought. Knows nothing of Ray, executors or who shows the figures.
"""

from __future__ import annotations

import functools
import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from s2vc_ray.usage import Usage


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU as NVML sees it now; None is what the device does not tell (a MIG slice tells no utilisation).

    ``utilisation`` is the share of the last sample period (at most one second) in which a kernel ran, 0..1.
    Memory is in bytes.
    """

    host: str
    index: int
    name: str
    utilisation: float | None
    memory_used: int | None
    memory_total: int | None


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """The workers that a job holds now.

    Attributes:
        workers: those that have loaded their codec.
        lanes: batches that may be in their codecs at once: what an encoder that never idles would fill.
        gpus: GPUs that they claim together; a share of one counts as that share.
        usage: how all workers there have been so far have spent their time.
        readings: the latest of each GPU of their machines.
    """

    workers: int
    lanes: int
    gpus: float = 0.0
    usage: Usage = field(default_factory=Usage)
    readings: tuple[GpuReading, ...] = ()


def read_gpus() -> tuple[GpuReading, ...]:
    """The GPUs of this machine; empty where there is no NVIDIA driver or no ``nvidia-ml-py``."""
    nvml = _nvml()
    if nvml is None:
        return ()
    return tuple(_read(nvml, index) for index in range(_told(nvml, nvml.nvmlDeviceGetCount) or 0))


@functools.cache
def _nvml() -> Any:
    """NVML, initialised once for the life of the process; None where there is none."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        return None
    except nvml.NVMLError:
        return None
    return nvml


def _read(nvml: Any, index: int) -> GpuReading:
    handle = _told(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
    name = _told(nvml, nvml.nvmlDeviceGetName, handle) or "GPU"
    rates = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return GpuReading(
        host=socket.gethostname(),
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        utilisation=None if rates is None else rates.gpu / 100,
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
    )


def _told(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None
