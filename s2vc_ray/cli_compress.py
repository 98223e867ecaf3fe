"""``s2vc compress``: parses, calls `s2vc_ray.compress`, prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from s2vc_ray.cli_options import (
    AllowLarger,
    Attempts,
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
from s2vc_ray.config import MAX_QUALITY, QUALITY, JobConfig, MetricPolicy, parse_workers
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import FALLBACKS
from s2vc_ray.targets import SCALES, Target, from_options


def compress(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Sources: files, folders, globs, list files (@list.txt), s3:// objects or prefixes. "
            "Then the destination: a folder or s3:// prefix.",
        ),
    ],
    gop: Annotated[int, typer.Option(help="Frames per GOP.")] = 32,
    scene_cuts: Annotated[
        bool,
        typer.Option(
            "--scene-cuts/--no-scene-cuts",
            help="Begin anew, with an intra frame, at scene cuts within a GOP.",
        ),
    ] = True,
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="Make progressive pictures of interlaced ones.")
    ] = False,
    enlarge: Annotated[
        bool,
        typer.Option(
            help="Code small pictures larger than they are where that pays (s2vc model info says when); without, up "
            "to 400 lines are coded about twice as fast, and look worse in the same bytes. A --target tries both."
        ),
    ] = True,
    refine: Annotated[
        int,
        typer.Option(
            metavar="STEPS",
            help="Improve the first picture of each GOP by so many steps, 0 to 64, before it is coded: slower, and "
            "mostly, not always, a little better in as many bytes. 3 do most of it.",
        ),
    ] = 0,
    quality: Annotated[
        int | None,
        typer.Option(
            help=f"Quality index, 0 (smallest) to {MAX_QUALITY} (best); {QUALITY} when not given. With a target: "
            f"the highest to use, {MAX_QUALITY} when not given."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[:mean]=VALUE",
            help="Search each GOP's quality: no worse than VALUE in its worst measured frame, or their mean. "
            f"{' '.join(SCALES)}",
        ),
    ] = None,
    max_bpp: Annotated[
        float | None, typer.Option(help="The most bits per pixel that a GOP may take for its --target.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="av1|smaller|none",
            help="Where a --target is missed, hold it with AV1, as is usual; smaller: also where AV1 takes fewer bytes "
            "for it.",
        ),
    ] = None,
    policy: PolicyFile = None,
    target_bpp: Annotated[
        float | None, typer.Option(help="Search the best quality of each GOP in so many bits per pixel.")
    ] = None,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The same, in so many bytes per archive: 700M, 1.5G.")
    ] = None,
    target_ratio: Annotated[
        float | None, typer.Option(help="The same, in such a share of each source's size: 0.02.")
    ] = None,
    model: Model = "small",
    device: Device = "auto",
    executor: ExecutorName = "ray",
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Encoder actors; 0: as many as there is room for. MIN:MAX follows the work.",
        ),
    ] = "0",
    actors_per_gpu: Annotated[int, typer.Option(help="Actors that share a GPU.")] = 1,
    placement: Annotated[str, typer.Option(help="spread actors over nodes, or pack them on few.")] = "spread",
    ray_address: RayAddress = None,
    metrics: MeasuredFrames = "sample:4",
    metric: MetricNames = None,
    faces: Faces = False,
    batch: Lockstep = 0,
    threads: Threads = 0,
    attempts: Attempts = 3,
    passthrough: Annotated[bool, typer.Option(help="Carry audio, subtitles, attachments and tags.")] = True,
    allow_larger: AllowLarger = False,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-", help="Append what happens to FILE as JSON lines, or to standard error."
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="The least that is logged: debug (each GOP), info, warning or error.")
    ] = "info",
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve figures for Prometheus on this port.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="The address for that; 0.0.0.0 for a Prometheus elsewhere.")
    ] = "127.0.0.1",
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of one GPU, or of one worker where they have none.")
    ] = None,
    price_per_tb_month: Annotated[
        float | None,
        typer.Option(help="Of storing 10^12 bytes: says what archives in place of sources save."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compress videos into DST, one .s2vc archive each, and record every GOP in DST/manifest.

    Sources are only read. An archive that is complete is skipped, so the same command resumes an interrupted
    job; one that differs is never overwritten.

    \b
    s2vc compress film.mp4 out/
    s2vc compress footage/ 'tapes/**/*.mov' @more.txt out/ --quality 48
    s2vc compress footage/ out/ --target lpips=0.15 --max-bpp 0.1
    s2vc compress film.mkv out/ --target-size 700M
    s2vc compress footage/ out/ --policy policy.toml
    s2vc compress s3://bucket/raw s3://bucket/compressed --ray-address auto --workers 2:16
    s2vc compress clip.mkv out/ --executor local --metrics none
    """
    from s2vc_ray.compress import compress as run
    from s2vc_ray.cost import Prices
    from s2vc_ray.telemetry import Telemetry, TelemetryOptions

    if len(paths) < 2:
        raise ConfigError("give at least one source and then the destination: s2vc compress SRC... DST")
    least, most = parse_workers(workers)
    held_to = policy_of(
        policy,
        target=target,
        max_bpp=max_bpp,
        fallback=fallback,
        target_bpp=target_bpp,
        target_size=target_size,
        target_ratio=target_ratio,
    )
    asked: Target | None
    if held_to:
        asked, fallback, faces = held_to.floor, held_to.fallback, faces or held_to.needs_faces
    else:
        asked = from_options(target, max_bpp, target_bpp, target_size, target_ratio)
    if quality is None:
        quality = MAX_QUALITY if asked else QUALITY
    config = JobConfig(
        gop=gop,
        scene_cuts=scene_cuts,
        deinterlace=deinterlace,
        enlarge=enlarge,
        refine=refine,
        quality=quality,
        target=asked,
        fallback=fallback or FALLBACKS[0],
        policy=held_to,
        model=model,
        device=device,
        executor=executor,
        workers=least,
        workers_max=most,
        actors_per_gpu=actors_per_gpu,
        placement=placement,
        ray_address=ray_address,
        metrics=MetricPolicy.parse(metrics, to_measure(metric, asked, held_to), faces=faces),
        batch=batch,
        threads=threads,
        attempts=attempts,
        passthrough=passthrough,
        allow_larger=allow_larger,
    )
    options = TelemetryOptions(
        quiet=as_json,
        log=log,
        log_level=log_level,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        prices=Prices(price_per_hour, price_per_tb_month),
    )
    with Telemetry(options, Console(stderr=True)) as telemetry:
        report = run(paths[:-1], paths[-1], config, reporter=telemetry)
    if as_json:
        summary = asdict(telemetry.summary())
        print_json({**asdict(report), "failed": report.count("failed"), "summary": summary})
    if not report.clean:
        raise typer.Exit(1)
