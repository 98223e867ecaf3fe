"""What a job may be asked for instead of a quality index: a floor of quality, or a budget of bits.

`Floor` and `Budget` are what an operator says, as values with one spelling each; a `Goal` is what a worker holds one
GOP to: which q to probe next, given what was measured, and which to take. Pure: numbers in, numbers out; knows no
codec, no frames and no torch.

What is promised of a GOP whose target is met: the q taken was coded and measured and holds; and it holds by less than
about 3 %, or its neighbour on the side that one would rather have (q - 1 for a floor, q + 1 for a budget) was measured
not to, or there is none. Curves need not be monotone for that. No target is taken for met by interpolation, and nothing
outside the GOP has a say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from s2vc_ray.errors import ConfigError
from s2vc_ray.quality_search import Levels, chosen, next_level, next_part

STATISTICS = ("worst", "mean")
BUDGETS = ("bpp", "size", "ratio")
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "lpips": "lpips_alex",
        "msssim": "ms_ssim",
        "ms-ssim": "ms_ssim",
        "vmaf-neg": "vmaf_neg",
    }
)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{name}i": 1024**power for power, name in enumerate("KMGT", 1)}


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a metric becomes a margin that is about linear in q.

    Attributes:
        low, high: values that a floor may have, both ends excluded.
        higher: whether higher is better.
        perfect: the value of a perfect picture, to which ratios are taken; None: differences are.
        start, slope: where to look first, and how much the margin of an ordinary GOP grows with each q. They decide how
            many probes are needed and, on curves that are not monotone, which of several right answers is found.
        enough: the margin that is not worth another probe.
    """

    low: float
    high: float
    higher: bool
    perfect: float | None
    start: int
    slope: float
    enough: float

    def margin(self, value: float, floor: float) -> float:
        """How far ``value`` is on the right side of ``floor``: at or above 0 exactly when it is not worse."""
        if self.perfect is None:
            gap = abs(value - floor)
        elif value == self.perfect:
            gap = math.inf
        else:
            gap = abs(math.log(abs(self.perfect - floor) / abs(self.perfect - value)))
        holds = value >= floor if self.higher else value <= floor
        # Rounding must not make a miss of 1e-17 hold.
        return gap if holds else -max(gap, 1e-12)


_ENOUGH = 0.03
"""Of margins that are logarithms: 3 %."""
SCALES: Mapping[str, _Scale] = MappingProxyType(
    {
        "psnr": _Scale(0, 100, True, None, 36, 0.1, 0.15),
        "ms_ssim": _Scale(0, 1, True, 1.0, 36, 0.03, _ENOUGH),
        "lpips_alex": _Scale(0, 2, False, 0.0, 36, 0.02, _ENOUGH),
        "dists": _Scale(0, 2, False, 0.0, 36, 0.015, _ENOUGH),
        "vmaf": _Scale(0, 100, True, None, 36, 1.0, 1.0),
        "vmaf_neg": _Scale(0, 100, True, None, 36, 1.0, 1.0),
        "flicker": _Scale(0, 255, False, 0.0, 36, 0.01, _ENOUGH),
    }
)
"""Metrics that a floor may be of."""
_RATE_START, _RATE_SLOPE = 36, 0.05
"""Where a budget is looked for first; by how much the logarithm of an ordinary GOP's rate grows with each q."""


