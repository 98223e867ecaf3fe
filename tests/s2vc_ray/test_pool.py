"""GPU readings: what NVML says, and nothing where it says nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pynvml
import pytest

from s2vc_ray import pool
from s2vc_ray.pool import read_gpus


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """NVML is looked for once in a process."""
    pool._nvml.cache_clear()
    yield
    pool._nvml.cache_clear()


def fake_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, the second a MIG slice, behind NVML's own names; `pynvml` keeps its real error classes."""

    def utilisation(index: int) -> SimpleNamespace:
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=87, memory=40)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda index: f"GPU {index}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", utilisation)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=3 << 30, total=8 << 30)
    )


def test_readings_of_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch)
    whole, slice_ = read_gpus()
    assert (whole.index, whole.name, whole.utilisation) == (0, "GPU 0", 0.87)
    assert (whole.memory_used, whole.memory_total) == (3 << 30, 8 << 30)
    assert whole.host
    assert (slice_.index, slice_.utilisation, slice_.memory_used) == (1, None, 3 << 30)


def test_no_driver_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert read_gpus() == ()


def test_no_package_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpus() == ()


def test_a_driver_that_goes_away_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch)

    def lost() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lost)
    assert read_gpus() == ()
