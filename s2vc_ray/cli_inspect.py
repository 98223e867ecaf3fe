"""The commands that look at archives, manifests and destinations, and clear away what nobody wants."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from s2vc_ray.cli_options import Archive, Destination, Json, OlderThan, patience, print_json
from s2vc_ray.errors import ObjectMissing
from s2vc_ray.storage import open_source, open_storage


def info(
    archive: Archive,
    verify: Annotated[bool, typer.Option(help="Read all of it and check every checksum.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an archive says about itself.

    \b
    s2vc info out/film.mp4.s2vc
    s2vc info --verify --json s3://bucket/compressed/film.mp4.s2vc
    """
    from s2vc_ray.archive import ArchiveReader
    from s2vc_ray.tables import archive_facts

    with open_source(archive, patience=patience()) as stream:
        reader = ArchiveReader(stream)
        if verify:
            reader.verify()
        facts = archive_facts(reader, verified=verify)
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        # Names that were not UTF-8 hold surrogates, which standard output refuses.
        text = str("-" if value is None else value).encode("utf-8", "backslashreplace").decode()
        typer.echo(f"{name:<{width}}  {text}")


def status(
    destination: Destination,
    older_than: OlderThan = "7d",
    limit: Annotated[int, typer.Option(min=0, help="Most entries named per state; 0 names all.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what is done, failed, under way and left over at DST. Exits 1 unless every video is done.

    \b
    s2vc status out/
    s2vc status s3://bucket/compressed --json --limit 0
    """
    from s2vc_ray.status import status as examine
    from s2vc_ray.status import status_tables
    from s2vc_ray.survey import parse_age

    storage = open_storage(destination, patience=patience())
    report = examine(storage, older_than=parse_age(older_than), limit=limit)
    if as_json:
        print_json({**asdict(report), "clean": report.clean})
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(
            status_tables(report), markup=False, highlight=False
        )
    if not report.clean:
        raise typer.Exit(1)


def gc(
    destination: Destination,
    older_than: OlderThan = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
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

    storage = open_storage(destination, patience=patience())
    report = collect(storage, older_than=parse_age(older_than), dry_run=dry_run)
    if as_json:
        print_json({**asdict(report), "objects": report.objects, "bytes": report.bytes})
        return
    verb = "would remove" if dry_run else "removed"
    for each in report.removed:
        typer.echo(f"{verb} {shown(each.name)}: {each.objects} objects, {size(each.bytes)}: {each.why}")
    typer.echo(f"{verb} {report.objects} objects, {size(report.bytes)}")


def show(
    destination: Destination,
    as_json: Json = False,
) -> None:
    """Show what stands of every video under DST, and what failed.

    \b
    s2vc manifest show out/
    s2vc manifest show s3://bucket/compressed --json
    """
    from s2vc_ray.manifest import read_manifest
    from s2vc_ray.tables import manifest_table, summarise_manifest

    videos = summarise_manifest(read_manifest(open_storage(destination, patience=patience())))
    if as_json:
        print_json(videos)
        return
    if not videos:
        raise ObjectMissing(f"no manifest under {destination}: is that the destination of a compress job?")
    # Off a terminal, a table cut to 80 columns would lose its figures.
    Console(width=None if sys.stdout.isatty() else 200).print(manifest_table(videos))
    for video in videos:
        if video["error"]:
            told = ": ".join(filter(None, (video["error_class"], video["error"])))
            typer.echo(f"{video['source_name']}: {told}")
        if video["later_failure"]:
            typer.echo(f"{video['source_name']}: failed later, the archive stands: {video['later_failure']}")
