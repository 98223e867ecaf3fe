"""``s2vc reencode``: parses, calls `s2vc_ray.reencode`, prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from s2vc_ray.cli_options import (
    AllowLarger,
    Attempts,
    Destination,
    Device,
    ExecutorName,
    Faces,
    Json,
    Lockstep,
    MeasuredFrames,
    MetricNames,
    Model,
    PolicyFile,
    RayAddress,
    Threads,
    print_json,
)
from s2vc_ray.cli_policy import policy_of, to_measure
from s2vc_ray.config import MAX_QUALITY, JobConfig, MetricPolicy, parse_workers
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import FALLBACKS
from s2vc_ray.targets import Floor

if TYPE_CHECKING:
    from s2vc_ray.reencode import Revised


def reencode(
    destination: Destination,
    where: Annotated[
        str, typer.Option(metavar="EXPR", help="Which GOPs: a condition as of s2vc audit --where.")
    ],
    quality: Annotated[
        int | None,
        typer.Option(
            help=f"Quality index for them, 0 (smallest) to {MAX_QUALITY} (best); with --target the highest to use."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[:mean]=VALUE", help="Search each one's quality, as s2vc compress --target."
        ),
    ] = None,
    max_bpp: Annotated[
        float | None, typer.Option(help="The most bits per pixel that a GOP may take for its --target.")
    ] = None,
    policy: PolicyFile = None,
    source_root: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where sources lie now; without it, where the manifest says."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be coded again.")] = False,
    model: Model = "small",
    device: Device = "auto",
    executor: ExecutorName = "ray",
    workers: Annotated[str, typer.Option(metavar="N|MIN:MAX", help="As of s2vc compress.")] = "0",
    ray_address: RayAddress = None,
    metrics: MeasuredFrames = "sample:4",
    metric: MetricNames = None,
    faces: Faces = False,
    batch: Lockstep = 0,
    threads: Threads = 0,
    attempts: Attempts = 3,
    allow_larger: AllowLarger = False,
    as_json: Json = False,
) -> None:
    """Code chosen GOPs of the archives at DST again, from their sources, into new versions of the archives.

    film.mp4.s2vc is followed by film.mp4.v2.s2vc, and so on; all other GOPs are copied byte for byte. No archive is
    overwritten or removed, and sources are only read. GOPs that have the quality asked for are left alone.

    \b
    s2vc reencode out/ --where "lpips_alex_worst > 0.3" --quality 63 --dry-run
    s2vc reencode out/ --where "lpips_alex_worst > 0.3" --quality 63
    s2vc reencode s3://bucket/compressed --where "target_met = false" --target lpips=0.15 --source-root s3://bucket/raw
    """
    held_to = policy_of(policy, target=target, max_bpp=max_bpp)
    floor: Floor | None
    if held_to:
        floor, faces = held_to.floor, faces or held_to.needs_faces
    else:
        floor = Floor.parse(target, max_bpp) if target else None
    if floor is None and (quality is None or max_bpp is not None):
        raise ConfigError(
            "say how GOPs are to be coded: --quality N, --policy FILE, or --target METRIC=VALUE, with --max-bpp if "
            "wanted"
        )
    least, most = parse_workers(workers)
    config = JobConfig(
        quality=MAX_QUALITY if quality is None else quality,
        target=floor,
        fallback=held_to.fallback if held_to else FALLBACKS[0],
        policy=held_to,
        model=model,
        device=device,
        executor=executor,
        workers=least,
        workers_max=most,
        ray_address=ray_address,
        metrics=MetricPolicy.parse(metrics, to_measure(metric, floor, held_to), faces=faces),
        batch=batch,
        threads=threads,
        attempts=attempts,
        allow_larger=allow_larger,
    )
    if dry_run:
        from s2vc_ray.reencode import preview

        _show(preview(destination, where, config), as_json=as_json)
        return
    from s2vc_ray.reencode import reencode as run
    from s2vc_ray.telemetry import Telemetry, TelemetryOptions

    with Telemetry(TelemetryOptions(quiet=as_json), Console(stderr=True)) as telemetry:
        report = run(destination, where, config, source_root=source_root, reporter=telemetry)
    if as_json:
        summary = asdict(telemetry.summary())
        print_json({**asdict(report), "failed": report.count("failed"), "summary": summary})
    if not report.clean:
        raise typer.Exit(1)


def _show(revisions: Iterable[Revised], *, as_json: bool) -> None:
    from s2vc_ray.status import shown
    from s2vc_ray.words import ranges, size

    if as_json:
        print_json([asdict(one) for one in revisions])
        return
    archives = gops = 0
    for one in revisions:
        archives, gops = archives + 1, gops + len(one.gops)
        typer.echo(
            f"{shown(one.archive)} -> {shown(one.version)}: GOPs {ranges(one.gops)} "
            f"({one.frames} frames, {size(one.bytes)} at {_q(one)})"
        )
    typer.echo(f"would code {gops} GOPs of {archives} archives again")


def _q(one: Revised) -> str:
    if one.q_min is None:
        return "no q"
    return f"q {one.q_min}" if one.q_min == one.q_max else f"q {one.q_min}-{one.q_max}"
