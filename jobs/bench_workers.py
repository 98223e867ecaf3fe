"""Measures how the job scales with its workers: the real flow, Ray executor, workers, sources and staging, and a codec
that sleeps for as long as a GOP takes instead of computing.

So a machine of two cores can stand for a cluster, as long as what is left (reading sources, staging, Ray and the
driver) leaves it idle. Efficiency is the share of worker time spent in the codec, from the first plan to the last GOP;
it is 1 when throughput is linear in workers. `run_ray_data` puts the same batches through Ray Data.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil
import ray
from rich.console import Console

from s2vc_model.bitstream import EncodedGop
from s2vc_model.picture_scale import Size
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.executor import CodecIdentity, GopBatch, GopTask
from s2vc_ray.manifest import read_manifest
from s2vc_ray.probe import probe
from s2vc_ray.progress import Silent
from s2vc_ray.ray_executor import RayExecutor
from s2vc_ray.split import split
from s2vc_ray.staging import StagedGop
from s2vc_ray.worker import Worker

Frames = npt.NDArray[np.uint8]
_GOP = 8
_SIDE = 64
_KILL_AFTER = 25.0


@dataclass(frozen=True, slots=True)
class WorkersResult:
    """``gops`` GOPs on ``workers``.

    ``seconds`` from the first plan to the last GOP, ``efficiency`` of that time; None where it cannot be told apart
    from the start. ``wall`` is all of it: starting actors, coding and (ours) committing.
    """

    workers: int
    gops: int
    wall: float
    seconds: float | None = None
    efficiency: float | None = None


class SleepingCodec:
    """A codec that takes its time and keeps nothing. See `s2vc_ray.values.GopCodec`."""

    model_id = "sleeper"
    weights_sha256 = "5e" * 32
    reads: Sequence[str] = ()
    preset = "sleeper"
    parallel = 1
    device = "cpu"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def fitting(self, stage: str, height: int, width: int) -> int:
        """Any number."""
        return sys.maxsize

    def sizes(self, height: int, width: int) -> Sequence[Size]:
        """Their own."""
        return (Size(),)

    def encode_gops(
        self, gops: Sequence[Frames], q: float | Sequence[float], larger: bool | None = None
    ) -> list[EncodedGop]:
        """Sleep; then payloads of a few bytes."""
        time.sleep(self._seconds)
        qualities = [q] * len(gops) if isinstance(q, int | float) else q
        return [
            EncodedGop(g.shape[2], g.shape[1], len(g), int(own), b"", b"", bytes(len(g)), 0)
            for g, own in zip(gops, qualities, strict=True)
        ]

    def decode_gops(self, gops: Sequence[EncodedGop]) -> list[Frames]:
        """Not to be had back."""
        raise NotImplementedError

    def iter_decode(self, gops: Sequence[EncodedGop]) -> Iterator[dict[int, Frames]]:
        """Not to be had back."""
        raise NotImplementedError

    def check_symbols(self, gops: Sequence[EncodedGop]) -> None:
        """There are none."""


class AllUp(RayExecutor):
    """Lets a job begin when all its workers are there: coming up is not what is measured."""

    def start(self) -> CodecIdentity:
        """Wait for them."""
        codec = super().start()
        while self.window < self._config.workers:
            self.next_result(1.0)
        return codec


class _Watch(Silent):
    """Wall time from the first plan to the last GOP."""

    def __init__(self) -> None:
        self._begun = self._ended = 0.0

    @property
    def seconds(self) -> float:
        return self._ended - self._begun

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        self._begun = self._begun or time.monotonic()

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        self._ended = time.monotonic()


def run_workers(
    workers: int, *, seconds: float = 2.0, each: int = 12, videos: int = 8, kill_after: float = 0.0
) -> WorkersResult:
    """Run a job of ``workers * each`` GOPs of ``videos`` videos on a Ray of as many simulated cores as workers."""
    total = workers * each
    with tempfile.TemporaryDirectory(prefix="s2vc-") as folder:
        sources, out = Path(folder, "in"), str(Path(folder, "out"))
        _write_clips(sources, total, videos)
        config = _config(workers)
        watch = _Watch()
        with _ray(workers), _killing("Encoder", kill_after):
            begun = time.monotonic()
            executor = AllUp(out, config, functools.partial(_load, seconds))
            report = compress([str(sources)], out, config, reporter=watch, executor=executor)
            wall = time.monotonic() - begun
        if not report.clean or read_manifest(out).num_rows != total:
            raise RuntimeError(f"{report.totals.failed} of {videos} videos failed")
    return WorkersResult(workers, total, wall, watch.seconds, total * seconds / (workers * watch.seconds))


def print_workers(counts: Sequence[int], seconds: float, console: Console, *, as_json: bool) -> None:
    """Efficiency at each number of workers; then ours beside Ray Data, undisturbed and with one actor killed."""
    ours = [run_workers(count, seconds=seconds) for count in counts]
    most = max(counts)
    beside = {
        "ours": run_workers(most, seconds=seconds),
        "ray.data": run_ray_data(most, seconds=seconds),
        "ours, one actor killed": run_workers(most, seconds=seconds, kill_after=_KILL_AFTER),
        "ray.data, one actor killed": run_ray_data(most, seconds=seconds, kill_after=_KILL_AFTER),
    }
    if as_json:
        found = {name: asdict(result) for name, result in beside.items()}
        print(json.dumps({"workers": [asdict(result) for result in ours], "beside": found}))
        return
    for one in ours:
        console.print(
            f"{one.workers} workers: {one.gops} GOPs in {one.seconds:.1f} s, efficiency {one.efficiency:.1%}",
            highlight=False,
        )
    for name, one in beside.items():
        console.print(f"{name}: {one.gops} GOPs, {one.wall:.1f} s with the start of actors", highlight=False)


class _Coder:
    """What Ray Data calls: the job's own worker."""

    def __init__(self, destination: str, config: JobConfig, seconds: float) -> None:
        self._worker = Worker(destination, config, load_codec=functools.partial(_load, seconds))

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        tasks = tuple(pickle.loads(row) for row in rows["task"])  # noqa: S301  pickled a moment ago, by us
        outcomes = self._worker.encode(GopBatch(tasks)).outcomes
        return {"staged": [isinstance(outcome, StagedGop) for outcome in outcomes]}


