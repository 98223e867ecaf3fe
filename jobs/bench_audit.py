"""How an audit stands a large manifest: synthetic rows, read as `s2vc audit` reads them.

Two manifests: many parts as jobs leave them, and as many rows as asked for in one copy as `s2vc manifest compact`
makes it, beside the names of the parts that it stands for. Their bytes are never read, so those are empty.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from s2vc_ray.manifest import SCHEMA, part_key
from s2vc_ray.manifest_compact import COMPACT, ROWS, copy_writer

_JOBS = 20
_HASHES = 512


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """``rows`` in the copy, and ``parts`` files of a second manifest, both of ``gops`` rows a video.

    ``out`` keeps the manifests and uses those that are there; None makes them anew in the scratch folder.
    """

    rows: int = 10_000_000
    parts: int = 20_000
    gops: int = 20
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class AuditResult:
    """One command over one manifest: wall seconds, and the most memory its process held, in MB."""

    manifest: str
    command: str
    seconds: float
    peak_mb: float


def run_audit(options: AuditOptions, folder: Path) -> Iterator[AuditResult]:
    """Make the manifests and time audits of them, each in a process of its own."""
    copied, parts = (
        folder / f"copy-{options.rows}-{options.gops}",
        folder / f"parts-{options.parts}-{options.gops}",
    )
    if not copied.exists():
        write_copy(copied, options.rows // options.gops, options.gops)
    if options.parts and not parts.exists():
        write_parts(parts, options.parts, options.gops)
    one = job_of(0)
    for arguments in (
        (),
        ("--where", "bpp > 0.03 and lpips_alex_worst > 0.3"),
        ("--where", f"job = '{one}'"),
        ("--require", "lpips_alex_worst < 0.9", "--by", "gop"),
    ):
        yield _timed(f"{options.rows:,} rows in a copy", copied, "audit", *arguments)
    if options.parts:
        named = f"{options.parts * options.gops:,} rows in {options.parts:,} parts"
        yield _timed(named, parts, "audit")
        yield _timed(named, parts, "manifest", "compact")
        yield _timed(f"{named}, copied", parts, "audit")


def print_audit(options: AuditOptions, console: Console, *, as_json: bool) -> None:
    """Run it and print what it took."""
    with tempfile.TemporaryDirectory(prefix="s2vc-") as scratch:
        folder = options.out or Path(scratch)
        found = []
        for result in run_audit(options, folder):
            found.append(asdict(result))
            if not as_json:
                console.print(
                    f"{result.manifest}: {result.command}: {result.seconds:.1f} s, {result.peak_mb:.0f} MB",
                    highlight=False,
                )
    if as_json:
        print(json.dumps(found, indent=2))


def job_of(video: int) -> str:
    """The job that a synthetic video belongs to: thousands of consecutive ones share one."""
    return f"202601{1 + video // 25_000 % _JOBS:02}T000000Z-{video // 25_000:06x}"


def write_copy(folder: Path, videos: int, gops: int) -> None:
    """A destination whose manifest is one copy, and the empty files of the parts that it stands for."""
    path = folder / COMPACT / f"{'0' * 16}.parquet"
    path.parent.mkdir(parents=True)
    step = max(1, ROWS // gops)
    with copy_writer(path) as writer:
        for first in range(0, videos, step):
            writer.write_table(synthetic(range(first, min(videos, first + step)), gops), row_group_size=ROWS)
    for video in range(videos):
        part = folder / part_key(job_of(video), f"{video:016x}")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()


def write_parts(folder: Path, videos: int, gops: int) -> None:
    """A destination with one part for each video."""
    for first in range(0, videos, 500):
        table = synthetic(range(first, min(videos, first + 500)), gops)
        for at in range(len(table) // gops):
            rows = table.slice(at * gops, gops)
            part = folder / part_key(rows["job"][0].as_py(), rows["video_id"][0].as_py())
            part.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows.drop_columns(["job"]), part, compression="zstd")


def synthetic(videos: range, gops: int) -> pa.Table:
    """Rows of videos as a job would write them; only figures vary."""
    rng = np.random.default_rng(videos.start)
    count = len(videos) * gops
    index = np.tile(np.arange(gops), len(videos))
    bpp = np.exp(rng.normal(-3.5, 0.5, count))
    payload = (bpp * 32 * 640 * 360 / 8).astype(np.int64)
    lpips = rng.beta(2, 8, count)
    psnr = rng.normal(31, 2, count)
    ids = [f"{number:016x}" for number in videos]
    names = [f"tapes/{number // 1000:04}/film-{number:07}.mp4" for number in videos]
    digests = rng.integers(0, 256, (count, 32), dtype=np.uint8).tobytes().hex()
    columns: dict[str, object] = {
        "job": np.repeat([job_of(number) for number in videos], gops),
        "created": [datetime(2026, 1, 1, tzinfo=UTC)] * count,
        "config_hash": ["0123456789abcdef"] * count,
        "config": [json.dumps({"gop": 32, "quality": 20, "model": "small"})] * count,
        "video_id": np.repeat(ids, gops),
        "source_uri": np.repeat([f"s3://tapes/{name}" for name in names], gops),
        "source_name": np.repeat(names, gops),
        "status": ["ok"] * count,
        "schema_version": np.full(count, 1),
        "source_size": np.repeat(rng.integers(10**7, 10**8, len(videos)), gops),
        "source_sha256": np.repeat([hashlib.sha256(name.encode()).hexdigest() for name in ids], gops),
        "archive": np.repeat([f"{name}.s2vc" for name in names], gops),
        "archive_bytes": np.repeat(payload.reshape(-1, gops).sum(1) + 4096, gops),
        "archive_sha256": np.repeat([hashlib.sha256(name.encode()).hexdigest() for name in names], gops),
        "gop_index": index,
        "frames_expected": np.full(count, 32),
        "frames_encoded": np.full(count, 32),
        "frames_corrupt": np.zeros(count, np.int64),
        "frames_declared": np.full(count, 32 * gops),
        "pts_first": index * 32,
        "pts_last": index * 32 + 31,
        "time_base_num": np.full(count, 1),
        "time_base_den": np.full(count, 25),
        "width": np.full(count, 640),
        "height": np.full(count, 360),
        "payload_offset": index * 100_000,
        "payload_bytes": payload,
        "payload_sha256": [digests[at : at + 64] for at in range(0, len(digests), 64)],
        "bits_i": payload * 2,
        "bits_p": payload * 6,
        "bpp": bpp,
        "kbps": 8 * payload / 1.28 / 1000,
        "q": np.full(count, 20),
        "codec": ["s2vc"] * count,
        "psnr_mean": psnr,
        "psnr_worst": psnr - rng.gamma(2, 0.5, count),
        "ms_ssim_mean": 1 - lpips / 10,
        "ms_ssim_worst": 1 - lpips / 8,
        "lpips_alex_mean": lpips,
        "lpips_alex_worst": np.minimum(lpips * 1.3, 1),
        "metric_policy": ["sample:4"] * count,
        "metric_frames": np.full(count, 4),
        "verify": ["decoded"] * count,
        "model_id": ["small-1"] * count,
        "weights_sha256": ["ab" * 32] * count,
        "preset": ["small"] * count,
        "device": ["cuda:0"] * count,
        "torch": ["2.14.1"] * count,
        "source_seconds": rng.gamma(4, 0.05, count),
        "encode_seconds": rng.gamma(16, 0.05, count),
        "decode_seconds": rng.gamma(4, 0.1, count),
        "attempts": np.ones(count, np.int64),
        "creator": ["s2vc-ray 0.1.0"] * count,
    }
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


def _timed(manifest: str, folder: Path, *arguments: str) -> AuditResult:
    """Run ``s2vc COMMAND FOLDER …`` and measure it from outside."""
    words = 2 if arguments[0] == "manifest" else 1
    command = [sys.executable, "-m", "s2vc_ray.cli", *arguments[:words], str(folder), *arguments[words:]]
    begun, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            peak = max(peak, _most_held(process.pid))
            time.sleep(0.02)
        seconds = time.monotonic() - begun
        if process.returncode not in (0, 1):
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {said.read()}")
    return AuditResult(manifest, " ".join(arguments), seconds, peak / 1024)


def _most_held(pid: int) -> int:
    """The most memory in KiB that a process has held; 0 when it is gone. The usage that its parent is told at its end
    would count what the parent itself held when it forked."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
