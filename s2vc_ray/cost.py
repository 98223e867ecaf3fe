"""What a job cost and what it saves: arithmetic on prices that somebody gives, in whatever currency that is.

Paid for is what a job held, busy or not: its GPUs from the moment their workers were up, or its workers where they
have no GPU. Saved is the storage of the sources less that of the archives, which is true only where the archives
stand in for copies that would otherwise be kept: this job never deletes a source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from s2vc_ray.errors import ConfigError

_HOUR = 3600.0
_TB = 1e12


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost, validated on construction; None where nobody said.

    ``per_hour`` is of one GPU, or of one worker where workers have none; ``per_tb_month`` is of 10^12 bytes stored.
    """

    per_hour: float | None = None
    per_tb_month: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("per hour", self.per_hour), ("per TB and month", self.per_tb_month)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"the price {name} is {value}: give a number that is not negative")


@dataclass(frozen=True, slots=True)
class Cost:
    """A job in the currency of its `Prices`; None is what cannot be known.

    Attributes:
        unit: what is paid by the hour, ``gpu`` or ``worker``, and ``hours`` how much of it the job held.
        total: of the job. ``per_video_hour``: of an hour of video coded.
        saved_per_month: for storing archives instead of sources; negative when archives are larger.
        months_to_repay: ``total`` over ``saved_per_month``.
    """

    unit: str | None = None
    hours: float | None = None
    total: float | None = None
    per_video_hour: float | None = None
    saved_per_month: float | None = None
    months_to_repay: float | None = None


def cost_of(
    prices: Prices,
    *,
    worker_seconds: float | None,
    gpu_seconds: float | None,
    video_seconds: float,
    source_bytes: int,
    archive_bytes: int,
) -> Cost:
    """Price what a job held (seconds of workers and of GPUs; None when not known) and what it made."""
    unit = None if worker_seconds is None else "gpu" if gpu_seconds else "worker"
    held = gpu_seconds if unit == "gpu" else worker_seconds
    total = None if held is None or prices.per_hour is None else held / _HOUR * prices.per_hour
    saved = None
    if prices.per_tb_month is not None and source_bytes:
        saved = (source_bytes - archive_bytes) / _TB * prices.per_tb_month
    return Cost(
        unit=unit,
        hours=None if held is None else held / _HOUR,
        total=total,
        per_video_hour=total / (video_seconds / _HOUR) if total is not None and video_seconds else None,
        saved_per_month=saved,
        months_to_repay=total / saved if total is not None and saved is not None and saved > 0 else None,
    )