def run_ray_data(
    workers: int, *, seconds: float = 2.0, each: int = 12, videos: int = 8, kill_after: float = 0.0
) -> WorkersResult:
    """The same GOPs through ``ray.data``'s ``map_batches`` on a fixed pool of actors: coded and staged, not committed.

    Its actors' start cannot be told apart from outside.
    """
    import ray.data

    total = workers * each
    with tempfile.TemporaryDirectory(prefix="s2vc-") as folder:
        sources, out = Path(folder, "in"), str(Path(folder, "out"))
        _write_clips(sources, total, videos)
        tasks = [
            {"task": pickle.dumps(GopTask(spec, f"_s2vc/staging/{number}"))}
            for number, path in enumerate(sorted(sources.iterdir()))
            for spec in split(probe(str(path)), source_uri=str(path), video_id=str(number), gop=_GOP)
        ]
        with _ray(workers), _killing("MapWorker", kill_after):
            ray.data.DataContext.get_current().enable_progress_bars = False
            begun = time.monotonic()
            done = (
                ray.data.from_items(tasks, override_num_blocks=total)
                .map_batches(
                    _Coder,
                    fn_constructor_args=(out, _config(workers), seconds),
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    num_cpus=1,
                )
                .take_all()
            )
            wall = time.monotonic() - begun
        if sum(row["staged"] for row in done) != total:
            raise RuntimeError("Ray Data lost a GOP")
    return WorkersResult(workers, total, wall)


@contextmanager
def _ray(cores: int) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _killing(name: str, after: float) -> Iterator[None]:
    """Kill one actor of that class ``after`` seconds from now, unless 0."""

    def kill() -> None:
        for process in psutil.process_iter(["cmdline"]):
            if any(part.startswith("ray::") and name in part for part in process.info["cmdline"] or ()):
                process.kill()
                return

    timer = threading.Timer(after, kill)
    if after:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _config(workers: int) -> JobConfig:
    return JobConfig(
        gop=_GOP,
        device="cpu",
        allow_larger=True,
        threads=1,
        workers=workers,
        metrics=MetricPolicy.parse("none"),
    )


def _write_clips(folder: Path, gops: int, videos: int) -> None:
    folder.mkdir()
    for number in range(videos):
        share = gops // videos + (number < gops % videos)
        _write_clip(folder / f"{number}.mp4", share * _GOP)


def _load(seconds: float, model: str, device: str) -> SleepingCodec:
    return SleepingCodec(seconds)


def _write_clip(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"g": str(_GOP)})
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        for number in range(frames):
            picture = np.full((_SIDE, _SIDE, 3), number % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
