"""The ``s2vc`` command. Parses, calls the same functions as ``jobs/``, prints; decides nothing.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done; 1 some sources
failed, could be compressed only in part or (``status``) are not finished, the others are done; 2 an option,
source list or cluster the job cannot run with; 3 an archive or model that cannot be used; 4 a store or
cluster that failed.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from s2vc_model.errors import ModelError
from s2vc_ray.backoff import Patience
from s2vc_ray.config import METRICS, JobConfig, MetricPolicy, parse_workers
from s2vc_ray.errors import ArchiveError, ConfigError, ObjectMissing, S2vcError
from s2vc_ray.storage import open_source, open_storage

# Two spinning torch threads on two cores are many times slower than one; read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Said by a library that the codec's dependencies import; nothing a user could do about it.
warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated", category=FutureWarning)

app = typer.Typer(
    help="Compress video archives with S2VC. The result is an access copy, not a preservation master.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
manifest_app = typer.Typer(help="Read manifests.", no_args_is_help=True)
app.add_typer(manifest_app, name="manifest")

_Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on standard output.")
]
_OlderThan = Annotated[
    str, typer.Option(help="How long nothing must have been added to what counts as left over: 7d, 12h, 30m.")
]
_Model = Annotated[str, typer.Option(help="A packaged model's name, or a directory with weights.")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command()
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
    quality: Annotated[int, typer.Option(help="Quality index, 0 (smallest) to 63 (best).")] = 56,
    model: _Model = "small",
    device: _Device = "auto",
    executor: Annotated[str, typer.Option(help="ray, or local: in this process.")] = "ray",
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Encoder actors; 0: as many as there is room for. MIN:MAX follows the work.",
        ),
    ] = "0",
    actors_per_gpu: Annotated[int, typer.Option(help="Actors that share a GPU.")] = 1,
    placement: Annotated[str, typer.Option(help="spread actors over nodes, or pack them on few.")] = "spread",
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Frames of each GOP to decode again and measure: none, sample:N or full.")
    ] = "sample:4",
    metric: Annotated[
        list[str] | None, typer.Option(help=f"What to measure; repeatable. Default: {' '.join(METRICS)}.")
    ] = None,
    batch: Annotated[int, typer.Option(help="GOPs coded in lockstep; 0 chooses.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU cores per worker; 0 chooses.")] = 0,
    attempts: Annotated[int, typer.Option(help="Tries before a GOP's video is given up.")] = 3,
    passthrough: Annotated[bool, typer.Option(help="Carry audio, subtitles, attachments and tags.")] = True,
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
    as_json: _Json = False,
) -> None:
    """Compress videos into DST, one .s2vc archive each, and record every GOP in DST/manifest.

    Sources are only read. An archive that is complete is skipped, so the same command resumes an interrupted
    job; one that differs is never overwritten.

    \b
    s2vc compress film.mp4 out/
    s2vc compress footage/ 'tapes/**/*.mov' @more.txt out/ --quality 48
    s2vc compress s3://bucket/raw s3://bucket/compressed --ray-address auto --workers 2:16
    s2vc compress clip.mkv out/ --executor local --metrics none
    """
    from s2vc_ray.compress import compress as run
    from s2vc_ray.cost import Prices
    from s2vc_ray.telemetry import Telemetry, TelemetryOptions

    if len(paths) < 2:
        raise ConfigError("give at least one source and then the destination: s2vc compress SRC... DST")
    least, most = parse_workers(workers)
    config = JobConfig(
        gop=gop,
        quality=quality,
        model=model,
        device=device,
        executor=executor,
        workers=least,
        workers_max=most,
        actors_per_gpu=actors_per_gpu,
        placement=placement,
        ray_address=ray_address,
        metrics=MetricPolicy.parse(metrics, tuple(metric) if metric else METRICS),
        batch=batch,
        threads=threads,
        attempts=attempts,
        passthrough=passthrough,
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
        _print_json({**asdict(report), "failed": report.count("failed"), "summary": summary})
    if not report.clean:
        raise typer.Exit(1)


@app.command()
def decompress(
    archive: Annotated[str, typer.Argument(help="An .s2vc archive: a path or an s3:// object.")],
    out: Annotated[str, typer.Argument(help="A .mp4, .mkv or .y4m file, or - for y4m on standard output.")],
    model: _Model = "small",
    device: _Device = "auto",
    salvage: Annotated[bool, typer.Option(help="Decode what is whole of a damaged archive.")] = False,
    batch: Annotated[int, typer.Option(help="GOPs decoded side by side; 0 chooses.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace the output file.")] = False,
    as_json: _Json = False,
) -> None:
    """Decode an archive to a playable file, with its time stamps, audio, subtitles and tags.

    \b
    s2vc decompress out/film.mp4.s2vc film.mp4
    s2vc decompress s3://bucket/compressed/film.mp4.s2vc film.mkv
    s2vc decompress out/film.mp4.s2vc - | ffplay -
    s2vc decompress --salvage cut-short.s2vc rest.mp4
    """
    from s2vc_ray.decompress import decompress as run

    if out == "-" and as_json:
        raise ConfigError("--json and '-' both want standard output: give a file name")
    console = Console(stderr=True)
    with console.status("decoding") as status:
        report = run(
            archive,
            out,
            model=model,
            device=device,
            salvage=salvage,
            batch=batch,
            overwrite=overwrite,
            on_gop=lambda done, total: status.update(f"decoding: GOP {done} of {total}"),
        )
    if as_json:
        _print_json(asdict(report))
        return
    lost = f"; {report.frames_lost} frames are missing" if report.frames_lost else ""
    for line in (f"{out}: {report.frames} frames from {report.gops} GOPs{lost}", *report.notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def info(
    archive: Annotated[str, typer.Argument(help="An .s2vc archive: a path or an s3:// object.")],
    verify: Annotated[bool, typer.Option(help="Read all of it and check every checksum.")] = False,
    as_json: _Json = False,
) -> None:
    """Show what an archive says about itself.

    \b
    s2vc info out/film.mp4.s2vc
    s2vc info --verify --json s3://bucket/compressed/film.mp4.s2vc
    """
    from s2vc_ray.archive import ArchiveReader
    from s2vc_ray.tables import archive_facts

    with open_source(archive, patience=_patience()) as stream:
        reader = ArchiveReader(stream)
        if verify:
            reader.verify()
        facts = archive_facts(reader, verified=verify)
    if as_json:
        _print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        # Names that were not UTF-8 hold surrogates, which standard output refuses.
        text = str("-" if value is None else value).encode("utf-8", "backslashreplace").decode()
        typer.echo(f"{name:<{width}}  {text}")


@app.command()
def status(
    destination: Annotated[str, typer.Argument(metavar="DST", help="The destination of a compress job.")],
    older_than: _OlderThan = "7d",
    limit: Annotated[int, typer.Option(min=0, help="Most entries named per state; 0 names all.")] = 20,
    as_json: _Json = False,
) -> None:
    """Show what is done, failed, under way and left over at DST. Exits 1 unless every video is done.

    \b
    s2vc status out/
    s2vc status s3://bucket/compressed --json --limit 0
    """
    from s2vc_ray.status import status as examine
    from s2vc_ray.status import status_tables
    from s2vc_ray.survey import parse_age

    storage = open_storage(destination, patience=_patience())
    report = examine(storage, older_than=parse_age(older_than), limit=limit)
    if as_json:
        _print_json({**asdict(report), "clean": report.clean})
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(
            status_tables(report), markup=False, highlight=False
        )
    if not report.clean:
        raise typer.Exit(1)


@app.command()
def gc(
    destination: Annotated[str, typer.Argument(metavar="DST", help="The destination of a compress job.")],
    older_than: _OlderThan = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: _Json = False,
) -> None:
    """Remove staged GOPs that nobody will want and uploads that nobody finished, and nothing else.

    Archives, the manifest and sources are never touched. Safe beside a running job while --older-than is
    longer than a video of it may go without a new GOP.

    \b
    s2vc gc out/ --dry-run
    s2vc gc s3://bucket/compressed --older-than 3d
    """
    from s2vc_ray.gc import collect
    from s2vc_ray.status import shown
    from s2vc_ray.survey import parse_age
    from s2vc_ray.words import size

    storage = open_storage(destination, patience=_patience())
    report = collect(storage, older_than=parse_age(older_than), dry_run=dry_run)
    if as_json:
        _print_json({**asdict(report), "objects": report.objects, "bytes": report.bytes})
        return
    verb = "would remove" if dry_run else "removed"
    for each in report.removed:
        typer.echo(f"{verb} {shown(each.name)}: {each.objects} objects, {size(each.bytes)}: {each.why}")
    typer.echo(f"{verb} {report.objects} objects, {size(report.bytes)}")


@manifest_app.command()
def show(
    destination: Annotated[str, typer.Argument(metavar="DST", help="The destination of a compress job.")],
    as_json: _Json = False,
) -> None:
    """Show the latest word on every video under DST.

    \b
    s2vc manifest show out/
    s2vc manifest show s3://bucket/compressed --json
    """
    from s2vc_ray.manifest import read_manifest
    from s2vc_ray.tables import manifest_table, summarise_manifest

    videos = summarise_manifest(read_manifest(open_storage(destination, patience=_patience())))
    if as_json:
        _print_json(videos)
        return
    if not videos:
        raise ObjectMissing(f"no manifest under {destination}: is that the destination of a compress job?")
    # Off a terminal, a table cut to 80 columns would lose its figures.
    Console(width=None if sys.stdout.isatty() else 200).print(manifest_table(videos))
    for video in videos:
        if video["error"]:
            typer.echo(f"{video['source_name']}: {video['error_class']}: {video['error']}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and turn errors into one line on standard error and an exit code."""
    try:
        app(arguments)
    except ConfigError as error:
        _die(error, 2)
    except (ArchiveError, ModelError) as error:
        _die(error, 3)
    except S2vcError as error:
        _die(error, 4)


def _patience() -> Patience:
    """Somebody sits and waits for these commands: a store that is away is soon said to be."""
    return Patience.from_environment(seconds=30)


def _die(error: Exception, code: int) -> None:
    typer.echo(f"s2vc: {type(error).__name__}: {error}", err=True)
    sys.exit(code)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