@dataclass(frozen=True, slots=True)
class Floor:
    """No GOP worse than this: ``metric`` over its measured frames, of the worst of them or their mean.

    Attributes:
        metric: a key of `SCALES`.
        statistic: ``worst`` or ``mean``.
        value: the least, or for metrics where lower is better the most, that is allowed.
        max_bpp: bits per true pixel that no GOP may take for it; None: as many as it needs.

    Raises:
        ConfigError: no such metric or statistic, or a value that it cannot have.
    """

    metric: str
    value: float
    statistic: str = "worst"
    max_bpp: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in SCALES:
            raise ConfigError(f"target {self.metric!r} is no metric: choose from {', '.join(SCALES)}")
        if self.statistic not in STATISTICS:
            raise ConfigError(f"target statistic {self.statistic!r}: choose from {', '.join(STATISTICS)}")
        scale = SCALES[self.metric]
        if not scale.low < self.value < scale.high:
            raise ConfigError(
                f"target {self.metric}={self.value:g}: give a value between {scale.low:g} and {scale.high:g}"
            )
        if self.max_bpp is not None and not 0 < self.max_bpp < math.inf:
            raise ConfigError(f"max_bpp is {self.max_bpp:g}: give bits per pixel above 0")

    @classmethod
    def parse(cls, text: str, max_bpp: float | None = None) -> Floor:
        """Read ``METRIC=VALUE`` or ``METRIC:STATISTIC=VALUE``, such as ``lpips=0.15`` and ``vmaf:mean=90``.

        Raises:
            ConfigError: it is neither, or no possible target.
        """
        left, equals, right = text.partition("=")
        metric, colon, statistic = left.strip().partition(":")
        try:
            value = float(right)
        except ValueError:
            value = math.nan
        if not equals or math.isnan(value):
            raise ConfigError(
                f"target {text!r} is not understood: give METRIC=VALUE for each GOP's worst measured frame, or "
                "METRIC:mean=VALUE for their mean, such as lpips=0.15 or vmaf:mean=90"
            )
        return cls(ALIASES.get(metric, metric), value, statistic if colon else "worst", max_bpp)

    def __str__(self) -> str:
        ceiling = "" if self.max_bpp is None else f" max-bpp={self.max_bpp!r}"
        return f"{self.metric}:{self.statistic}={self.value!r}{ceiling}"


