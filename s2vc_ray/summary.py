"""What a video and a job came to, in figures and in lines for people. Pure functions over values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from s2vc_ray.cost import Cost, Prices, cost_of
from s2vc_ray.counters import Sample
from s2vc_ray.job_meter import Counts
from s2vc_ray.results import JobReport, VideoResult
from s2vc_ray.words import duration, few, share, size, tally


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run came to; None is what is not known.

    Attributes:
        seconds: wall time.
        probes: of the GOPs coded for a target, how many q each was coded at on average; None without.
        gops, frames, video_hours, bpp: what this run coded; ``gops_resumed`` were staged by an earlier one.
        fps: frames coded per second of wall time; ``times_real_time``: seconds of video per second.
        source_bytes, archive_bytes, ratio: of the videos whose archive this run finished.
        encoder_busy: share of the workers' lanes that were in the codec since workers came up, 0..1.
        worker_hours, gpu_hours: held, busy or not.
        retries: GOPs tried again, by class of error. ``failures``: sources with an error, by its class.
        counters: everything else that was counted on the way, named as Prometheus writes it.
        cost: all None without prices.
    """

    seconds: float
    gops: int
    gops_resumed: int
    frames: int
    probes: float | None
    video_hours: float | None
    bpp: float | None
    fps: float | None
    times_real_time: float | None
    source_bytes: int
    archive_bytes: int
    ratio: float | None
    encoder_busy: float | None
    worker_hours: float | None
    gpu_hours: float | None
    retries: dict[str, int]
    failures: dict[str, int]
    counters: dict[str, int]
    cost: Cost


def sum_up(counts: Counts, samples: Iterable[Sample] = (), prices: Prices | None = None) -> Summary:
    """The figures of a run, from what `JobMeter` and `s2vc_ray.counters` have counted."""
    video_seconds = counts.video_seconds or None
    return Summary(
        seconds=counts.seconds,
        gops=counts.gops_coded,
        gops_resumed=counts.gops_resumed,
        frames=counts.frames,
        probes=_over(counts.probes or None, counts.gops_coded),
        video_hours=_hours(video_seconds),
        bpp=counts.bpp,
        fps=_over(counts.frames, counts.seconds),
        times_real_time=_over(video_seconds, counts.seconds),
        source_bytes=counts.source_bytes,
        archive_bytes=counts.archive_bytes,
        ratio=_over(counts.source_bytes, counts.archive_bytes),
        encoder_busy=counts.whole_run_busy,
        worker_hours=_hours(counts.worker_seconds),
        gpu_hours=_hours(counts.gpu_seconds),
        retries=dict(counts.retries),
        failures=dict(counts.failures),
        counters={named(sample): sample.value for sample in samples},
        cost=cost_of(
            prices or Prices(),
            worker_seconds=counts.worker_seconds,
            gpu_seconds=counts.gpu_seconds,
            video_seconds=counts.video_seconds,
            source_bytes=counts.source_bytes,
            archive_bytes=counts.archive_bytes,
        ),
    )


def sentences(summary: Summary) -> list[str]:
    """A summary in a few lines; what is not known or did not happen is left out."""
    return [line for line in (_coded(summary), _held(summary), *_troubles(summary), _priced(summary)) if line]


def describe(result: VideoResult) -> str:
    """One source's end in one line."""
    if result.status == "failed":
        return f"{result.name}: FAILED, {result.error_class}: {result.error}"
    if result.status == "skipped":
        whole = f"PARTIAL: {result.error}" if result.error else f"{result.archive} is complete"
        return f"{result.name}: skipped, {whole}{_missed(result.targets_missed)}"
    if result.status == "excluded":
        return f"{result.name}: {'; '.join(result.notes)}"
    lost = f", PARTIAL: {result.error}" if result.error else ""
    notes = "".join(f"; {note}" for note in result.notes)
    return (
        f"{result.name}: {result.frames} frames, {size(result.source_bytes)} -> "
        f"{size(result.archive_bytes)}, {result.bpp or 0:.4f} bpp{_missed(result.targets_missed)}{lost}{notes}"
    )


def _missed(gops: int) -> str:
    return f", {gops} GOPs MISS their target" if gops else ""


def summarise(report: JobReport) -> str:
    """A job's ends in one line."""
    line = (
        f"{report.count('ok')} compressed, {report.count('partial')} in part, {report.count('skipped')} skipped, "
        f"{report.count('failed')} failed in {report.seconds:.1f} s"
    )
    if report.totals.excluded:
        line += f"; {report.totals.excluded} excluded by the policy"
    if report.totals.frames:
        line += f"; {size(report.totals.source_bytes)} -> {size(report.totals.archive_bytes)}"
    return line + _missed(report.totals.targets_missed)


def named(sample: Sample) -> str:
    """A counter as Prometheus writes it: ``s3_retries{reason="SlowDown"}``."""
    labels = ",".join(f'{name}="{value}"' for name, value in sample.labels)
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _coded(summary: Summary) -> str:
    if not summary.gops:
        return ""
    line = f"coded {summary.frames} frames in {summary.gops} GOPs"
    if summary.fps is not None:
        line += f" at {summary.fps:.1f} fps"
    if summary.times_real_time is not None and summary.video_hours is not None:
        line += f", {few(summary.times_real_time)} times real time ({duration(summary.video_hours * 3600)} of video)"
    if summary.bpp is not None:
        line += f", {summary.bpp:.4f} bpp"
    if summary.ratio is not None:
        line += f", sources to archives {few(summary.ratio)} : 1"
    if summary.probes:
        line += f", {few(summary.probes)} probes a GOP"
    if summary.gops_resumed:
        line += f"; {summary.gops_resumed} GOPs were staged already"
    return line


def _held(summary: Summary) -> str:
    if summary.worker_hours is None:
        return ""
    line = f"held {few(summary.worker_hours)} worker-hours"
    if summary.gpu_hours:
        line += f" and {few(summary.gpu_hours)} GPU-hours"
    return f"{line}, encoder busy {share(summary.encoder_busy)}"


def _troubles(summary: Summary) -> list[str]:
    return [
        f"{what}: {tally(counts)}"
        for what, counts in (
            ("GOPs tried again", summary.retries),
            ("counted on the way", summary.counters),
            ("sources with an error", summary.failures),
        )
        if counts
    ]


def _priced(summary: Summary) -> str:
    cost, parts = summary.cost, []
    if cost.total is not None and cost.hours is not None:
        unit = "GPU" if cost.unit == "gpu" else "worker"
        parts.append(f"cost {few(cost.total)} for {few(cost.hours)} {unit}-hours")
        if cost.per_video_hour is not None:
            parts.append(f"{few(cost.per_video_hour)} per hour of video")
    if cost.saved_per_month is not None:
        less = size(summary.source_bytes - summary.archive_bytes)
        parts.append(f"archives in place of sources save {less}, {few(cost.saved_per_month)} a month")
        if cost.months_to_repay is not None:
            parts.append(f"repaid in {few(cost.months_to_repay)} months")
    return "; ".join(parts)


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _over(value: float | None, by: float) -> float | None:
    return value / by if value is not None and by else None
