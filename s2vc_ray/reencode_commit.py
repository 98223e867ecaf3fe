"""From staged GOPs and the archive that counts to a new version of it, in the order of `s2vc_ray.commit`.

Prove the old archive, assemble the new one from its payloads and the staged ones, verify that by reading all of it
again, publish it if nothing is there yet, write the manifest part, and only then clear staging. Nothing is overwritten.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from s2vc_ray.adopted import adopted_gop, unmeasured
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord, write_archive
from s2vc_ray.commit import check_smaller, clear_staging, creator, verified
from s2vc_ray.errors import CorruptArchive, ObjectMissing, SourceError
from s2vc_ray.finish import Done, finish, skipped
from s2vc_ray.fixity import fixity
from s2vc_ray.framemd5 import read_frame_list
from s2vc_ray.gop_log import GopLog
from s2vc_ray.manifest import ManifestRow, write_part
from s2vc_ray.plan import PlannedVideo, PublishedVideo, SourceFixity
from s2vc_ray.reencode_plan import is_made
from s2vc_ray.results import VideoResult
from s2vc_ray.revision import Revision
from s2vc_ray.rows import JobContext, Published, gop_rows
from s2vc_ray.sources import check_unchanged
from s2vc_ray.staging import StagedGop, staging_key, unpack_staged
from s2vc_ray.storage import Storage
from s2vc_ray.storage_local import local_errors
from s2vc_ray.values import FrameDigest
from s2vc_ray.versions import frame_list_key

_OF_THE_ARCHIVE = (
    "job",
    "created",
    "config_hash",
    "config",
    "status",
    "schema_version",
    "archive",
    "archive_bytes",
    "archive_sha256",
    "payload_offset",
    "creator",
    "archive_version",
    "replaces",
    "error_class",
    "error",
)
"""Columns that a GOP which was copied has from the new archive; all others are as they were."""


def finish_revision(
    video: PlannedVideo, payloads: Mapping[int, str], job: JobContext, storage: Storage
) -> VideoResult:
    """Commit a revision whose GOPs are all staged; ``payloads`` as in `commit_revision`."""
    return finish(video, lambda: commit_revision(video, payloads, job, storage), job, storage)


def finish_made(video: PublishedVideo, job: JobContext, storage: Storage) -> VideoResult:
    """Describe a new version that is there and not in the manifest."""
    return finish(video, lambda: adopt_revision(video, job, storage), job, storage)


def commit_revision(
    video: PlannedVideo, payloads: Mapping[int, str], job: JobContext, storage: Storage
) -> Done | VideoResult:
    """Publish the new version of an archive and describe it in the manifest.

    When another driver publishes the same version first, that one is described instead; when all payloads are the old
    ones, nothing is made.

    Args:
        payloads: SHA-256 of the staged payload of each GOP that was coded again, by its index.

    Raises:
        SourceError: the source changed since it was planned, or its frames are not those that were compressed.
        ObjectExists: another archive appeared under the name; it is left alone.
        CorruptArchive: the old archive is not what the manifest says, or the new one did not pass.
        S2vcError: the store failed.
    """
    revision = _revision(video)
    rows = revision.rows(storage)
    if sorted(payloads) != list(revision.gops):
        raise CorruptArchive(f"{revision.uri}: {len(payloads)} of {len(revision.gops)} GOPs are staged")
    if all(payload == rows[index].payload_sha256 for index, payload in payloads.items()):
        clear_staging(video.staging, storage)
        return skipped(PublishedVideo(revision, video.fixity, video.staging, revision.base))
    there = PublishedVideo(revision, _as_told(video, rows), video.staging, revision.archive_key)
    try:
        done = _publish(video, rows, payloads, job, storage)
    except ObjectMissing:
        # Staging is cleared once an archive is published: somebody else has made this very version.
        done = None
    if done is not None:
        _record(there, rows, done, job, storage)
        return done
    if not is_made(revision, storage, job.config_hash):
        raise ObjectMissing(f"{revision.uri}: staged GOPs vanished before the commit; run the job again")
    return adopt_revision(there, job, storage)


def adopt_revision(video: PublishedVideo, job: JobContext, storage: Storage) -> Done:
    """Describe a new version that is there but not (as far as this driver knows) in the manifest.

    Measurements of the GOPs that were coded again come from staging where it still holds these very payloads; otherwise
    their rows say that nothing was measured.
    """
    revision = _revision(video)
    rows, gops, again = revision.rows(storage), GopLog(), frozenset(revision.gops)
    with storage.open(video.archive) as stream:
        size_and_digest = fixity(stream)
        stream.seek(0)
        reader = ArchiveReader(stream)
        for record, row in zip(reader.gops(), rows, strict=True):
            if record.index in again:
                gops.add(adopted_gop(record, row.frames_expected or 0, video, reader.header, storage))
            else:
                gops.add(_copied(record, row, revision, reader.header))
        published = Published(
            video.archive, size_and_digest, reader.header, reader.index, rows[0].framemd5_sha256
        )
    _record(video, rows, (published, gops), job, storage)
    return published, gops


def _publish(
    video: PlannedVideo,
    rows: Sequence[ManifestRow],
    payloads: Mapping[int, str],
    job: JobContext,
    storage: Storage,
) -> Done | None:
    """The archive that is now in place, or None when one already was and it is not these bytes."""
    revision = _revision(video)
    with (
        local_errors("write the archive in the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as folder,
        storage.open(revision.base) as stream,
    ):
        if fixity(stream).sha256 != revision.base_sha256:
            raise CorruptArchive(
                f"{revision.base} is not the archive that the manifest describes: see s2vc verify"
            )
        stream.seek(0)
        base, path = ArchiveReader(stream), Path(folder, "archive.s2vc")
        header = replace(
            base.header,
            creator=creator(),
            archive_version=revision.version,
            replaces=revision.base_sha256,
            revision=revision.digest(job.config_hash),
        )
        gops = GopLog()
        with path.open("wb") as out:
            write_archive(
                out, header, _records(video, base, payloads, rows, storage, gops), base.passthrough()
            )
        with path.open("rb") as made:
            published = verified(made, revision.archive_key, gops)
        published = replace(published, framemd5_sha256=rows[0].framemd5_sha256)
        check_unchanged(video.specs[0].source_uri, video.fixity.size, video.fixity.etag)
        is_new = storage.stat(published.key) is None
        if is_new and not job.config.allow_larger:
            check_smaller(video, published)
        if is_new and storage.put_file(published.key, path):
            return published, gops
    with storage.open(published.key) as stream:
        return (published, gops) if fixity(stream) == published.fixity else None


def _records(
    video: PlannedVideo,
    base: ArchiveReader,
    payloads: Mapping[int, str],
    rows: Sequence[ManifestRow],
    storage: Storage,
    gops: GopLog,
) -> Iterator[GopRecord]:
    """The records of the new archive: the old ones, but for the payloads of those that were coded again.

    ``gops`` is given what is known of each.
    """
    listed = _listed(_revision(video), rows, storage)
    for record, row in zip(base.gops(), rows, strict=True):
        if record.index not in payloads:
            gops.add(_copied(record, row, _revision(video), base.header))
            yield record
            continue
        key = staging_key(video.staging, record.index)
        staged = unpack_staged(storage.read(key), key)
        gop = staged.gop
        if gop.payload_sha256 != payloads[record.index]:
            raise CorruptArchive(f"staged GOP {key} is not the one that was measured; run the job again")
        if tuple(gop.pts) != record.pts or staged.digests != listed.get(gop.index, staged.digests):
            raise SourceError(
                f"{video.specs[0].source_uri}: the frames of GOP {gop.index} decode otherwise than when they were "
                f"compressed; nothing was changed: use the version that made the archive ({base.header.creator})"
            )
        gops.add(gop)
        yield replace(record, q=gop.q, payload=staged.payload, codec=gop.codec)


def _copied(record: GopRecord, row: ManifestRow, revision: Revision, header: ArchiveHeader) -> StagedGop:
    """What is known of a GOP that is copied.

    Raises:
        CorruptArchive: its payload is not what the manifest says.
    """
    gop = unmeasured(record, header, video_id=row.video_id, expected=row.frames_expected or 0)
    if (gop.payload_sha256, gop.index) != (row.payload_sha256, row.gop_index):
        raise CorruptArchive(
            f"{revision.base}: GOP {record.index} is not the one that the manifest describes"
        )
    return replace(gop, frames_corrupt=row.frames_corrupt or 0)


def _listed(
    revision: Revision, rows: Sequence[ManifestRow], storage: Storage
) -> dict[int, tuple[FrameDigest, ...]]:
    """The frame list's digests of the GOPs that were coded again; none where it is not the one that was made."""
    key = frame_list_key(revision.base, rows[0].archive_version)
    if rows[0].framemd5_sha256 is None or storage.stat(key) is None:
        return {}
    with storage.open(key) as stream:
        if fixity(stream).sha256 != rows[0].framemd5_sha256:
            return {}
        stream.seek(0)
        frames, wanted = read_frame_list(stream), frozenset(revision.gops)
        each = ((row.gop_index, islice(frames, row.frames_encoded)) for row in rows)
        # All are read, for they lie one behind the other; few are kept.
        return {
            index: digests
            for index, part in each
            if (digests := tuple(frame.digest for frame in part)) and index in wanted
        }


