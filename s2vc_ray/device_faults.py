"""Telling a device's troubles by what torch raises: memory that ran out, and a device that is lost.

By class name and text, because the workers' modules import no torch, and because CUDA's libraries say the same
thing in several ways.
"""

from __future__ import annotations

import gc
import sys

from s2vc_ray.errors import S2vcError

_MEMORY = (
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "not enough memory",
    "failed to allocate",
)
_LOST = (
    "cuda error",
    "cuda driver error",
    "cudnn error",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cublas_status_not_initialized",
    "cufft error",
    "device-side assert",
)
_INSTALLATION = ("no kernel image", "invalid device ordinal", "driver version is insufficient")
"""CUDA errors of a wrong installation: a new process would meet them again, and the context survives them."""


class DeviceLost(S2vcError):
    """A CUDA error after which every further call of this process fails: it must end and be replaced."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory, of the device or the host, did not suffice for what was asked."""
    if isinstance(error, MemoryError) or _named(error, "OutOfMemoryError"):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether ``error`` is one of those that a CUDA context does not survive."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    text = str(error).lower()
    if any(cause in text for cause in _INSTALLATION):
        return False
    return _named(error, "AcceleratorError") or any(sign in text for sign in _LOST)


def free_memory() -> None:
    """Give back what torch keeps for later, so that a smaller request finds room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _named(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)
