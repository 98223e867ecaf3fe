"""The commands that decode an archive: they parse, call the same functions as a program would, and print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from s2vc_ray.cli_options import (
    Archive,
    Batch,
    Device,
    Duration,
    Json,
    Model,
    Overwrite,
    Salvage,
    Start,
    WithPassthrough,
    print_json,
)
from s2vc_ray.errors import ConfigError

if TYPE_CHECKING:
    from s2vc_ray.decompress import DecompressReport, Progress

_CODECS = "h264, hevc, av1, prores, ffv1, y4m or frames"


def decompress(
    archive: Archive,
    out: Annotated[str, typer.Argument(help="A .mp4, .mkv or .y4m file, or - for y4m on standard output.")],
    start: Start = None,
    duration: Duration = None,
    model: Model = "small",
    device: Device = "auto",
    salvage: Salvage = False,
    batch: Batch = 0,
    passthrough: WithPassthrough = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Decode an archive to a playable file, with its time stamps, audio, subtitles and tags.

    Pictures become H.264 of high quality; for another codec, lossless pictures or image files, see s2vc export.
    Of a stretch, only its GOPs are read and decoded.

    \b
    s2vc decompress out/film.mp4.s2vc film.mp4
    s2vc decompress s3://bucket/compressed/film.mp4.s2vc film.mkv
    s2vc decompress s3://bucket/compressed/film.mp4.s2vc scene.mp4 --start 12:34 --duration 10
    s2vc decompress out/film.mp4.s2vc - | ffplay -
    s2vc decompress --salvage cut-short.s2vc rest.mp4
    """
    from s2vc_ray.decompress import decompress as run
    from s2vc_ray.moments import parse_moment, parse_time

    with _decoding(out, as_json) as (watch, tell):
        report = run(
            archive,
            out,
            start=None if start is None else parse_moment(start),
            duration=None if duration is None else parse_time(duration),
            model=model,
            device=device,
            salvage=salvage,
            batch=batch,
            passthrough=passthrough,
            overwrite=overwrite,
            watch=watch,
        )
        tell(report)


def export(
    archive: Archive,
    out: Annotated[
        str,
        typer.Argument(help="A file; for frames a folder or shots/%06d.png; or - for standard output."),
    ],
    codec: Annotated[
        str | None, typer.Option(help=f"{_CODECS}; what OUT's suffix suggests when not given.")
    ] = None,
    crf: Annotated[
        int | None, typer.Option(help="Rate factor, smaller is better: h264 16, hevc 18, av1 20.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The encoder's: h264, hevc medium, av1 8; of prores the profile, hq.")
    ] = None,
    start: Start = None,
    duration: Duration = None,
    model: Model = "small",
    device: Device = "auto",
    salvage: Salvage = False,
    batch: Batch = 0,
    passthrough: WithPassthrough = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Decode an archive into a codec of choice: for an editor, for another archive, for a player's pipe.

    h264, hevc and av1 go into .mp4 or .mkv; prores into .mov (10 bit 4:2:2); ffv1 into .mkv (RGB, the decoded
    pictures bit by bit); y4m into .y4m; frames are PNG or JPEG files named by frame number. - is y4m, or
    Matroska with a codec. To have just a playable file, s2vc decompress is enough.

    \b
    s2vc export out/film.mp4.s2vc film.mov --codec prores
    s2vc export out/film.mp4.s2vc film.mkv --codec ffv1
    s2vc export out/film.mp4.s2vc small.mp4 --codec av1 --crf 30 --start 12:34 --duration 10
    s2vc export out/film.mp4.s2vc shots/ --codec frames --start 754.2 --duration 1
    s2vc export out/film.mp4.s2vc - --codec h264 | ffplay -
    """
    from s2vc_ray.export import export as run
    from s2vc_ray.moments import parse_moment, parse_time

    with _decoding(out, as_json) as (watch, tell):
        report = run(
            archive,
            out,
            codec=codec,
            crf=crf,
            preset=preset,
            start=None if start is None else parse_moment(start),
            duration=None if duration is None else parse_time(duration),
            model=model,
            device=device,
            salvage=salvage,
            batch=batch,
            passthrough=passthrough,
            overwrite=overwrite,
            watch=watch,
        )
        tell(report)


def frame(
    archive: Archive,
    out: Annotated[str, typer.Argument(help="A .png or .jpg file; shot_%06d.png with several --at.")],
    at: Annotated[
        list[str], typer.Option(help="The picture on screen at 12:34.5, or frame '#18105'; repeatable.")
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="As coded: not turned for display, samples not made square.")
    ] = False,
    model: Model = "small",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the picture that is on screen at a moment: the one that begins at it or last before it.

    Reads and decodes one GOP. Where several pictures are wanted, %06d in OUT becomes the frame's number.

    \b
    s2vc frame out/film.mp4.s2vc --at 12:34.5 shot.png
    s2vc frame s3://bucket/compressed/film.mp4.s2vc --at 12:34 --at 15:00 shot_%06d.jpg
    """
    from s2vc_ray.export import stills
    from s2vc_ray.moments import clock, parse_moment

    moments = [parse_moment(moment) for moment in at]
    written = stills(archive, moments, out, raw=raw, model=model, device=device, overwrite=overwrite)
    if as_json:
        print_json([{**asdict(still), "seconds": float(still.seconds)} for still in written])
        return
    for still in written:
        size = f"{still.width}x{still.height}"
        typer.echo(f"{still.out}: frame {still.frame} at {clock(still.seconds)}, {size}", err=True)


@contextmanager
def _decoding(
    out: str, as_json: bool
) -> Iterator[tuple[Callable[[Progress], None], Callable[[DecompressReport], None]]]:
    """What shows the progress of a decoding on standard error, and what tells its end. A closed pipe is no error."""
    if out == "-" and as_json:
        raise ConfigError("--json and '-' both want standard output: give a file name")
    console = Console(stderr=True)
    begun = time.monotonic()

    def watch(progress: Progress) -> None:
        from s2vc_ray.words import duration, size

        if not progress.done:
            work = f"{progress.frames} frames of {progress.gops} GOPs, {size(progress.payload_bytes)} coded"
            console.print(f"decoding {work}", highlight=False)
        else:
            rate = progress.done / (time.monotonic() - begun)
            left = duration((progress.frames - progress.done) / rate)
            status.update(
                f"decoding: frame {progress.done} of {progress.frames}, {rate:.1f} a second, {left} left"
            )

    def tell(report: DecompressReport) -> None:
        if as_json:
            print_json(asdict(report))
            return
        lost = f"; {report.frames_lost} frames are missing" if report.frames_lost else ""
        for line in (f"{out}: {report.frames} frames from {report.gops} GOPs{lost}", *report.notes):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        with console.status("opening the archive") as status:
            yield watch, tell
    except BrokenPipeError:
        if out != "-":
            raise
        # What is still in the buffer would be written, and refused again, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
