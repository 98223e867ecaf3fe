"""How a run of `bench_targets` is shown: tables on a terminal, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.bench_clips import find_clips
from jobs.bench_targets import VERDICTS, Curve, Fixed, Found, TargetOptions, TargetsResult, Total, run_targets
from s2vc_ray.errors import SourceError
from s2vc_ray.worker import CodecLoader

_SUMS = ("reachable", "within 5 %", "or as near as q allows", "missed", "unreachable")


def print_targets(
    clips: Sequence[Path],
    options: TargetOptions,
    model: str,
    device: str,
    load: CodecLoader,
    console: Console,
    *,
    as_json: bool,
) -> bool:
    """Measure and print; whether every GOP that can hold its floor was found to, and does."""
    paths = find_clips(clips)
    codec = load(model, device)
    result = run_targets(paths, codec, options, lambda line: print(line, file=sys.stderr, flush=True))
    if not result.found:
        raise SourceError(f"none of the clips could be measured: {dict(result.skipped)}")
    identity = {"weights_sha256": codec.weights_sha256, "device": str(codec.device)}
    if as_json:
        print(json.dumps(document(result, options, identity), indent=2))
    else:
        console.print(_by_clip(result.found))
        console.print(_summed(result.totals))
        console.print(_curves(result.curves))
        for name, meaning in VERDICTS.items():
            console.print(f"{name}: {meaning}")
        for name, reason in result.skipped.items():
            console.print(f"{name} was left out: {reason}")
    return not any(one.below or one.verdicts["missed"] or one.verdicts["loose"] for one in result.totals)


def document(result: TargetsResult, options: TargetOptions, identity: Mapping[str, str]) -> dict[str, object]:
    """All of it as JSON values."""
    return {
        **identity,
        "gop": options.gop,
        "metrics": str(options.config.metrics),
        "step": options.step,
        "fallback": options.fallback,
        "found": [{**asdict(one), "floor": str(one.floor)} for one in result.found],
        "totals": [
            {
                **asdict(one),
                "reachable": one.reachable,
                "near": one.rate("near"),
                "near_or_ladder": one.rate("near", "ladder"),
                "saved": _saved(one.bytes, one.searched),
                "saved_against_cheapest": _saved(one.bytes, one.cheapest),
            }
            for one in result.totals
        ],
        "curves": [asdict(one) for one in result.curves],
        "skipped": dict(result.skipped),
    }


def _by_clip(found: Sequence[Found]) -> Table:
    table = Table(title="Floors, clip by clip; bytes of payloads")
    for column in ("clip", "floor", *VERDICTS, "q", "bytes", "one q", "bytes", "cheapest q", "bytes"):
        table.add_column(column, justify="left" if column in ("clip", "floor") else "right")
    for one in found:
        verdicts = [outcome.verdict for outcome in one.outcomes]
        levels = (f"{'CRF ' * (o.codec == 'av1')}{o.level}" for o in one.outcomes)
        table.add_row(
            one.clip,
            f"{one.floor.metric} {one.floor.statistic} {one.floor.value:.4g}",
            *(str(verdicts.count(name)) for name in VERDICTS),
            " ".join(levels),
            str(one.bytes),
            *_fixed(one.searched),
            *_fixed(one.cheapest),
        )
    return table


def _summed(found: Sequence[Total]) -> Table:
    table = Table(title="All clips")
    columns = ("target", "GOPs", *_SUMS, "probes", "saved", "by the cheapest q", "by the least", "AV1")
    for column in (*columns, "below when decoded again", "noise", "below in all frames"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for one in found:
        table.add_row(
            one.target,
            str(one.gops),
            str(one.reachable),
            _percent(one.rate("near")),
            _percent(one.rate("near", "ladder")),
            str(one.verdicts["missed"]),
            str(one.verdicts["unreachable"]),
            f"{one.probes:.1f}",
            *(_percent(_saved(one.bytes, other)) for other in (one.searched, one.cheapest, one.least)),
            str(one.av1),
            str(one.below),
            f"{one.noise:.1g}",
            str(one.below_every),
        )
    return table


def _curves(found: Sequence[Curve]) -> Table:
    table = Table(title="From q to q + 1")
    for column in ("metric", "pairs", "worse", "better by more than 5 %", "median step"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for one in found:
        table.add_row(
            one.metric, str(one.pairs), _percent(one.worse), _percent(one.coarse), f"{5 * one.step:.1f} %"
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _saved(size: int, other: int) -> float | None:
    """Share of ``other`` bytes that ``size`` saves; negative where it takes more."""
    return 1 - size / other if other else None


def _fixed(one: Fixed | None) -> tuple[str, str]:
    return (str(one.q), str(one.bytes)) if one else ("-", "-")