@dataclass(frozen=True, slots=True)
class Budget:
    """As good as so many bits allow: ``bpp`` per true pixel of each GOP's payload, ``size`` in bytes of each video's
    archive, or ``ratio`` of the archive's size to its source's.

    Raises:
        ConfigError: no such kind, or not above 0.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in BUDGETS:
            raise ConfigError(f"a budget of {self.kind!r}: choose from {', '.join(BUDGETS)}")
        if not 0 < self.value < math.inf:
            raise ConfigError(f"target {self.kind} is {self.value:g}: give a number above 0")

    def archive_bytes(self, source_bytes: int) -> int | None:
        """What an archive may take of such a source; None where each GOP has a budget of its own."""
        if self.kind == "bpp":
            return None
        return int(self.value if self.kind == "size" else self.value * source_bytes)

    def __str__(self) -> str:
        return f"{self.kind}={int(self.value) if self.kind == 'size' else self.value!r}"


Target = Floor | Budget


def from_options(
    floor: str | None, max_bpp: float | None, bpp: float | None, size: str | None, ratio: float | None
) -> Target | None:
    """The one target that options name; None when they name none.

    Raises:
        ConfigError: they name several, or one that is not understood.
    """
    given = {
        "--target": floor,
        "--target-bpp": bpp,
        "--target-size": size,
        "--target-ratio": ratio,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ConfigError(
            f"{' and '.join(names)}: a GOP's q can be searched for one of them only; for a floor within a most of bits "
            "give --target with --max-bpp"
        )
    if max_bpp is not None and floor is None:
        raise ConfigError("--max-bpp limits what a --target may take; give --target-bpp for a budget alone")
    if floor is not None:
        return Floor.parse(floor, max_bpp)
    if size is not None:
        return Budget("size", parse_size(size))
    if bpp is not None:
        return Budget("bpp", bpp)
    return None if ratio is None else Budget("ratio", ratio)


def parse_size(text: str) -> int:
    """Bytes from ``700M``, ``1.5G``, ``200MiB`` or ``123456``: k, M, G, T by 1000, Ki, Mi, Gi, Ti by 1024.

    Raises:
        ConfigError: not such a size, or less than a byte.
    """
    plain = text.strip().removesuffix("B")
    unit = plain.lstrip("0123456789.")
    unit = "k" if unit == "K" else unit
    try:
        size = int(float(plain[: len(plain) - len(unit)]) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise ConfigError(
            f"size {text!r} is not understood: give bytes, or a number and a unit such as 700M or 1.5G"
        )
    return size


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured of a GOP at one q: payload bits per true pixel, and what its floor is about.

    ``value`` is None where a GOP has none: a metric of frame pairs has none for a single frame.
    """

    bpp: float
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What q of one GOP is searched for: a floor, a most of bits, or both.

    Attributes:
        floor: None: as good as ``max_bpp`` allows.
        max_bpp: payload bits per true pixel; None: no limit.
        top, lowest: the highest and the least q that may be taken.
        parts: into how many each q is divided at the end of the search, a power of two.
        start: the q to code at first; None: an ordinary one.
        settles: whether the best within ``max_bpp`` is looked for where the floor takes more.

    Raises:
        ValueError: neither is asked for.
    """

    floor: Floor | None
    max_bpp: float | None
    top: int = 63
    parts: int = 1
    lowest: int = 0
    start: int | None = None
    settles: bool = True

    def __post_init__(self) -> None:
        if self.floor is None and self.max_bpp is None:
            raise ValueError("a goal needs a floor or a most of bits")

    @property
    def value(self) -> float | None:
        """The number that is asked for first: the floor's, else the most bits per pixel."""
        return self.floor.value if self.floor else self.max_bpp

    def next_q(self, probes: Mapping[float, Probe]) -> float | None:
        """The q to code after those in ``probes``; None when enough is known."""
        whole = self._next_whole({q: probe for q, probe in probes.items() if q == int(q)})
        if whole is not None or not self.choice(probes)[1]:
            return whole
        if self.floor is None:
            return next_part(self._by_rate, self._spares(probes), self.parts)
        floors = {q: self._floor_margin(probe) for q, probe in probes.items() if self._spare(probe) >= 0}
        return next_part(self._by_quality, floors, self.parts)

    def _next_whole(self, probes: Mapping[float, Probe]) -> int | None:
        if self.floor is not None:
            floors = {q: self._floor_margin(probe) for q, probe in probes.items()}
            met = any(margin >= 0 and self._spare(probes[q]) >= 0 for q, margin in floors.items())
            # More bits are not allowed, and fewer are not enough.
            stuck = any(margin < 0 and self._spare(probes[q]) < 0 for q, margin in floors.items())
            q = next_level(self._by_quality, floors) if met or not stuck else None
            if met or q is not None:
                return q
        if self.max_bpp is None or (self.floor is not None and not self.settles):
            return None
        return next_level(self._by_rate, self._spares(probes))

    def choice(self, probes: Mapping[float, Probe]) -> tuple[float, bool]:
        """The q to take of those probed, and whether the goal is met there.

        Where it is not: with a floor, the best that was measured of what the budget allows; without, or where nothing
        is within the budget, what took the fewest bits.
        """
        within = {q: probe for q, probe in probes.items() if self._spare(probe) >= 0}
        if self.floor is None:
            found = chosen(self._by_rate, self._spares(probes))
            return (self._smallest(probes), False) if found is None else (found, True)
        margins = {q: self._floor_margin(probe) for q, probe in within.items()}
        found = chosen(self._by_quality, margins)
        if found is not None:
            return found, True
        if not within:
            return self._smallest(probes), False
        return max(margins, key=lambda q: (margins[q], q)), False

    @property
    def _by_quality(self) -> Levels:
        assert self.floor is not None
        scale = SCALES[self.floor.metric]
        start = scale.start if self.start is None else self.start
        return Levels(best=self.lowest, safe=self.top, start=start, slope=scale.slope, enough=scale.enough)

    @property
    def _by_rate(self) -> Levels:
        start = _RATE_START if self.start is None else self.start
        return Levels(best=self.top, safe=self.lowest, start=start, slope=_RATE_SLOPE, enough=_ENOUGH)

    def _floor_margin(self, probe: Probe) -> float:
        assert self.floor is not None
        if probe.value is None:
            return -math.inf
        return SCALES[self.floor.metric].margin(probe.value, self.floor.value)

    def _spare(self, probe: Probe) -> float:
        """By how much a probe is within the budget, in powers of e."""
        if self.max_bpp is None:
            return math.inf
        gap = abs(math.log(self.max_bpp / probe.bpp))
        return gap if probe.bpp <= self.max_bpp else -max(gap, 1e-12)

    def _spares(self, probes: Mapping[float, Probe]) -> dict[float, float]:
        return {q: self._spare(probe) for q, probe in probes.items()}

    @staticmethod
    def _smallest(probes: Mapping[float, Probe]) -> float:
        return min(probes, key=lambda q: (probes[q].bpp, -q))
