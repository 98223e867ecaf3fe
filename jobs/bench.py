"""Command line of the benchmarks: ``python -m jobs.bench speed``, ``… quality --clips DIR``, ``… chaos``, …"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

# Before torch is imported: spinning threads on few cores make small tensors many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import typer
from rich.console import Console

from jobs.bench_anchors import ANCHORS, known_anchors
from jobs.bench_chaos import ChaosOptions, print_chaos
from jobs.bench_clips import ClipPolicy, find_clips
from jobs.bench_exact import ExactOptions, print_exact
from jobs.bench_quality import QualityOptions, run_quality
from jobs.bench_report import RowsFile, print_report, write_report
from jobs.bench_rows import Row
from jobs.bench_speed import DEFAULT_SIZES, SIZES, SpeedOptions, contents
from jobs.bench_speed_report import print_speed
from s2vc_model.errors import ModelError
from s2vc_model.metrics import METRICS
from s2vc_model.metrics.weight_store import cache_path
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError, S2vcError, SourceError
from s2vc_ray.targets import ALIASES, Floor
from s2vc_ray.worker import CodecLoader, load_s2vc

DEFAULT_METRICS = "psnr,ms_ssim,lpips_alex,vmaf,vmaf_neg,flicker"
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure the codec's quality and speed.")
# A terminal's width would fold the tables in a log file.
console = Console(width=None if sys.stdout.isatty() else 200)


@app.command()
def quality(
    clips: Annotated[list[Path], typer.Option(help="A video file or a folder of them; may be repeated.")],
    q: Annotated[str, typer.Option(help="Our quality indices, 0..63.")] = "8,16,24,32,40,48,56,63",
    frames: Annotated[int, typer.Option(help="Measure the first N frames of each clip.")] = 32,
    gop: Annotated[int, typer.Option(help="Frames per GOP.")] = 32,
    anchor_gop: Annotated[
        str, typer.Option(help="GOPs of the anchors: clip takes --gop, default leaves them alone, or both.")
    ] = "both",
    max_lines: Annotated[int, typer.Option(help="Scale larger pictures down to this many lines.")] = 480,
    multiple_of: Annotated[int, typer.Option(help="Scale sides to a multiple of this; 64: no padding.")] = 2,
    metrics: Annotated[
        str, typer.Option(help=f"Of {', '.join(METRICS)}. dists and cvvdp are slow.")
    ] = DEFAULT_METRICS,
    sample: Annotated[int, typer.Option(help="Measure at most N frames per clip; 0: all.")] = 0,
    anchors: Annotated[str, typer.Option(help="Codecs to stand beside.")] = ",".join(ANCHORS),
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    refine: Annotated[int, typer.Option(help="Improve first pictures by so many steps, as jobs may.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for CSV, JSON and plots.")] = Path("bench_out"),
) -> None:
    """Rate and quality of each clip beside x265 slow, SVT-AV1 preset 4 and VVenC medium, with BD-rates."""
    try:
        run_quality_command(
            clips,
            QualityOptions(
                qs=_numbers(q),
                gop=gop,
                anchor_gop=anchor_gop,
                metrics=tuple(metrics.split(",")),
                policy=ClipPolicy(frames, max_lines, multiple_of),
                sample=sample or None,
                cache=cache_path().parent / "bench",
                refine=refine,
            ),
            [name for name in anchors.split(",") if name],
            model,
            device,
            out,
        )
    except (S2vcError, ModelError) as error:
        _fail(error)


def run_quality_command(
    clips: list[Path],
    options: QualityOptions,
    anchors: list[str],
    model: str,
    device: str,
    out: Path,
    load: CodecLoader = load_s2vc,
) -> None:
    """Measure, write and print; see ``quality``."""
    chosen = known_anchors(anchors)
    paths = find_clips(clips)
    codec = load(model, device, **({"refine": options.refine} if options.refine else {}))
    identity = {
        "model_id": codec.model_id,
        "weights_sha256": codec.weights_sha256,
        "device": str(codec.device),
        "refine": str(options.refine),
    }
    with RowsFile(out / "rows.csv", options.metrics) as table:

        def report(row: Row) -> None:
            table.append(row)
            print(f"{row.clip} {row.codec} {row.point}: {row.bpp:.4f} bpp", file=sys.stderr, flush=True)

        result = run_quality(paths, codec, chosen, options, report)
    write_report(result, options, identity, out)
    print_report(result, options.metrics, console)
    console.print(f"written to {out}/")
    if not result.rows:
        raise SourceError("none of the clips could be read")


@app.command()
def stills(
    clips: Annotated[list[Path], typer.Option(help="A video file or a folder of them; may be repeated.")],
    q: Annotated[int, typer.Option(help="Our quality index, 0..63.")] = JobConfig().quality,
    at: Annotated[str, typer.Option(help="Frames to show, from 0.")] = "1,15,31,32",
    frames: Annotated[int, typer.Option(help="Code the first N frames of each clip.")] = 40,
    gop: Annotated[int, typer.Option(help="Frames per GOP, of all codecs.")] = 32,
    max_lines: Annotated[int, typer.Option(help="Scale larger pictures down to this many lines.")] = 480,
    anchors: Annotated[str, typer.Option(help="Codecs to stand beside.")] = "x265 slow",
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    refine: Annotated[int, typer.Option(help="Improve first pictures by so many steps, as jobs may.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for a PNG of each clip.")] = Path("bench_out/stills"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Frames of source, ours and others side by side, the others with as many bytes as we take."""
    from jobs.bench_stills import StillsOptions, print_stills

    try:
        options = StillsOptions(q, _numbers(at), gop, ClipPolicy(frames, max_lines))
        beside = known_anchors([name for name in anchors.split(",") if name])
        codec = load_s2vc(model, device, refine=refine)
        found = print_stills(find_clips(clips), codec, beside, options, out, console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)
    if not found:
        raise typer.Exit(1)


