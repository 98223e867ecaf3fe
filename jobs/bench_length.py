"""Does a job's memory follow the length of a video? Whole jobs on sources of one size and several lengths.

The real planning, splitting, decoding, staging and commit run, with the tests' codec in place of the real one: the
driver in one fresh process, one worker in another, and the peaks of both are the kernel's. Sources are one drawn clip
with sound, repeated packet by packet.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import av
from rich.console import Console
from rich.table import Table

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch
from s2vc_ray.pool import WorkerPool
from s2vc_ray.worker import Worker

PIECE = 10
"""Seconds of the clip that is repeated."""
_RATE = 25
_CONFIG = JobConfig(
    model="fake", metrics=MetricPolicy.parse("none"), executor="local", allow_larger=True, device="cpu"
)
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class LengthResult:
    """Peaks in MB of driver and worker for a source of so many seconds, and how long the job took."""

    length: int
    frames: int
    gops: int
    driver_mb: float
    worker_mb: float
    seconds: float


def run_lengths(lengths: tuple[int, ...], suffix: str) -> Iterator[LengthResult]:
    """One job for each length in seconds, in whole pieces.

    Raises:
        ConfigError: this is no checkout, or a length is no multiple of a piece.
        RuntimeError: a job failed.
    """
    if any(length < PIECE or length % PIECE for length in lengths):
        raise ConfigError(f"lengths are multiples of {PIECE} seconds")
    try:
        from tests.media import make_clip
    except ImportError as error:
        raise ConfigError(
            f"the bench of lengths runs from a checkout with the dev extra ({error})"
        ) from error
    with tempfile.TemporaryDirectory(prefix="s2vc-") as scratch:
        piece = make_clip(
            Path(scratch, "piece.mp4"),
            frames=PIECE * _RATE,
            audio="aac",
            gop=_RATE,
            b_frames=0,
            options={"preset": "ultrafast"},
        )
        for length in lengths:
            source = Path(scratch, f"{length}{suffix}")
            repeat(piece, source, length // PIECE)
            yield _run(source, Path(scratch, f"out-{length}"), length)


def repeat(piece: Path, path: Path, times: int) -> None:
    """``piece`` so many times over, without decoding it."""
    with av.open(str(piece)) as clip, av.open(str(path), "w") as out:
        streams = [clip.streams.video[0], clip.streams.audio[0]]
        copies = {one.index: out.add_stream_from_template(one) for one in streams}
        packets = [(one, bytes(one)) for one in clip.demux(streams) if one.size]
        # Each stream by its own length, since frames of sound do not end where pictures do.
        lasts = {one.index: 0 for one in streams}
        for packet, _ in packets:
            lasts[packet.stream_index] += packet.duration or 0
        for number in range(times):
            for packet, data in packets:
                copy = av.Packet(data)
                copy.stream, copy.time_base = copies[packet.stream_index], packet.time_base
                shift = number * lasts[packet.stream_index]
                copy.pts, copy.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
                out.mux(copy)


def _run(source: Path, out: Path, length: int) -> LengthResult:
    begun = time.monotonic()
    # A fresh interpreter that has imported nothing of the bench's.
    command = "import sys; from jobs.bench_length import drive; drive(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", command, str(source), str(out)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the job of {length} seconds failed")
    frames, gops, driver_mb, worker_mb = json.loads(done.stdout)
    return LengthResult(length, frames, gops, driver_mb, worker_mb, round(time.monotonic() - begun, 1))


def drive(source: str, out: str) -> None:
    """The driver's process: run the job and print what was needed."""
    executor = OneProcess(out)
    report = compress([source], out, _CONFIG, executor=executor)
    if report.totals.ok != 1:
        raise RuntimeError(f"{report.totals.ok} of 1 videos were compressed")
    print(json.dumps((report.totals.frames, report.totals.gops, _peak_mb(), executor.peak_mb)))


class OneProcess:
    """One worker in a process of its own. See `s2vc_ray.executor.Executor`."""

    window = 2

    def __init__(self, destination: str) -> None:
        self._ours, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_work, args=(destination, theirs))
        self._process.start()
        theirs.close()
        self.peak_mb = 0.0

    @property
    def pool(self) -> WorkerPool:
        """The one worker."""
        return WorkerPool(1, 1)

    def start(self) -> CodecIdentity:
        """Wait for the worker."""
        identity: CodecIdentity = self._ours.recv()
        return identity

    def submit(self, batch: GopBatch) -> None:
        """Send ``batch``."""
        self._ours.send(batch)

    def next_result(self, timeout: float | None = None) -> BatchResult | None:
        """Wait for the oldest batch."""
        if not self._ours.poll(timeout):
            return None
        result: BatchResult = self._ours.recv()
        return result

    def close(self) -> None:
        """Let the worker say what it needed, and go."""
        self._ours.send(None)
        self.peak_mb = self._ours.recv()
        self._process.join()


def _work(destination: str, told: Connection) -> None:
    """The worker's process."""
    from tests.fakes import load_fake

    worker = Worker(destination, _CONFIG, threads=1, load_codec=load_fake)
    told.send(worker.identity())
    while (batch := told.recv()) is not None:
        told.send(worker.encode(batch))
    told.send(_peak_mb())


def _peak_mb() -> float:
    """Most memory this program had resident; what ``getrusage`` tells includes whoever started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return round(int(peak.split()[1]) / 1024, 1)


def print_lengths(lengths: tuple[int, ...], suffix: str, console: Console, *, as_json: bool) -> None:
    """Run and print."""
    results = list(run_lengths(lengths, suffix))
    if as_json:
        print(json.dumps([asdict(one) for one in results], indent=2))
        return
    table = Table(title=f"One {suffix} source of 64x48, {_RATE} frames a second")
    for column in ("length, s", "frames", "GOPs", "driver peak, MB", "worker peak, MB", "job, s"):
        table.add_column(column, justify="right")
    for one in results:
        figures = (one.length, one.frames, one.gops, one.driver_mb, one.worker_mb, one.seconds)
        table.add_row(*map(str, figures))
    console.print(table)
