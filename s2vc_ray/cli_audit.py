"""The commands that read manifests as tables: audit, manifest compact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2vc_ray.cli_options import Destination, Device, Json, Model, Overwrite, patience, print_json
from s2vc_ray.cli_policy import policy_of
from s2vc_ray.errors import ConfigError
from s2vc_ray.storage import Storage, open_storage

if TYPE_CHECKING:
    from s2vc_ray.audit import AuditOptions, AuditReport
    from s2vc_ray.report.stills import StillOptions


def audit(
    destination: Destination,
    where: Annotated[
        str, typer.Option(metavar="EXPR", help="Only GOPs for which this SQL condition holds.")
    ] = "",
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", help="Exit 1 unless this holds for every row of --by; repeatable."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Exit 1 unless every GOP was coded under this policy and conforms to it, as its figures say.",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="video, job or gop: what is listed and held against --require.")
    ] = "video",
    sql: Annotated[
        str, typer.Option(metavar="QUERY", help="Answer a SELECT over gops, videos, jobs and events instead.")
    ] = "",
    style: Annotated[
        str, typer.Option("--format", help="table, json: the report; csv, parquet: all rows of --by.")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="Write there instead of to standard output.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Most rows of a list; 0: all. Reports: 20; csv, parquet: all.")
    ] = None,
    overwrite: Overwrite = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the report there as one HTML file that needs nothing beside it."),
    ] = None,
    stills: Annotated[
        int,
        typer.Option(min=0, max=100, help="--html: source and decoded stills of so many of the worst GOPs."),
    ] = 6,
    sources: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="DIR", help="--html: where sources lie now; else the manifest says."
        ),
    ] = None,
    model: Model = "small",
    device: Device = "auto",
) -> None:
    """Sum up the manifest at DST: rate, size saved, quality, worst GOPs, failures, outliers, provenance, checks.

    Exits 1 when a --require or --policy does not hold, or a part of the manifest cannot be read. Unknown names in an
    expression are answered with the list of columns.

    \b
    s2vc audit out/
    s2vc audit s3://bucket/compressed --where "bpp > 0.03 and lpips_alex_worst > 0.3" --by gop
    s2vc audit out/ --require "status = 'ok'" --require "lpips_alex_worst < 0.4"
    s2vc audit out/ --by gop --format parquet --out gops.parquet
    s2vc audit out/ --sql "select device, avg(encode_fps) from gops group by device"
    s2vc audit out/ --html report.html
    s2vc audit out/ --policy policy.toml
    """
    from s2vc_ray.audit import AuditOptions, audit_rows
    from s2vc_ray.audit import audit as examine
    from s2vc_ray.audit_print import FORMATS, output, say_faults, write_report, write_rows
    from s2vc_ray.report.stills import StillOptions

    if style not in FORMATS:
        raise ConfigError(f"--format {style}: choose from {', '.join(FORMATS)}")
    if style == "parquet" and out is None:
        raise ConfigError("--format parquet is not for a terminal: give --out FILE")
    is_report = not sql and style in ("table", "json")
    if html is not None and (sql or style != "table" or out is not None):
        raise ConfigError("--html writes the whole report: leave --sql, --format and --out out")
    usual = 20 if is_report or style == "table" else 0
    shown_nowhere = is_report and style == "table" and not any("gops_p5" in one for one in require or ())
    options = AuditOptions(
        where,
        tuple(require or ()),
        by,
        usual if limit is None else limit,
        percentiles=not shown_nowhere,
        policy=policy_of(policy),
    )
    storage = open_storage(destination, patience=patience())
    if html is not None:
        report = _write_html(storage, options, html, StillOptions(stills, sources, model, device), overwrite)
        passed, held, unreadable = report.passed, report.requirements, report.unreadable
    elif is_report:
        report = examine(storage, options)
        with output(out, overwrite=overwrite) as stream:
            write_report(report, style, stream)
        passed, held, unreadable = report.passed, report.requirements, report.unreadable
    else:
        with audit_rows(storage, options, sql) as answer, output(out, overwrite=overwrite) as stream:
            write_rows(answer, style, options.limit, stream)
        passed, held, unreadable = answer.passed, list(answer.requirements), answer.unreadable
    say_faults(held, unreadable, lambda line: typer.echo(line, err=True))
    if not passed:
        raise typer.Exit(1)


def _write_html(
    storage: Storage, options: AuditOptions, path: Path, stills: StillOptions, overwrite: bool
) -> AuditReport:
    from rich.console import Console

    from s2vc_ray.audit_print import output
    from s2vc_ray.report import html_report
    from s2vc_ray.words import size

    console = Console(stderr=True)
    # The name is looked at first: a report with stills takes a while.
    with output(path, overwrite=overwrite) as stream, console.status("reading the manifest") as status:
        made, report = html_report(
            storage,
            options,
            stills,
            watch=lambda done, count: status.update(f"decoding the worst frames: {done} of {count}"),
        )
        stream.write(made)
    typer.echo(f"{path}: {report.totals['videos']} videos, {size(len(made))}", err=True)
    return report


def compact(destination: Destination, as_json: Json = False) -> None:
    """Copy the manifest's many small parts into one large file beside them, for faster audits.

    The parts stay, and stay the truth; the copy is derived and may be removed. Run it again when jobs have added
    parts. Exits 1 when a part cannot be read; it is left out.

    \b
    s2vc manifest compact out/
    s2vc manifest compact s3://bucket/compressed
    """
    from s2vc_ray.manifest_compact import compact_manifest
    from s2vc_ray.status import shown
    from s2vc_ray.words import size

    report = compact_manifest(open_storage(destination, patience=patience()))
    if as_json:
        print_json(asdict(report))
    else:
        done = f"{report.parts} parts, {report.rows} rows, {size(report.bytes)}"
        typer.echo(f"{report.key}: {done}" if report.key else "nothing to copy", nl=False)
        typer.echo(f"; {report.already} parts were in copies already")
        for part in report.left_out:
            typer.echo(f"left out: {shown(part)}")
    if report.left_out:
        raise typer.Exit(1)