@app.command()
def speed(
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    q: Annotated[int, typer.Option(help="Quality index, 0..63.")] = SpeedOptions().q,
    gop: Annotated[int, typer.Option(help="Frames per GOP.")] = 32,
    size: Annotated[str, typer.Option(help=f"Of {', '.join(SIZES)}.")] = DEFAULT_SIZES,
    rounds: Annotated[int, typer.Option(help="Calls per run; memory must not grow with it.")] = 2,
    batch: Annotated[int, typer.Option(help="GOPs of a call; 0: one a core, or what fills a GPU.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of torch; 0 leaves the choice to torch.")] = 0,
    trace: Annotated[Path | None, typer.Option(help="Write a profile of the last size's call there.")] = None,
    enlarge: Annotated[
        bool, typer.Option(help="Code small pictures larger than they are, as jobs do.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Encode and decode speed through real bytes, where the time goes, and peak memory."""
    try:
        options = SpeedOptions(model, device, q, gop, rounds, batch, threads, trace, enlarge)
        print_speed(options, load_s2vc, contents(size), console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)


@app.command()
def exact(
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    gops: Annotated[int, typer.Option(help="GOPs, of 1 to 3 tiny frames each.")] = ExactOptions().gops,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Whether the same streams decode to the same symbols in every way of computing there is here."""
    try:
        clean = print_exact(ExactOptions(model, gops), console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)
    if not clean:
        raise typer.Exit(1)


@app.command()
def job(
    size: Annotated[str, typer.Option(help=f"Of {', '.join(SIZES)}.")] = "720p",
    gops: Annotated[str, typer.Option(help="GOPs of a video; each number is a job of its own.")] = "4,8",
    videos: Annotated[int, typer.Option(help="Videos of each job.")] = 1,
    store: Annotated[str, typer.Option(help="local, or s3: a SeaweedFS server started for it.")] = "local",
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    metrics: Annotated[str, typer.Option(help="none, full or sample:N.")] = str(JobConfig().metrics),
    workers: Annotated[int, typer.Option(help="Encoder actors; 0: as many as fit.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Whole jobs on Ray: how busy the encoders are, what fills the rest, and a worker's peak memory."""
    from jobs.bench_job import JobOptions, print_jobs

    try:
        options = JobOptions(
            size=size,
            gops=_numbers(gops),
            videos=videos,
            store=store,
            model=model,
            device=device,
            metrics=metrics,
            workers=workers,
        )
        print_jobs(options, console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)


@app.command()
def chaos(
    runs: Annotated[int, typer.Option(help="How many runs.")] = ChaosOptions().runs,
    seed: Annotated[int, typer.Option(help="Seed of the first; the others count up from it.")] = 1,
    limit: Annotated[
        float, typer.Option(help="Seconds after which a run is given up.")
    ] = ChaosOptions().limit,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for results and the drivers' logs.")] = None,
) -> None:
    """Compress on a simulated cluster whose actors, nodes, driver and S3 server are killed at random."""
    try:
        clean = print_chaos(ChaosOptions(runs, seed, limit, out), console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)
    if not clean:
        raise typer.Exit(1)


@app.command()
def fuzz(
    archives: Annotated[int, typer.Option(help="Damaged and forged archives.")] = 20_000,
    videos: Annotated[int, typer.Option(help="Damaged source videos.")] = 300,
    payloads: Annotated[int, typer.Option(help="Forged payloads of the fallback codec.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same cases.")] = 1,
    deep: Annotated[
        int, typer.Option(help="Decode symbols and write streams of every so many archives.")
    ] = 20,
    workers: Annotated[int, typer.Option(help="Processes side by side.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read damaged and forged archives and sources; tell what crashes, hangs, grows or says what it must not."""
    from jobs.bench_fuzz import FuzzOptions, print_fuzz

    try:
        clean = print_fuzz(
            FuzzOptions(archives, videos, seed, deep, workers, payloads), console, as_json=as_json
        )
    except (S2vcError, ModelError) as error:
        _fail(error)
    if not clean:
        raise typer.Exit(1)


@app.command()
def length(
    seconds: Annotated[str, typer.Option(help="Lengths of the source, in tens of seconds.")] = "10,7200",
    suffix: Annotated[str, typer.Option(help="Its container.")] = ".mkv",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Peak memory of driver and worker over the length of a source; all of the job but the codec is real."""
    from jobs.bench_length import print_lengths

    try:
        print_lengths(_numbers(seconds), suffix, console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)


@app.command()
def scale(
    videos: Annotated[int, typer.Option(help="Synthetic videos.")] = 50_000,
    gops: Annotated[int, typer.Option(help="GOPs of each.")] = 20,
    resume: Annotated[
        bool, typer.Option(help="Also a job that is half done; writes that many files.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time and memory of the driver for each GOP, and how soon a half-done job starts to work again."""
    from jobs.bench_scale import ScaleOptions, print_scale

    print_scale(ScaleOptions(videos, gops), resume, console, as_json=as_json)


@app.command()
def audit(
    rows: Annotated[int, typer.Option(help="Synthetic rows of the manifest in a copy.")] = 10_000_000,
    parts: Annotated[
        int, typer.Option(help="Parts of another manifest, as jobs leave them; 0: none.")
    ] = 20_000,
    gops: Annotated[int, typer.Option(help="Rows of each video.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Folder that keeps the manifests for the next time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time and memory of s2vc audit over a large manifest."""
    from jobs.bench_audit import AuditOptions, print_audit

    print_audit(AuditOptions(rows, parts, gops, out), console, as_json=as_json)


@app.command()
def targets(
    clips: Annotated[list[Path], typer.Option(help="A video file or a folder of them; may be repeated.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="A floor for all clips, as s2vc compress takes it; may be repeated."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Every clip has floors of each, from its own range; empty: none.")
    ] = "lpips,ms-ssim,psnr",
    each: Annotated[int, typer.Option(help="How many of each.")] = 3,
    gops: Annotated[int, typer.Option(help="GOPs of each clip.")] = 2,
    gop: Annotated[int, typer.Option(help="Frames per GOP.")] = 32,
    lines: Annotated[int, typer.Option(help="Scale larger pictures down to this many lines.")] = 144,
    sample: Annotated[int, typer.Option(help="Frames of each GOP that are measured; 0: all.")] = 4,
    step: Annotated[int, typer.Option(help="Code every so many q of 8..63 to know what is reached.")] = 1,
    fallback: Annotated[str, typer.Option(help="none, av1 or smaller.")] = "none",
    model: Annotated[str, typer.Option(help="Model name or folder.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Whether quality targets are met, how closely, and what they save against one q for a whole clip."""
    from jobs.bench_targets import TargetOptions
    from jobs.bench_targets_report import print_targets

    try:
        options = TargetOptions(
            floors=tuple(Floor.parse(text) for text in target or ()),
            metrics=tuple(ALIASES.get(name, name) for name in metrics.split(",") if name),
            each=each,
            policy=ClipPolicy(gops * gop, lines),
            gop=gop,
            sample=sample or None,
            step=step,
            fallback=fallback,
            folder=cache_path().parent / "bench",
        )
        clean = print_targets(clips, options, model, device, load_s2vc, console, as_json=as_json)
    except (S2vcError, ModelError) as error:
        _fail(error)
    if not clean:
        raise typer.Exit(1)


@app.command()
def workers(
    counts: Annotated[str, typer.Option(help="Numbers of workers.")] = "2,4,8",
    seconds: Annotated[float, typer.Option(help="What a GOP takes.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Throughput over the number of workers, whose codec only sleeps; and the same work through Ray Data."""
    from jobs.bench_workers import print_workers

    print_workers(_numbers(counts), seconds, console, as_json=as_json)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a list of integers such as 8,16,24") from error


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
