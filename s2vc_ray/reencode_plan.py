"""One revision → what is to be done about it: the source found and proved, its GOPs as references, what is staged.

The counterpart of `s2vc_ray.plan.plan_video`, with the same outcomes. Reads a source's bytes and packets, no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import (
    ArchiveError,
    ConfigError,
    CorruptArchive,
    ObjectExists,
    ObjectMissing,
    SourceError,
    WrongWeights,
)
from s2vc_ray.manifest import describe_archive
from s2vc_ray.plan import (
    Plan,
    PlannedVideo,
    PublishedVideo,
    SourceFixity,
    exclusion,
    failure_of,
    read_fixity,
    read_staged,
)
from s2vc_ray.probe import probe
from s2vc_ray.revision import Revision, Rows
from s2vc_ray.sources import open_media
from s2vc_ray.split import split_at
from s2vc_ray.storage import Storage
from s2vc_ray.values import VideoInfo
from s2vc_ray.verify_reference import find_source


def plan_revision(
    revision: Revision, storage: Storage, config: JobConfig, weights_sha256: str, parts: Sequence[str] = ()
) -> Plan:
    """Decide what is to be done about one revision. Never raises for a reason that lies in it.

    Args:
        parts: keys of the manifest parts that tell of the video.
    """
    known: SourceFixity | None = None
    try:
        if excluded := exclusion(revision, storage, config, parts):
            return excluded
        rows = revision.rows(storage)
        first = rows[0]
        known = SourceFixity(first.source_size or 0, first.source_etag or "", first.source_sha256 or "")
        staging = revision.staging(config, weights_sha256, known.sha256)
        _check_archive(revision, storage, config, weights_sha256)
        if is_made(revision, storage, config.config_hash(weights_sha256)):
            told = describe_archive(storage, parts, revision.archive_key)
            return PublishedVideo(revision, known, staging, revision.archive_key, told)
        uri = find_source(revision.root, revision.uri, revision.name)
        known = _read(revision, uri, known.sha256)
        with open_media(uri) as media:
            info = probe(media, uri=uri)
        _check_frames(revision, uri, info, rows)
        *starts, _ = accumulate((frames or 0 for frames in rows.column("frames_expected")), initial=0)
        specs = split_at(info, source_uri=uri, video_id=revision.video_id, starts=starts)
        chosen = tuple(specs[index] for index in revision.gops)
        return PlannedVideo(
            revision, known, info, chosen, staging, read_staged(storage, staging, revision.gops)
        )
    except Exception as error:
        return failure_of(revision, error, known)


def is_made(revision: Revision, storage: Storage, config_hash: str) -> bool:
    """Whether the new version is there, as this very revision makes it.

    Raises:
        ObjectExists: something else lies under its name.
    """
    key = revision.archive_key
    if storage.stat(key) is None:
        return False
    remedy = "it was left alone; run s2vc status, then the command again: it begins with what counts then"
    try:
        with storage.open(key) as stream:
            header = ArchiveReader(stream).header
    except ArchiveError as error:
        raise ObjectExists(f"{key} exists and is not a whole archive ({error}); {remedy}") from error
    if (header.replaces, header.revision) != (revision.base_sha256, revision.digest(config_hash)):
        raise ObjectExists(f"{key} exists and was made otherwise; {remedy}")
    return True


def _check_archive(revision: Revision, storage: Storage, config: JobConfig, weights_sha256: str) -> None:
    """Raise unless the archive that counts looks as the manifest says, and its GOPs can be coded by this model."""
    there = storage.stat(revision.base)
    if there is None:
        raise ObjectMissing(
            f"{revision.base} is described in the manifest and gone: restore it, or compress again"
        )
    if there.size != revision.base_bytes:
        raise CorruptArchive(
            f"{revision.base} has {there.size} bytes and the manifest says {revision.base_bytes}: see s2vc verify"
        )
    with storage.open(revision.base) as stream:
        header = ArchiveReader(stream).header
    if header.weights_sha256 != weights_sha256:
        raise WrongWeights(
            f"{revision.base} was coded by {header.model_id} (weights {header.weights_sha256[:12]}), and an archive "
            f"has one model; that of this job has weights {weights_sha256[:12]}: give the other with --model"
        )
    made = (header.shots, header.deinterlace, not header.own_size, header.refine)
    if made != (config.scene_cuts, config.deinterlace, config.enlarge, config.refine):
        raise ConfigError(
            f"{revision.base} was made with other options for scene cuts, interlaced, small or first pictures than "
            "the manifest says"
        )


def _read(revision: Revision, uri: str, sha256: str) -> SourceFixity:
    """The source's fixity, which must be what it was."""
    found = read_fixity(uri)
    if found.sha256 != sha256:
        raise SourceError(
            f"{uri} is not what {revision.base} was made from: its SHA-256 is {found.sha256}, the manifest says "
            f"{sha256}; nothing was changed: say where that source is with --source-root"
        )
    return found


def _check_frames(revision: Revision, uri: str, info: VideoInfo, rows: Rows) -> None:
    """Raise unless probing finds as many frames as when the archive was made, of the same size and time base."""
    first = rows[0]
    then = (
        sum(frames or 0 for frames in rows.column("frames_expected")),
        (first.width, first.height),
        (first.time_base_num, first.time_base_den),
    )
    now = (info.frames, (info.width, info.height), info.time_base.as_integer_ratio())
    if now != then or rows.column("gop_index") != list(range(len(rows))):
        raise SourceError(
            f"{uri} is read otherwise than when {revision.base} was made: frames, size and time base are {now}, not "
            f"{then}; nothing was changed: use the version that made it ({first.creator})"
        )
