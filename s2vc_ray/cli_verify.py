"""The commands that prove what a destination holds: verify, bag, events."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from s2vc_ray.cli_options import Destination, Device, Json, Model, patience, print_json
from s2vc_ray.errors import ConfigError, ObjectMissing
from s2vc_ray.storage import open_storage

if TYPE_CHECKING:
    from s2vc_ray.verify_report import Verdict, VerifyReport


def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="DST|ARCHIVE...",
            help="Destinations of compress jobs; or .s2vc archives, each compared with itself alone.",
        ),
    ],
    depth: Annotated[
        str,
        typer.Option(
            help="structure: headers, indexes and sizes, seconds for a terabyte; bytes: every checksum; "
            "symbols: decode every symbol; pixels: and measure again."
        ),
    ] = "bytes",
    source: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URI", help="Where sources are, if not where the manifest says; for pixels."
        ),
    ] = None,
    sample: Annotated[
        str, typer.Option(metavar="N%", help="Verify this share of the videos, the same ones every time.")
    ] = "100%",
    events: Annotated[bool, typer.Option(help="Record what was done under DST/events.")] = True,
    limit: Annotated[int, typer.Option(min=0, help="Most problems named; 0 names all.")] = 1000,
    model: Model = "small",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Prove that archives are what was committed. Exits 1 unless all was done and found good.

    Reads only, but for the record that it adds to DST/events. What cannot be compared for want of the source is told
    as "not measured", which is not a pass.

    \b
    s2vc verify out/
    s2vc verify s3://bucket/compressed --depth structure
    s2vc verify out/ --depth symbols --sample 5%
    s2vc verify out/ --depth pixels --source /mnt/tapes
    s2vc verify film.mp4.s2vc --json
    """
    from s2vc_ray.verify import verify as run
    from s2vc_ray.verify_archive import VerifyOptions

    options = VerifyOptions(depth, source, _share(sample), model, device, events, limit)
    console, done = Console(stderr=True), 0
    with console.status("listing") as status:

        def watch(verdict: Verdict, total: int) -> None:
            nonlocal done
            done += 1
            status.update(f"verifying: {done} of {total} archives")

        reports = run(targets, options, watch=watch)
    if as_json:
        print_json([{**asdict(report), "clean": report.clean} for report in reports])
    else:
        for report in reports:
            _show(report)
    if not all(report.clean for report in reports):
        raise typer.Exit(1)


def bag(destination: Destination, as_json: Json = False) -> None:
    """Write DST/manifest-sha256.txt anew from the manifest; exits 1 when a part of that cannot be read.

    Every compress job does so at its end. In a local DST, `sha256sum -c manifest-sha256.txt` checks it.

    \b
    s2vc bag out/
    s2vc bag s3://bucket/compressed
    """
    from s2vc_ray.bag import write_bag

    report = write_bag(open_storage(destination, patience=patience()))
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(f"{report.key}: {report.entries} entries from {report.parts} manifest parts")
        for part in report.unreadable:
            typer.echo(f"left out, as it cannot be read: {part}")
    if report.unreadable:
        raise typer.Exit(1)


def events(destination: Destination, as_json: Json = False) -> None:
    """Show everything that was done to the archives at DST: compressions, and what verify found.

    \b
    s2vc events out/
    s2vc events s3://bucket/compressed --json
    """
    from s2vc_ray.provenance import read_events
    from s2vc_ray.status import shown

    rows = read_events(open_storage(destination, patience=patience())).to_pylist()
    if as_json:
        print_json(rows)
        return
    if not rows:
        raise ObjectMissing(f"no events under {destination}: is that the destination of a compress job?")
    table = Table(box=None, pad_edge=False)
    for name in ("time", "event", "outcome", "object", "detail"):
        table.add_column(name, overflow="fold")
    for row in rows:
        time = f"{row['time']:%Y-%m-%d %H:%M:%S}"
        texts = (shown(str(row[name] or "")) for name in ("object", "detail"))
        table.add_row(time, row["event_type"], row["outcome"], *texts)
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


def _share(text: str) -> float:
    """The share that ``N%`` means; a plain number is a percentage as well.

    Raises:
        ConfigError: it is no number.
    """
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise ConfigError(f"sample {text!r}: give a percentage, such as 5%") from None


def _show(report: VerifyReport) -> None:
    from s2vc_ray.status import shown
    from s2vc_ray.verify_report import OUTCOMES
    from s2vc_ray.words import size

    for problem in report.problems:
        typer.echo(f"{shown(problem.key)}: {problem.outcome}: {OUTCOMES[problem.outcome][0]}")
        for fault in problem.faults:
            typer.echo(f"    {shown(fault)}")
    unnamed = sum(report.counts.values()) - report.counts.get("ok", 0) - len(report.problems)
    if unnamed:
        typer.echo(f"... and {unnamed} more")
    for outcome in report.counts:
        if outcome != "ok":
            typer.echo(f"{outcome}: {OUTCOMES[outcome][1]}")
    counts = (
        ", ".join(f"{number} {outcome}" for outcome, number in sorted(report.counts.items()))
        or "nothing to do"
    )
    looked = f"{size(report.bytes)} read" if report.depth != "structure" else "headers and indexes read"
    decoded = f", {report.gops} GOPs and {report.frames} frames decoded" if report.gops else ""
    typer.echo(f"{report.target}: {counts}; {looked}{decoded} in {report.seconds:.1f} s")
