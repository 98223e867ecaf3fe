"""The commands that decode an archive: they parse, call the same functions as a program would, and print."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from s2vc_ray.cli_options import Archive, Device, Json, Model, print_json
from s2vc_ray.errors import ConfigError


def decompress(
    archive: Archive,
    out: Annotated[str, typer.Argument(help="A .mp4, .mkv or .y4m file, or - for y4m on standard output.")],
    model: Model = "small",
    device: Device = "auto",
    salvage: Annotated[bool, typer.Option(help="Decode what is whole of a damaged archive.")] = False,
    batch: Annotated[int, typer.Option(help="GOPs decoded side by side; 0 chooses.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace the output file.")] = False,
    as_json: Json = False,
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
        print_json(asdict(report))
        return
    lost = f"; {report.frames_lost} frames are missing" if report.frames_lost else ""
    for line in (f"{out}: {report.frames} frames from {report.gops} GOPs{lost}", *report.notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
