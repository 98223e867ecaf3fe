"""What a job knows of a video, as manifest rows. Pure: values in, values out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any

from s2vc_model.picture_scale import SCALES
from s2vc_ray.archive import ArchiveHeader, ArchiveIndex
from s2vc_ray.config import JobConfig
from s2vc_ray.executor import CodecIdentity
from s2vc_ray.fixity import Fixity
from s2vc_ray.gop_decoder import AV1
from s2vc_ray.gop_log import GopLog, GopTotals
from s2vc_ray.manifest import ManifestRow
from s2vc_ray.plan import ExcludedVideo, SourceFixity, VideoFailure
from s2vc_ray.risk import Risk
from s2vc_ray.sources import Source
from s2vc_ray.staging import StagedGop

INCOMPLETE = "IncompleteSource"
"""``error_class`` of what was compressed in part."""

STRAYED = "seeking leads elsewhere: read from the source's beginning"
"""Beside what was decided about a source, in the rows of GOPs that were come by this way."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """One run: its id, when it began (UTC), its options, and the codec it found.

    ``where`` is the condition that names the GOPs of a job that codes some again.
    """

    job: str
    created: datetime
    config: JobConfig
    codec: CodecIdentity
    where: str = ""

    @property
    def config_hash(self) -> str:
        """Hash of what decides an archive's bytes."""
        return self.config.config_hash(self.codec.weights_sha256)

    @property
    def asked(self) -> str:
        """All options as JSON."""
        options = json.loads(self.config.to_json()) | ({"where": self.where} if self.where else {})
        return json.dumps(options, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Published:
    """An archive at its place: its key, fixity, header and index.

    ``framemd5_sha256`` is of the frame list beside it, None where there is none.
    """

    key: str
    fixity: Fixity
    header: ArchiveHeader
    index: ArchiveIndex
    framemd5_sha256: str | None = None


def gop_rows(
    job: JobContext, source: Source, known: SourceFixity, archive: Published, gops: GopLog
) -> Iterator[ManifestRow]:
    """One row per GOP, in the archive's order; ``gops`` describe the archive's records one to one."""
    header, entries = archive.header, archive.index.gops
    lacking = incompleteness(source, header, gops.totals)
    base = replace(
        _base(job, source, known, "partial" if lacking else "ok"),
        frames_declared=header.frames,
        framemd5_sha256=archive.framemd5_sha256,
        creator=header.creator,
        archive_version=header.archive_version,
        replaces=header.replaces or None,
        coded_job=job.job,
        error_class=INCOMPLETE if lacking else None,
        error=_text(lacking) if lacking else None,
    )
    for gop, entry, later in zip(gops, entries, [*entries[1:], None], strict=True):
        end = later.first_pts if later else gop.pts[-1] + (header.last_duration or _usual_step(header, gop))
        seconds = float((end - gop.pts[0]) * header.time_base)
        metrics: dict[str, Any] = {
            f"{m.name}_{kind}": value
            for m in gop.metrics
            for kind, value in (
                ("mean", m.mean),
                ("worst", m.worst),
                ("p5", m.p5),
                ("worst_frame", m.worst_frame),
            )
        }
        yield replace(
            base,
            archive=archive.key,
            archive_bytes=archive.fixity.size,
            archive_sha256=archive.fixity.sha256,
            gop_index=gop.index,
            frames_expected=gop.frames_expected,
            frames_encoded=gop.frames,
            frames_corrupt=gop.frames_corrupt,
            pts_first=gop.pts[0],
            pts_last=gop.pts[-1],
            time_base_num=header.time_base.numerator,
            time_base_den=header.time_base.denominator,
            width=gop.width,
            height=gop.height,
            payload_offset=entry.payload_offset,
            payload_bytes=gop.payload_bytes,
            payload_sha256=gop.payload_sha256,
            bits_i=gop.bits_i,
            bits_p=gop.bits_p,
            bpp=gop.bpp,
            kbps=8 * gop.payload_bytes / seconds / 1000 if seconds > 0 else None,
            q=gop.q if gop.codec != AV1 else None,
            q_fine=gop.q_fine if gop.codec != AV1 else None,
            enlarged=SCALES[gop.scale].halves / 2 if gop.codec != AV1 else None,
            crf=gop.q if gop.codec == AV1 else None,
            codec=gop.codec,
            target=gop.target or None,
            target_value=gop.target_value,
            target_met=gop.target_met,
            probes=gop.probes if gop.target_met is not None else None,
            policy_sha256=gop.policy_sha256,
            policy_rule=gop.policy_rule,
            source_notes="; ".join((*header.decisions, *([STRAYED] if gop.strayed else []))) or None,
            **metrics,
            **_risk(gop.risk),
            metric_policy=gop.metric_policy,
            metric_frames=max((metric.frames for metric in gop.metrics), default=0),
            verify="decoded" if gop.verified == "decoded" else "crc",
            model_id=gop.model_id,
            weights_sha256=gop.weights_sha256,
            preset=header.preset,
            device=gop.device,
            torch=gop.torch,
            source_seconds=gop.source_seconds,
            encode_seconds=gop.encode_seconds,
            decode_seconds=gop.decode_seconds,
            attempts=gop.attempts,
        )


def _risk(risk: Risk | None) -> dict[str, Any]:
    return asdict(risk) if risk else {}


def incompleteness(source: Source, header: ArchiveHeader, totals: GopTotals) -> str | None:
    """What the archive lacks of a truncated or damaged source, in one sentence; None when it lacks nothing.

    ``totals`` are of all its GOPs.
    """
    there, corrupt = totals.frames_expected, totals.frames_corrupt
    unreadable = there - totals.frames
    said = []
    if header.frames > there:
        said.append(f"its header announces {header.frames} frames and {there} are there")
    if unreadable:
        said.append(f"{unreadable} of {there} frames cannot be read")
    if corrupt:
        said.append(f"{corrupt} frames decode with damage")
    if not said:
        return None
    return f"{source.uri} is truncated or damaged: {', '.join(said)}; the rest was compressed"


def failure_row(job: JobContext, failure: VideoFailure) -> ManifestRow:
    """The one row of a video that failed."""
    return replace(
        _base(job, failure.source, failure.fixity, "failed"),
        gop_index=failure.gop_index,
        model_id=job.codec.model_id,
        weights_sha256=job.codec.weights_sha256,
        preset=job.codec.preset,
        attempts=failure.attempts,
        error_class=failure.error_class,
        error=failure.error,
    )


def excluded_row(job: JobContext, video: ExcludedVideo) -> ManifestRow:
    """The one row of a video that the job's policy leaves out."""
    policy = job.config.policy
    return replace(
        _base(job, video.source, None, "excluded"),
        error=video.reason,
        policy_sha256=policy.sha256 if policy else None,
    )


def _base(job: JobContext, source: Source, known: SourceFixity | None, status: str) -> ManifestRow:
    return ManifestRow(
        job=job.job,
        created=job.created,
        config_hash=job.config_hash,
        config=job.asked,
        video_id=source.video_id,
        source_uri=_text(source.uri),
        source_name=_text(source.name),
        status=status,
        source_size=known.size if known else None,
        source_etag=known.etag if known else None,
        source_sha256=known.sha256 if known else None,
    )


def _usual_step(header: ArchiveHeader, gop: StagedGop) -> int:
    """Stands for an unknown last duration: the average frame's, else the last step between frames."""
    if header.average_rate:
        return round(Fraction(1) / header.average_rate / header.time_base)
    return gop.pts[-1] - gop.pts[-2] if gop.frames > 1 else 0


def _text(name: str) -> str:
    """File names need not be UTF-8, Parquet strings must: stray bytes are shown escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
