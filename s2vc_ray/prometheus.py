"""A job's figures for Prometheus, served by the driver.

Every name is a row of `FAMILIES`; to export another figure, add a row. Rows are computed when somebody scrapes, from
one `JobMeter.read`, so a million GOPs cost no more than one. What is not known has no sample: a machine without NVML
has no GPU load rather than one of nought. Whatever `s2vc_ray.counters` counts is exported as ``s2vc_<name>_total``.

The driver exports for the whole job, on Ray as well: it hears of every GOP, and its figures outlive workers. Ray's own
metrics would need the dashboard's agents, which a local cluster does not start, and would begin again from nought with
each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from s2vc_ray import counters
from s2vc_ray.errors import ConfigError
from s2vc_ray.job_meter import Counts, JobMeter
from s2vc_ray.pool import GpuReading

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

PREFIX = "s2vc_"
_Samples = Iterable[tuple[tuple[str, ...], float | None]]
"""Label values, and a figure; None is not exported."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name (a counter's is exported with ``_total``), its labels, and how it is read."""

    name: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    help: str
    read: Callable[[Counts], _Samples]
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that a query uses."""
        return f"{PREFIX}{self.name}{'_total' if self.kind is CounterMetricFamily else ''}"


def _one(figure: Callable[[Counts], float | None]) -> Callable[[Counts], _Samples]:
    return lambda counts: [((), figure(counts))]


def _each(tallies: Callable[[Counts], Mapping[str, int]]) -> Callable[[Counts], _Samples]:
    return lambda counts: [((name,), number) for name, number in tallies(counts).items()]


def _gpu(figure: Callable[[GpuReading], float | None]) -> Callable[[Counts], _Samples]:
    return lambda counts: [
        ((reading.host, str(reading.index)), figure(reading))
        for reading in (counts.pool.readings if counts.pool else ())
    ]


def _gops(counts: Counts) -> _Samples:
    return [(("coded",), counts.gops_coded), (("resumed",), counts.gops_resumed)]


def _spent(counts: Counts) -> _Samples:
    if counts.pool is None:
        return []
    kinds = ("source", "wait", "encode", "measure", "stage")
    return [((kind,), getattr(counts.usage, f"{kind}_seconds")) for kind in kinds]


def _depths(counts: Counts) -> _Samples:
    depths = counts.depths
    if depths is None:
        return []
    stages = ("planning", "queued", "coding", "committing")
    return [((stage,), getattr(depths, stage)) for stage in stages]


_STATUSES = ("ok", "partial", "skipped", "failed", "excluded")


def _videos(counts: Counts) -> _Samples:
    return [((status,), counts.videos[status]) for status in _STATUSES]


_COUNTER, _GAUGE = CounterMetricFamily, GaugeMetricFamily

FAMILIES = (
    Family("job_info", _GAUGE, "1; the label is the job's id.", lambda c: [((c.job,), 1)], ("job_id",)),
    Family(
        "job_start_time_seconds", _GAUGE, "When the job began, Unix time.", _one(lambda c: c.started or None)
    ),
    Family(
        "last_progress_time_seconds",
        _GAUGE,
        "When a video was last planned or ended or a GOP was last coded, Unix time.",
        _one(lambda c: c.moved or None),
    ),
    Family("sources", _GAUGE, "Sources the job was given.", _one(lambda c: c.sources or None)),
    Family("videos", _COUNTER, "Sources that have come to their end.", _videos, ("status",)),
    Family("video_errors", _COUNTER, "Sources with an error.", _each(lambda c: c.failures), ("error_class",)),
    Family("planned_videos", _COUNTER, "Videos that were to be coded.", _one(lambda c: c.planned_videos)),
    Family("planned_gops", _COUNTER, "GOPs of planned videos.", _one(lambda c: c.planned_gops)),
    Family("planned_frames", _COUNTER, "Frames of planned videos.", _one(lambda c: c.planned_frames)),
    Family(
        "settled_frames",
        _COUNTER,
        "Planned frames that are staged, or given up with their video.",
        _one(lambda c: c.frames_settled),
    ),
    Family("gops", _COUNTER, "GOPs staged: coded by this run, or found staged.", _gops, ("how",)),
    Family("gop_failures", _COUNTER, "GOPs given up.", _each(lambda c: c.gops_failed), ("error_class",)),
    Family("gop_retries", _COUNTER, "GOPs tried again.", _each(lambda c: c.retries), ("error_class",)),
    Family("frames", _COUNTER, "Frames coded by this run.", _one(lambda c: c.frames)),
    Family("pixels", _COUNTER, "True pixels of those frames.", _one(lambda c: c.pixels)),
    Family(
        "video_seconds", _COUNTER, "Playing time of those frames.", _one(lambda c: c.video_seconds or None)
    ),
    Family("payload_bytes", _COUNTER, "Bytes those frames were coded to.", _one(lambda c: c.payload_bytes)),
    Family(
        "source_bytes", _COUNTER, "Sizes of sources archived by this run.", _one(lambda c: c.source_bytes)
    ),
    Family("archive_bytes", _COUNTER, "Sizes of their archives.", _one(lambda c: c.archive_bytes)),
    Family("bits_per_pixel", _GAUGE, "Payload bits per true pixel, of this run.", _one(lambda c: c.bpp)),
    Family("frames_per_second", _GAUGE, "Frames coded, over two minutes.", _one(lambda c: c.fps)),
    Family("batch_seconds", _COUNTER, "Time that batches spent in each step of a worker.", _spent, ("step",)),
    Family(
        "lane_seconds", _COUNTER, "Lanes over time.", _one(lambda c: c.usage.lane_seconds if c.pool else None)
    ),
    Family(
        "busy_seconds",
        _COUNTER,
        "Lanes that were in the codec over time.",
        _one(lambda c: c.usage.busy_seconds if c.pool else None),
    ),
    Family(
        "encoder_busy_ratio",
        _GAUGE,
        "Share of lanes that were in the codec, over two minutes.",
        _one(lambda c: c.busy),
    ),
    Family("stage_depth", _GAUGE, "Videos, GOPs or batches in a stage.", _depths, ("stage",)),
    Family(
        "window",
        _GAUGE,
        "Batches that workers would take.",
        _one(lambda c: c.depths.window if c.depths else None),
    ),
    Family(
        "workers", _GAUGE, "Workers with a loaded codec.", _one(lambda c: c.pool.workers if c.pool else None)
    ),
    Family(
        "lanes",
        _GAUGE,
        "Batches that may be in codecs at once.",
        _one(lambda c: c.pool.lanes if c.pool else None),
    ),
    Family("gpus", _GAUGE, "GPUs that workers claim.", _one(lambda c: c.pool.gpus if c.pool else None)),
    Family("worker_seconds", _COUNTER, "Workers held over time.", _one(lambda c: c.worker_seconds)),
    Family("gpu_seconds", _COUNTER, "GPUs held over time.", _one(lambda c: c.gpu_seconds)),
    Family(
        "gpu_utilisation_ratio",
        _GAUGE,
        "Kernels running, by NVML.",
        _gpu(lambda r: r.utilisation),
        ("host", "gpu"),
    ),
    Family(
        "gpu_memory_used_bytes",
        _GAUGE,
        "Memory in use, by NVML.",
        _gpu(lambda r: r.memory_used),
        ("host", "gpu"),
    ),
    Family(
        "gpu_memory_bytes",
        _GAUGE,
        "Memory there is, by NVML.",
        _gpu(lambda r: r.memory_total),
        ("host", "gpu"),
    ),
)


class JobCollector(Collector):
    """Turns a meter's figures into metrics whenever it is asked."""

    def __init__(self, meter: JobMeter) -> None:
        self._meter = meter

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are unique by construction, and a scrape at registration would be for nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families that have a sample, then what is counted elsewhere."""
        counts = self._meter.read()
        for family in FAMILIES:
            metric = family.kind(f"{PREFIX}{family.name}", family.help, labels=family.labels)
            for labels, value in family.read(counts):
                if value is not None:
                    metric.add_metric(labels, value)
            if metric.samples:
                yield metric
        yield from _counted(counters.snapshot())


def _counted(samples: Iterable[counters.Sample]) -> Iterator[Metric]:
    by_name: dict[str, list[counters.Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    for name, group in by_name.items():
        labels = sorted({label for sample in group for label, _ in sample.labels})
        metric = CounterMetricFamily(f"{PREFIX}{name}", f"Counted as {name}.", labels=labels)
        for sample in group:
            held = dict(sample.labels)
            metric.add_metric([held.get(label, "") for label in labels], sample.value)
        yield metric


class MetricsServer:
    """Answers ``GET /metrics`` until closed; use it as a context.

    Args:
        meter: whose figures.
        port: to listen on; 0 takes a free one, see `port`.
        host: the address to listen on: the loopback alone, unless told otherwise.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, meter: JobMeter, port: int, host: str = "127.0.0.1") -> None:
        registry = CollectorRegistry()
        registry.register(JobCollector(meter))
        # The driver's own memory, CPU time and open files; where the system does not tell them, nothing.
        ProcessCollector(namespace="s2vc_driver", registry=registry)
        try:
            served: tuple[WSGIServer, Thread] = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"metrics cannot be served on {host}:{port}: {error}") from error
        self._server, self._thread = served

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
