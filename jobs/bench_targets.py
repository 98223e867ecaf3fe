"""Whether targets are met, how closely, and what they save against one quality index for a whole clip.

    clip ─ GOPs ─┬─ coded at every q of a ladder ──► what is within reach; the cheapest q that holds everywhere
                 └─ searched for each floor by the job's own `seek_best` and `fall_back` ──► verdicts, bytes, probes

Every coding is a worker's own (`jobs.bench_gops`), and shared by all floors. Owns verdicts and sums; how they look is
`bench_targets_report`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

from jobs.bench_clips import Clip, ClipPolicy, load_clip
from jobs.bench_gops import ClipCodings, level_of
from s2vc_model.config import QUARTERS
from s2vc_model.metrics import METRICS, MetricResult
from s2vc_ray.av1_gop import MAX_CRF
from s2vc_ray.config import MAX_QUALITY, JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError, SourceError
from s2vc_ray.fallback_search import fall_back
from s2vc_ray.gop_decoder import AV1
from s2vc_ray.lanes import CodedGop, LoadedCodec
from s2vc_ray.quality_search import Levels, chosen, next_level, search
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import seek_best
from s2vc_ray.targets import SCALES, Floor

LOWEST = 8
"""The ladder goes from here to the highest q; lower ones are coded where a floor needs them."""
NEAR = 5 / 3
"""A GOP is near its floor when it holds by no more than this many times what ends a search: 5 % where that is 3 %."""
VERDICTS = {
    "near": "holds by at most 5 % (psnr: 0.25 dB)",
    "ladder": "holds by more, and the level beside it was measured to miss, or there is none",
    "loose": "holds by more than it need",
    "missed": "does not hold, though a q does",
    "unreachable": "does not hold, nor does any q that was coded",
}


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What one run measures.

    Attributes:
        floors: the same for all clips.
        metrics: those of which each clip has floors of its own, from its own range. ``each``: how many.
        policy: which pictures of a clip.
        gop: frames of a GOP.
        sample: frames of each GOP that are measured; None: all.
        step: of the ladder.
        fallback: whether AV1 may hold a floor; see `JobConfig`.
        folder: keeps codings for other runs; None keeps none.
    """

    floors: tuple[Floor, ...] = ()
    metrics: tuple[str, ...] = ("lpips_alex", "ms_ssim", "psnr")
    each: int = 3
    policy: ClipPolicy = field(default_factory=lambda: ClipPolicy(frames=64, max_lines=144))
    gop: int = 32
    sample: int | None = 4
    step: int = 1
    fallback: str = "none"
    folder: Path | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.metrics if name not in SCALES]:
            raise ConfigError(f"no floor can be of {unknown[0]!r}: choose from {', '.join(SCALES)}")
        if not self.metrics and not self.floors:
            raise ConfigError("name a target, or a metric to make targets of")
        if self.each < 1:
            raise ConfigError(f"{self.each} floors of each metric: give 1 or more")
        if not 1 <= self.step <= MAX_QUALITY:
            raise ConfigError(f"step is {self.step}: give 1..{MAX_QUALITY}")

    @property
    def config(self) -> JobConfig:
        """The job that is asked for, without a target."""
        names = dict.fromkeys([*self.metrics, *(floor.metric for floor in self.floors)])
        return JobConfig(
            gop=self.gop,
            quality=MAX_QUALITY,
            metrics=MetricPolicy(self.sample, tuple(names)),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One GOP held to one floor.

    Attributes:
        level: the q taken, quarters and all, or the CRF of ``codec`` AV1.
        verdict: a key of `VERDICTS`.
        value: what the floor is about, as the search measured it.
        again: the same of the payload's bytes, decoded and measured once more; whether that ``holds_again``.
        every: the same of all frames of the GOP; whether that ``holds_every``.
        least: bytes of the smallest coding by S2VC that holds; None where none does.
    """

    gop: int
    codec: str
    level: float
    verdict: str
    bytes: int
    probes: int
    value: float
    again: float
    holds_again: bool
    every: float
    holds_every: bool
    least: int | None

    @property
    def met(self) -> bool:
        """Whether the search found a level that holds."""
        return self.verdict in ("near", "ladder", "loose")


@dataclass(frozen=True, slots=True)
class Fixed:
    """One q for a whole clip at which every GOP holds a floor, and what they take together."""

    q: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """One clip held to one floor, which is its ``own`` where it was made from its range.

    Attributes:
        cheapest: of all q that hold. ``searched``: what the job's search finds for the clip as if it were one GOP. None
            where there is none.
    """

    clip: str
    floor: Floor
    own: bool
    outcomes: tuple[Outcome, ...]
    cheapest: Fixed | None
    searched: Fixed | None

    @property
    def bytes(self) -> int:
        """Of the payloads."""
        return sum(one.bytes for one in self.outcomes)

    @property
    def compared(self) -> bool:
        """Whether every way holds the floor in every GOP, so that their bytes can be compared."""
        return None not in (self.cheapest, self.searched) and all(one.met for one in self.outcomes)


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over clips: of floors of their own of one metric, or of one floor that was given.

    Attributes:
        verdicts: by name, how many GOPs.
        probes: codings of a GOP, on average over all.
        noise: largest difference between two measurements of the same bytes, in the metric's unit.
        below: of the GOPs that hold, how many did not when they were decoded and measured once more.
        below_every: how many do not when all their frames are measured.
        av1: GOPs that are stored as AV1.
        bytes, cheapest, searched, least: of the clips that can be compared (`Found.compared`); of one q for a clip as
            in `Found`, and of the smallest codings that hold.
    """

    target: str
    gops: int
    verdicts: Mapping[str, int]
    probes: float
    noise: float
    below: int
    below_every: int
    av1: int
    bytes: int
    cheapest: int
    searched: int
    least: int

    @property
    def reachable(self) -> int:
        """GOPs for which some level holds."""
        return self.gops - self.verdicts["unreachable"]

    def rate(self, *verdicts: str) -> float | None:
        """Share of the reachable GOPs with these verdicts, 0..1."""
        return sum(self.verdicts[one] for one in verdicts) / self.reachable if self.reachable else None


@dataclass(frozen=True, slots=True)
class Curve:
    """How a metric goes over q, by all pairs of neighbours q, q + 1 that were coded.

    Attributes:
        worse: share of the pairs of which the higher q is worse.
        coarse: share of those of which it is better by more than what is near.
        step: median of by how much it is better where it is; 1 is what is near.
    """

    metric: str
    pairs: int
    worse: float
    coarse: float
    step: float


@dataclass(frozen=True, slots=True)
class TargetsResult:
    """All of a run; ``skipped`` maps clips that could not be read to the reason."""

    found: tuple[Found, ...]
    totals: tuple[Total, ...]
    curves: tuple[Curve, ...]
    skipped: Mapping[str, str]


def run_targets(
    paths: Sequence[Path],
    codec: LoadedCodec,
    options: TargetOptions,
    report: Callable[[str], None] = lambda line: None,
) -> TargetsResult:
    """Hold every clip to every floor.

    Raises:
        ModelError: the codec failed, or decoded something else than it encoded.
    """
    found: list[Found] = []
    gains: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            clip = load_clip(path, options.policy)
            codings = ClipCodings(clip, codec, options.config, options.folder)
            for q in range(MAX_QUALITY, LOWEST - 1, -options.step):
                codings.code([(number, q) for number in range(len(codings.gops))])
                report(f"{clip.name}: {len(codings.gops)} GOPs coded at q {q}")
            found += list(_held(clip, codings, options))
        except SourceError as error:
            skipped[path.name] = str(error)
            continue
        for name in options.config.metrics.names:
            gains.setdefault(name, []).extend(_gains(name, codings))
    curves = tuple(_curve(name, own) for name, own in gains.items() if own)
    return TargetsResult(tuple(found), tuple(totals(found)), curves, skipped)


def _held(clip: Clip, codings: ClipCodings, options: TargetOptions) -> Iterator[Found]:
    gops, own = _gops(codings), []
    ladder = list(gops[0])
    for name in options.metrics:
        worst = min if METRICS[name].higher_is_better else max
        own += own_floors(
            name, [worst(_metric(name, gop[q]).worst for gop in gops) for q in ladder], options.each
        )
    for floor in (*own, *options.floors):
        outcomes = tuple(_outcomes(floor, codings, options))
        yield Found(clip.name, floor, floor in own, outcomes, *fixed(floor, codings))


def own_floors(metric: str, reached: Sequence[float], each: int) -> list[Floor]:
    """So many floors at even quantiles of what fixed q reach on a clip, by the worst frame: each is held by some."""
    return [
        Floor(metric, float(value)) for value in np.quantile(reached, np.arange(1, each + 1) / (each + 1))
    ]


def fixed(floor: Floor, codings: ClipCodings) -> tuple[Fixed | None, Fixed | None]:
    """The q for the whole clip that holds in the fewest bytes, and the one that the job's search finds.

    The first is of those that are coded already, and of what the search would add to these.
    """
    every = range(len(codings.gops))
    scale = SCALES[floor.metric]
    levels = Levels(0, MAX_QUALITY, scale.start, scale.slope, scale.enough)

    def margin(q: float) -> float:
        return min(_margin(floor, one) for one in codings.code([(number, q) for number in every]))

    def taken(q: float | None) -> Fixed | None:
        return None if q is None else Fixed(int(q), sum(len(gop[q].payload) for gop in _gops(codings)))

    searched = chosen(levels, search(levels, margin))
    coded = set.intersection(*(set(gop) for gop in _gops(codings)))
    margins = {q: margin(q) for q in coded if q == int(q)}
    while (q := next_level(replace(levels, enough=0.0), margins)) is not None:
        margins[q] = margin(q)
    held = [one for q, own in margins.items() if own >= 0 and (one := taken(q))]
    return min(held, key=lambda one: one.bytes, default=None), taken(searched)


def _outcomes(floor: Floor, codings: ClipCodings, options: TargetOptions) -> Iterator[Outcome]:
    """The job's own search of each GOP, and what became of it."""
    config = replace(options.config, target=floor, fallback=options.fallback)
    goal = config.goal()
    assert goal is not None
    goals = [goal] * len(codings.gops)
    found = fall_back(config.fallback, seek_best(goals, codings.ways()), goals, codings.code_av1)
    for number, taken in enumerate(found):
        measured = codings.again(number, taken)
        again, every = (side[floor.metric] for side in (measured.sampled, measured.every))
        held = [one for one in codings.all_known(number) if _margin(floor, one) >= 0]
        yield Outcome(
            gop=number,
            codec=taken.codec,
            level=level_of(taken),
            verdict=_verdict(floor, number, taken, codings, reachable=bool(held)),
            bytes=len(taken.payload),
            probes=taken.probes,
            value=_value(floor, _metric(floor.metric, taken)),
            again=_value(floor, again),
            holds_again=_against(floor, again) >= 0,
            every=_value(floor, every),
            holds_every=_against(floor, every) >= 0,
            least=min((len(one.payload) for one in held), default=None),
        )


def _verdict(floor: Floor, number: int, taken: CodedGop, codings: ClipCodings, *, reachable: bool) -> str:
    if not taken.target_met:
        return "missed" if reachable else "unreachable"
    if _margin(floor, taken) <= NEAR * SCALES[floor.metric].enough:
        return "near"
    level = level_of(taken)
    beside: Sequence[CodedGop]
    if taken.codec == AV1:
        beside = codings.code_av1([(number, level + 1)]) if level < MAX_CRF else []
    else:
        way = codings.way_of(taken)
        beside = way.code([(number, level - 1 / QUARTERS)]) if level > way.lowest else []
    return "loose" if any(_margin(floor, one) >= 0 for one in beside) else "ladder"


def totals(found: Sequence[Found]) -> Iterator[Total]:
    """Sums over clips, in the order of what was found."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        name = f"{one.floor.metric}, own floors" if one.own else str(one.floor)
        groups.setdefault(name, []).append(one)
    for name, group in groups.items():
        outcomes = [outcome for one in group for outcome in one.outcomes]
        met = [outcome for outcome in outcomes if outcome.met]
        compared = [one for one in group if one.compared]
        yield Total(
            target=name,
            gops=len(outcomes),
            verdicts={one: sum(outcome.verdict == one for outcome in outcomes) for one in VERDICTS},
            probes=sum(outcome.probes for outcome in outcomes) / len(outcomes),
            noise=max(abs(outcome.value - outcome.again) for outcome in outcomes),
            below=sum(not outcome.holds_again for outcome in met),
            below_every=sum(not outcome.holds_every for outcome in met),
            av1=sum(outcome.codec == AV1 for outcome in outcomes),
            bytes=sum(one.bytes for one in compared),
            cheapest=sum(one.cheapest.bytes for one in compared if one.cheapest),
            searched=sum(one.searched.bytes for one in compared if one.searched),
            least=sum(outcome.least or outcome.bytes for one in compared for outcome in one.outcomes),
        )


def _gains(metric: str, codings: ClipCodings) -> Iterator[float]:
    """By how much each q + 1 is better than q, in parts of what is near."""
    scale = SCALES[metric]
    for gop in _gops(codings):
        for q in sorted(gop):
            if q == int(q) and q + 1 in gop:
                lower, higher = (_metric(metric, gop[at]).worst for at in (q, q + 1))
                yield scale.margin(higher, lower) / (NEAR * scale.enough)


def _curve(metric: str, gains: Sequence[float]) -> Curve:
    better = [gain for gain in gains if gain > 0]
    return Curve(
        metric=metric,
        pairs=len(gains),
        worse=sum(gain < 0 for gain in gains) / len(gains),
        coarse=sum(gain > 1 for gain in gains) / len(gains),
        step=median(better) if better else 0.0,
    )


def _gops(codings: ClipCodings) -> list[dict[float, CodedGop]]:
    return [codings.known(number) for number in range(len(codings.gops))]


def _margin(floor: Floor, coded: CodedGop) -> float:
    return _against(floor, _metric(floor.metric, coded))


def _against(floor: Floor, scored: Metric | MetricResult) -> float:
    """How far a measurement is on the right side of a floor."""
    return SCALES[floor.metric].margin(_value(floor, scored), floor.value)


def _value(floor: Floor, scored: Metric | MetricResult) -> float:
    return scored.worst if floor.statistic == "worst" else scored.mean


def _metric(name: str, coded: CodedGop) -> Metric:
    """Raises SourceError where a GOP is too short or too small for the metric."""
    for metric in coded.metrics:
        if metric.name == name:
            return metric
    gop = coded.encoded
    raise SourceError(f"{gop.frames} frames of {gop.width}x{gop.height} pixels have no {name}")
