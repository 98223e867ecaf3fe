"""How long a store that fails is asked again, and how often. Pure policy: knows no store."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from s2vc_ray.errors import ConfigError

_VARIABLE = "S2VC_S3_PATIENCE"
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Exponential backoff with full jitter, until ``seconds`` have passed without success.

    Attributes:
        seconds: how long one call is tried again for a reason that may pass. An hour by default, so that a
            store may be restarted or moved under a running job.
        first, longest: upper bound of the first pause, which doubles with each try, and of any pause.
        connect_timeout, read_timeout: how long a connection may take to come about, and to deliver the next bytes.
    """

    seconds: float = _HOUR
    first: float = 0.25
    longest: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0

    @classmethod
    def from_environment(cls, seconds: float = _HOUR) -> Patience:
        """``seconds`` of patience, or ``S2VC_S3_PATIENCE`` of them where that is set.

        Raises:
            ConfigError: the variable is no number of seconds.
        """
        text = os.environ.get(_VARIABLE, "")
        if not text:
            return cls(seconds=seconds)
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"{_VARIABLE} is {text!r}: give a number of seconds, such as 3600")
        return cls(seconds=seconds)

    def pauses(self) -> Iterator[float]:
        """Seconds to pause before each further try; ends when patience does."""
        begun, paused, limit = time.monotonic(), 0.0, self.first
        while max(paused, time.monotonic() - begun) < self.seconds:
            pause = random.uniform(0, limit)  # noqa: S311
            paused += limit / 2
            limit = min(2 * limit, self.longest)
            yield pause
