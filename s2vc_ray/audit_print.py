"""An audit as a person, a spreadsheet or a program reads it: tables, CSV, JSON, Parquet."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from s2vc_ray.audit import OUTLIER_DEVIATIONS, PLACES, AuditReport, AuditRows, Requirement
from s2vc_ray.errors import ConfigError
from s2vc_ray.redact import redacted
from s2vc_ray.status import shown
from s2vc_ray.storage import TEMPORARY_SUFFIX
from s2vc_ray.storage_local import local_errors
from s2vc_ray.words import size

FORMATS = ("table", "csv", "json", "parquet")
_COLUMNS = {
    "video": (
        "source_name",
        "status",
        "gops",
        "seconds",
        "source_bytes",
        "archive_bytes",
        "ratio",
        "bpp",
        "kbps",
    ),
    "job": (
        "job",
        "videos",
        "partial",
        "failed",
        "gops",
        "source_bytes",
        "archive_bytes",
        "ratio",
        "bpp",
        "kbps",
    ),
    "gop": ("source_name", "gop_index", "pts_seconds", "q", "crf", "payload_bytes", "bpp", "kbps"),
}


@contextmanager
def output(path: Path | None, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there whole once all is written to it, and not before.

    Raises:
        ConfigError: the file exists and may not be replaced.
        StorageError: it cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: give another --out, or --overwrite")
    beside = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with local_errors(f"write {path}"):
        try:
            with beside.open("wb") as out:
                yield out
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def write_report(report: AuditReport, style: str, out: BinaryIO) -> None:
    """The whole report, as ``table`` or ``json``."""
    if style == "json":
        document = {**asdict(report), "passed": report.passed}
        out.write(json.dumps(document, indent=2, default=_text).encode() + b"\n")
    else:
        _print(out, lambda console: _report(report, console))


def write_rows(answer: AuditRows, style: str, limit: int, out: BinaryIO) -> None:
    """Rows as they come, in any of `FORMATS`; a ``table`` shows at most ``limit`` of them, if that is not 0."""
    rows = answer.rows
    if style == "parquet":
        with pq.ParquetWriter(out, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)
    elif style == "csv":
        with pyarrow.csv.CSVWriter(out, rows.schema) as lines:
            for batch in rows:
                lines.write_batch(batch)
    elif style == "json":
        out.write(b"[")
        for number, row in enumerate(_dicts(rows)):
            out.write((",\n" if number else "\n").encode() + json.dumps(row, default=_text).encode())
        out.write(b"\n]\n")
    else:
        shown_rows = list(islice(_dicts(rows), limit + 1 if limit else None))
        _print(out, lambda console: _rows(shown_rows[: limit or None], rows.schema.names, console))
        if limit and len(shown_rows) > limit:
            out.write(b"... and more: --limit 0 shows all\n")


def say_faults(
    requirements: Sequence[Requirement], unreadable: Sequence[str], say: Callable[[str], None]
) -> None:
    """What makes an audit fail, a line each."""
    for part in unreadable:
        say(f"left out: {shown(part)}")
    for one in requirements:
        if not one.checked:
            say(f"require {one.condition}: not met: nothing was left to hold it against")
        elif one.failed:
            say(f"require {one.condition}: not met by {one.failed} of {one.checked}")
            for name in one.examples:
                say(f"    {shown(name)}")
            if one.failed > len(one.examples):
                say(f"    ... and {one.failed - len(one.examples)} more")
        else:
            say(f"require {one.condition}: met by all {one.checked}")


def _dicts(rows: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    for batch in rows:
        yield from batch.to_pylist()


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print(out: BinaryIO, show: Callable[[Console], None]) -> None:
    text = io.StringIO()
    terminal = out is sys.stdout.buffer and sys.stdout.isatty()
    # Off a terminal, a table cut to 80 columns would lose its figures.
    width = Console().width if terminal else 200
    show(Console(file=text, width=width, markup=False, highlight=False, emoji=False))
    out.write(text.getvalue().encode("utf-8", "backslashreplace"))


def _report(report: AuditReport, console: Console) -> None:
    t = report.totals
    console.print(f"{t['videos']} videos: {t['ok']} ok, {t['partial']} partial, {t['failed']} failed", end="")
    console.print(f"; {t['excluded']} excluded by a policy" if t["excluded"] else "", end="")
    console.print(f"; {t['failed_later']} failed again later" if t["failed_later"] else "")
    if t["archive_bytes"]:
        console.print(
            f"{t['gops']} GOPs, {t['frames']} frames; {size(t['source_bytes'])} became {size(t['archive_bytes'])}, "
            f"{size(t['saved_bytes'])} saved; {_number('bpp', t['bpp'])} bpp, {_number('kbps', t['kbps'])} kbps"
        )
    _section("quality over GOPs (5th percentile on the bad side)", report.quality, console)
    _section("jobs", _picked(report.jobs, "job", report), console)
    if report.by != "job":
        _section(f"{report.by}s", _picked(report.rows, report.by, report), console)
    for name, gops in report.worst.items():
        columns = ("source_name", "gop_index", "at", "q", "crf", "bpp", f"{name}_worst", f"{name}_mean")
        _section(f"worst GOPs by {name}", [{one: gop[one] for one in columns} for gop in gops], console)
    for name, gops in report.places.items():
        told = [{one: gop[one] for one in gop if one != "archive"} for gop in gops]
        _section(f"worst GOPs by {PLACES[name]}", told, console)
    for policy in report.policies:
        _policy(policy, console)
    _section("failures", report.failures, console)
    _section("excluded", report.excluded, console)
    _section(f"outliers, over {OUTLIER_DEVIATIONS:g} robust deviations", report.outliers, console)
    _section("provenance", [_short(row) for row in report.provenance], console)
    _section("last fixity check", report.verification, console)


def _policy(policy: dict[str, Any], console: Console) -> None:
    told = f"\npolicy {policy['sha256'][:12]}: {policy['gops']} GOPs"
    if policy["text"] is None:
        console.print(f"{told}; no job tells what it says")
        return
    lacking = policy["gops"] - policy["conforming"] - policy["unknown"]
    unknown = f", not measured: {policy['unknown']}" if policy["unknown"] else ""
    console.print(f"{told}, {policy['conforming']} conform, {lacking} do not{unknown}")
    _rows(rules_of(policy), list(policy["rules"][0]), console)
    _section("GOPs that do not conform", policy["misses"], console)


def rules_of(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """How often each rule applied, with a word for where none did."""
    return [{**row, "rule": row["rule"] or "(the floor alone)"} for row in policy["rules"]]


def _picked(rows: list[dict[str, Any]], by: str, report: AuditReport) -> list[dict[str, Any]]:
    """The columns of a wide table that a person looks at first."""
    metrics = [f"{one['metric']}_{kind}" for one in report.quality for kind in ("mean", "worst")]
    return [{name: row.get(name) for name in (*_COLUMNS[by], *metrics)} for row in rows]


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "weights_sha256": (row["weights_sha256"] or "")[:12]}


def _section(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    if rows:
        console.print(f"\n{title}")
        _rows(rows, list(rows[0]), console)


def _rows(rows: list[dict[str, Any]], names: Sequence[str], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in names:
        figures = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name.removesuffix("_bytes"), justify="right" if figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        return _number(name, value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return shown(redacted(str(value)))


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith(("seconds", "kbps", "ratio", "deviations", "encode", "at", "pts")):
        return f"{value:.1f}"
    return f"{value:.2f}" if name.startswith("psnr") else f"{value:.4f}"
