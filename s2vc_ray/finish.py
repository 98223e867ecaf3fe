"""How a video ends: published and described, adopted, skipped or failed, always with its manifest part written.

Each function is one task for any node: it does the work, and gives back what the driver needs to know of it. It may
run twice, when a node is lost behind its back: the part that was written first stands. Knows nothing of executors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from s2vc_ray.commit import adopt, commit_video
from s2vc_ray.errors import ObjectExists
from s2vc_ray.gop_log import GopLog
from s2vc_ray.manifest import UNCODED, part_key, read_part, write_part
from s2vc_ray.plan import ExcludedVideo, PlannedVideo, PublishedVideo, VideoFailure, failure_of
from s2vc_ray.results import VideoResult
from s2vc_ray.rows import (
    INCOMPLETE,
    JobContext,
    Published,
    excluded_row,
    failure_row,
    incompleteness,
)
from s2vc_ray.sources import Source
from s2vc_ray.storage import Storage

Done = tuple[Published, GopLog]
"""An archive at its place, and what is known of each of its GOPs."""


def finish_coded(
    video: PlannedVideo, payloads: Mapping[int, str], job: JobContext, storage: Storage
) -> VideoResult:
    """Commit a video whose GOPs are all staged; ``payloads`` as in `commit_video`."""
    return finish(video, lambda: commit_video(video, payloads, job, storage), job, storage)


def finish_published(video: PublishedVideo, job: JobContext, storage: Storage) -> VideoResult:
    """Describe an archive that is there and not in the manifest."""
    return finish(video, lambda: adopt(video, job, storage), job, storage)


def finish_failed(failure: VideoFailure, job: JobContext, storage: Storage) -> VideoResult:
    """Record a failure.

    Raises:
        StorageError: the row cannot be written: the destination is gone.
    """
    try:
        write_part(storage, [failure_row(job, failure)])
    except ObjectExists:
        return _recorded(failure.source, job, storage)
    source = failure.source
    return VideoResult(
        source.uri,
        source.name,
        "failed",
        source_bytes=failure.fixity.size if failure.fixity else None,
        error_class=failure.error_class,
        error=failure.error,
    )


def finish_excluded(video: ExcludedVideo, job: JobContext, storage: Storage) -> VideoResult:
    """Record that a video is left out."""
    try:
        write_part(storage, [excluded_row(job, video)])
    except ObjectExists:
        return _recorded(video.source, job, storage)
    return excluded(video)


def excluded(video: ExcludedVideo) -> VideoResult:
    """The result of a source that the manifest says is left out. Touches nothing."""
    return VideoResult(video.source.uri, video.source.name, "excluded", notes=(video.reason,))


def skipped(video: PublishedVideo) -> VideoResult:
    """The result of a source whose archive is there and described. Touches nothing."""
    told = video.described
    return VideoResult(
        video.source.uri,
        video.source.name,
        "skipped",
        archive=video.archive,
        source_bytes=video.fixity.size,
        archive_bytes=told.archive_bytes if told else None,
        error_class=told.error_class if told else None,
        error=told.error if told else None,
        targets_missed=told.targets_missed if told else 0,
    )


def finish(
    video: PlannedVideo | PublishedVideo,
    work: Callable[[], Done | VideoResult],
    job: JobContext,
    storage: Storage,
) -> VideoResult:
    """The result of ``work``, which publishes and describes; a failure that is recorded, when it fails."""
    try:
        done = work()
    except Exception as error:  # one video's trouble
        if isinstance(error, ObjectExists) and storage.stat(part_key(job.job, video.source.video_id)):
            return _recorded(video.source, job, storage)
        return finish_failed(failure_of(video.source, error, video.fixity), job, storage)
    if isinstance(done, VideoResult):
        return done
    published, totals = done[0], done[1].totals
    lacking = incompleteness(video.source, published.header, totals)
    return VideoResult(
        video.source.uri,
        video.source.name,
        "partial" if lacking else "ok",
        archive=published.key,
        source_bytes=video.fixity.size,
        archive_bytes=published.fixity.size,
        payload_bytes=totals.payload_bytes,
        frames=totals.frames,
        frames_lost=published.header.frames - totals.frames,
        gops=totals.gops,
        pixels=totals.pixels,
        targets_missed=totals.targets_missed,
        error_class=INCOMPLETE if lacking else None,
        error=lacking,
        notes=published.header.decisions,
    )


def _recorded(source: Source, job: JobContext, storage: Storage) -> VideoResult:
    """What this job has written of the source already."""
    rows = read_part(storage, part_key(job.job, source.video_id)).to_pylist()
    first = rows[0]
    if first["status"] == "excluded":
        return excluded(ExcludedVideo(source, first["error"]))
    coded = rows if first["status"] not in UNCODED else []
    frames = sum(row["frames_encoded"] for row in coded)
    return VideoResult(
        source.uri,
        source.name,
        first["status"],
        archive=first["archive"],
        source_bytes=first["source_size"],
        archive_bytes=first["archive_bytes"],
        payload_bytes=sum(row["payload_bytes"] for row in coded),
        frames=frames,
        frames_lost=(first["frames_declared"] or 0) - frames if coded else 0,
        gops=len(coded),
        pixels=sum(row["frames_encoded"] * row["width"] * row["height"] for row in coded),
        targets_missed=sum(row["target_met"] is False for row in coded),
        error_class=first["error_class"],
        error=first["error"],
        notes=tuple(filter(None, [first["source_notes"]])),
    )