def _record(
    video: PublishedVideo, rows: Sequence[ManifestRow], done: Done, job: JobContext, storage: Storage
) -> None:
    """Write the manifest part: fresh rows of the GOPs that were coded again, the old ones of those that were copied."""
    published, gops = done
    made = gop_rows(job, video.source, video.fixity, published, gops)
    again = frozenset(_revision(video).gops)
    described = (
        fresh if fresh.gop_index in again else _carried(old, fresh)
        for old, fresh in zip(rows, made, strict=True)
    )
    write_part(storage, described)
    clear_staging(video.staging, storage)


def _carried(old: ManifestRow, fresh: ManifestRow) -> ManifestRow:
    anew: dict[str, Any] = {name: getattr(fresh, name) for name in _OF_THE_ARCHIVE}
    return replace(old, **anew, coded_job=old.coded_job or old.job)


def _as_told(video: PlannedVideo, rows: Sequence[ManifestRow]) -> SourceFixity:
    """The source's fixity; its tag is that of the place which the manifest names, also when it was read elsewhere."""
    if video.specs[0].source_uri == video.source.uri:
        return video.fixity
    return replace(video.fixity, etag=rows[0].source_etag or "")


def _revision(video: PlannedVideo | PublishedVideo) -> Revision:
    if not isinstance(video.source, Revision):
        raise TypeError(f"{video.source!r} is no revision")
    return video.source
