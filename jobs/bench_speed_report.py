"""What a speed run prints."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from jobs.bench_speed import SpeedOptions, SpeedResult, run_speed
from jobs.bench_stages import STAGES
from s2vc_ray.worker import CodecLoader


def print_speed(
    options: SpeedOptions,
    load: CodecLoader,
    runs: list[tuple[str, str]],
    console: Console,
    *,
    as_json: bool = False,
) -> None:
    """Measure each run and print tables, or one JSON document."""
    results = list(run_speed(options, load, runs))
    if as_json:
        shares = [{"encode_share": r.encode_share, "decode_share": r.decode_share} for r in results]
        print(json.dumps([{**asdict(r), **s} for r, s in zip(results, shares, strict=True)], indent=2))
        return
    table = Table(title=f"Speed of {options.model}, q {options.q}, GOPs of {options.gop}")
    columns = ("size", "content", "GOPs at once", "frames", "bpp", "encode fps", "decode fps")
    for column in (*columns, "loaded MB", "peak MB, 1 round", f"{options.rounds} rounds"):
        table.add_column(column, justify="right")
    for found in results:
        memory = (f"{megabytes:.0f}" for megabytes in (found.loaded_mb, found.first_mb, found.peak_mb))
        speeds = (f"{found.encode_fps:.2f}", f"{found.decode_fps:.2f}")
        size = f"{found.width}x{found.height}"
        table.add_row(
            size, found.content, str(found.batch), str(found.frames), f"{found.bpp:.4f}", *speeds, *memory
        )
    console.print(table)
    _print_stages(results, console)


def _print_stages(results: list[SpeedResult], console: Console) -> None:
    """Where a frame's time goes in one GOP alone, and how much of the machine all cores reach."""
    table = Table(title="One GOP alone: milliseconds a frame; all cores: share of a matrix product's speed")
    for column in ("size", "content", "", *STAGES, "GFLOP", "share", "peak GFLOP/s", "J"):
        table.add_column(column, justify="right")
    for r in results:
        for way, stages, operations, share in (
            ("encode", r.encode_stages, r.encode_gflop, r.encode_share),
            ("decode", r.decode_stages, r.decode_gflop, r.decode_share),
        ):
            if stages is None or operations is None:
                continue
            times = (f"{1000 * stages[stage]:.1f}" for stage in STAGES)
            machine = (
                f"{share or 0:.0%}",
                f"{r.peak_gflops or 0:.0f}",
                "-" if r.joules is None else f"{r.joules:.2f}",
            )
            table.add_row(f"{r.width}x{r.height}", r.content, way, *times, f"{operations:.2f}", *machine)
    if table.row_count:
        console.print(table)
