"""The command that takes out of an archive what it carries besides its pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from s2vc_ray.cli_options import Archive, Json, Salvage, print_json


def extract(
    archive: Archive,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the files go: a folder, or s3://.")],
    stream: Annotated[
        list[int] | None, typer.Option(help="Only this stream, by its number in the source; repeatable.")
    ] = None,
    attachments: Annotated[bool, typer.Option("--attachments", help="Only attached files.")] = False,
    salvage: Salvage = False,
    as_json: Json = False,
) -> None:
    """Write what an archive carries besides its pictures to files: all of it, or what is named. Needs no model.

    An attached file comes out as it was. A stream becomes its packets' bytes (.bin; cover art .jpg, .png, …), a list
    of the packets with their times (.json), and a file to play (.mka, .mks, .nut) where one can hold it. What is there
    is not overwritten.

    \b
    s2vc extract out/film.mkv.s2vc film-parts
    s2vc extract s3://bucket/compressed/film.mov.s2vc parts --stream 3
    s2vc extract out/film.mkv.s2vc fonts --attachments
    """
    from s2vc_ray.extract import extract_archive

    report = extract_archive(archive, folder, streams=stream or (), attachments=attachments, salvage=salvage)
    if as_json:
        print_json(asdict(report))
        return
    for file in report.files:
        typer.echo(f"{folder}/{file.name}: {file.what}", err=True)
    for note in report.notes:
        typer.echo(note, err=True)
