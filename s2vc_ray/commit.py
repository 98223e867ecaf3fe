"""From staged GOPs to a published archive and its manifest rows, in the one order that never lies.

Assemble from staging, verify the assembled file by reading all of it again, put the list of source frames, publish
the archive if nothing is there yet, write the manifest part, and only then clear staging. A crash between any two
steps leaves what the next run needs: no archive lies without its frame list, nothing is described before it exists,
and nothing is cleared before it is described. Knows nothing of executors or the codec.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from s2vc_model.heap import give_back
from s2vc_ray.adopted import adopted_gop, expected_frames
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord, write_archive
from s2vc_ray.avi_index import without_index
from s2vc_ray.decisions import decisions
from s2vc_ray.errors import CorruptArchive, LargerThanSource, ObjectExists, ObjectMissing
from s2vc_ray.fixity import fixity
from s2vc_ray.framemd5 import FrameListWriter, read_frame_list
from s2vc_ray.gop_log import GopLog
from s2vc_ray.manifest import write_part
from s2vc_ray.passthrough import extract
from s2vc_ray.plan import PlannedVideo, PublishedVideo, SourceFixity, is_published
from s2vc_ray.rows import JobContext, Published, gop_rows
from s2vc_ray.sources import Source, check_unchanged, open_media
from s2vc_ray.staging import StagedObject, staging_key, unpack_staged
from s2vc_ray.storage import Storage
from s2vc_ray.storage_local import local_errors


def commit_video(
    video: PlannedVideo, payloads: Mapping[int, str], job: JobContext, storage: Storage
) -> tuple[Published, GopLog]:
    """Publish the archive of ``video``, whose GOPs are all staged, and describe it in the manifest.

    When another driver publishes the same archive first, that one is described instead. GOPs are read from staging one
    at a time.

    Args:
        payloads: SHA-256 of each GOP's staged payload, by its index.

    Returns:
        The archive at its place, and what is known of each of its GOPs.

    Raises:
        SourceError: the source changed since it was planned.
        ObjectExists: another archive appeared under the name; it is left alone.
        CorruptArchive: the assembled archive did not pass; nothing was published.
        LargerThanSource: it takes more bytes than its source, and that was not allowed; nothing was published.
        S2vcError: the store failed.
    """
    gops = GopLog()
    try:
        published = _publish(video, payloads, gops, job, storage)
    except ObjectMissing:
        # Staging is cleared once an archive is published: somebody else has finished this very video.
        published = None
    if published is None:
        if not is_published(storage, video.source, video.fixity.sha256, job.config, job.codec.weights_sha256):
            raise ObjectMissing(
                f"{video.source.uri}: staged GOPs vanished before the commit; run the job again"
            )
        there = PublishedVideo(video.source, video.fixity, video.staging, video.source.archive_key)
        return adopt(there, job, storage)
    _record(job, video.source, video.fixity, video.staging, published, gops, storage)
    return published, gops


def adopt(video: PublishedVideo, job: JobContext, storage: Storage) -> tuple[Published, GopLog]:
    """Describe an archive that is there but not (as far as this driver knows) in the manifest.

    That is what a crash between publishing and describing leaves. Measurements come from staging where it
    still holds these very payloads; otherwise the rows say that nothing was measured. The frame list is described
    where it lists the frames of this archive.
    """
    key, gops = video.archive, GopLog()
    with storage.open(key) as stream:
        size_and_digest = fixity(stream)
        stream.seek(0)
        reader = ArchiveReader(stream)
        for record, frames in zip(reader.gops(), expected_frames(reader), strict=True):
            gops.add(adopted_gop(record, frames, video, reader.header, storage))
        listed = _listed(video.source.frame_list_key, gops.totals.frames, storage)
        published = Published(key, size_and_digest, reader.header, reader.index, listed)
    _record(job, video.source, video.fixity, video.staging, published, gops, storage)
    return published, gops


def clear_staging(prefix: str, storage: Storage) -> None:
    """Remove what is staged under ``prefix``."""
    storage.delete_many([item.key for item in storage.list(f"{prefix}/")])


def _publish(
    video: PlannedVideo, payloads: Mapping[int, str], gops: GopLog, job: JobContext, storage: Storage
) -> Published | None:
    """The archive that is now in place, or None when one already was and it is not these bytes.

    ``gops`` is given what is known of each GOP.
    """
    if payloads.keys() != set(range(len(video.specs))):
        raise CorruptArchive(f"{video.source.uri}: {len(payloads)} of {len(video.specs)} GOPs are staged")
    interlaced = (
        sum(one.gop.frames_interlaced for one in _staged(video, storage)) if job.config.deinterlace else None
    )
    with (
        local_errors("write the archive in the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as folder,
    ):
        path, frames = Path(folder, "archive.s2vc"), Path(folder, "frames.framemd5")
        with path.open("wb") as out, frames.open("wb") as lines:
            frame_list = FrameListWriter(lines, video.info, video.fixity.sha256)
            records = _records(video, payloads, gops, storage, frame_list)
            write_archive(out, _header(video, interlaced, job), records, _passthrough(video, job))
        give_back()  # what reading the source's packets took
        with path.open("rb") as stream:
            published = verified(stream, video.source.archive_key, gops)
        published = replace(published, framemd5_sha256=fixity(frames).sha256)
        check_unchanged(video.source.uri, video.fixity.size, video.fixity.etag)
        is_new = storage.stat(published.key) is None
        if is_new and not job.config.allow_larger:
            check_smaller(video, published)
        is_first = is_new and _put_frame_list(video.source, frames, storage)
        if is_first and storage.put_file(published.key, path):
            return published
    with storage.open(published.key) as stream:
        if fixity(stream) != published.fixity:
            return None
    listed = _listed(video.source.frame_list_key, gops.totals.frames, storage)
    return replace(published, framemd5_sha256=listed)


def _put_frame_list(source: Source, path: Path, storage: Storage) -> bool:
    """Have the frame list in place before its archive; False when another driver has published both meanwhile.

    Raises:
        ObjectExists: another list is there, without an archive; it is left alone.
    """
    key = source.frame_list_key
    if storage.put_file(key, path):
        return True
    with storage.open(key) as stream:
        if fixity(stream) == fixity(path):
            return True
    if storage.stat(source.archive_key) is not None:
        return False
    raise ObjectExists(
        f"{key} exists and lists other frames, and there is no archive beside it: it was left alone; move it away and "
        "run the job again, or choose another destination"
    )


def _listed(key: str, frames: int, storage: Storage) -> str | None:
    """SHA-256 of the frame list under ``key``; None when there is none, or it is not of so many frames."""
    if storage.stat(key) is None:
        return None
    with storage.open(key) as stream:
        try:
            if sum(1 for _ in read_frame_list(stream)) != frames:
                return None
        except ValueError:
            return None
        stream.seek(0)
        return fixity(stream).sha256


def _header(video: PlannedVideo, deinterlaced: int | None, job: JobContext) -> ArchiveHeader:
    """``deinterlaced`` is how many frames were, None where that was not asked for."""
    info, tags = video.info, video.info.tags
    if deinterlaced:
        tags = replace(tags, field_order="progressive")
    return ArchiveHeader(
        model_id=job.codec.model_id,
        weights_sha256=job.codec.weights_sha256,
        preset=job.codec.preset,
        width=info.width,
        height=info.height,
        time_base=info.time_base,
        colour=info.colour,
        rotation=info.rotation,
        sample_aspect=info.sample_aspect,
        average_rate=info.average_rate,
        last_duration=info.last_duration,
        durations=info.durations,
        frames=max(info.frames, info.frames_declared),
        gop_length=job.config.gop,
        q=job.config.quality,
        target=job.config.target_text,
        policy=job.config.policy_text,
        source_name=video.source.uri.rpartition("/")[2],
        source_size=video.fixity.size,
        source_sha256=video.fixity.sha256,
        creator=creator(),
        source_codec=info.codec,
        source_container=info.container,
        source_pix_fmt=info.pix_fmt,
        source_bit_depth=info.bit_depth,
        source_stream=info.stream_index,
        tags=tags,
        decisions=decisions(info, deinterlaced=deinterlaced),
        shots=job.config.scene_cuts,
        deinterlace=job.config.deinterlace,
        own_size=not job.config.enlarge,
        refine=job.config.refine,
    )


def creator() -> str:
    """Name and version of this installation, as archives name it."""
    try:
        return f"s2vc-ray {version('s2vc-ray')}"
    except PackageNotFoundError:
        return "s2vc-ray (not installed)"


def _staged(video: PlannedVideo, storage: Storage) -> Iterator[StagedObject]:
    """What is staged of each GOP, in order."""
    for index in range(len(video.specs)):
        key = staging_key(video.staging, index)
        yield unpack_staged(storage.read(key), key)


def _records(
    video: PlannedVideo,
    payloads: Mapping[int, str],
    gops: GopLog,
    storage: Storage,
    frame_list: FrameListWriter,
) -> Iterator[GopRecord]:
    for staged, spec in zip(_staged(video, storage), video.specs, strict=True):
        gop = staged.gop
        if gop.payload_sha256 != payloads[spec.index]:
            raise CorruptArchive(f"staged GOP {gop.key} is not the one that was measured; run the job again")
        if (gop.index, gop.frames_expected) != (spec.index, spec.frames):
            raise CorruptArchive(
                f"{video.source.uri}: staged GOPs have other lengths than planned; delete {video.staging}/ and run the "
                "job again"
            )
        gops.add(gop)
        frame_list.add(gop.pts, staged.digests)
        yield GopRecord(gop.index, spec.first_frame, gop.q, tuple(gop.pts), staged.payload, gop.codec)


def _passthrough(video: PlannedVideo, job: JobContext) -> Iterator[bytes]:
    if job.config.passthrough:
        with open_media(video.source.uri) as media:
            hidden = without_index(media) if video.info.index_hidden else nullcontext(media)
            with hidden as readable:
                yield from extract(readable, uri=video.source.uri).chunks()


def verified(stream: BinaryIO, key: str, gops: GopLog) -> Published:
    """Read the assembled archive back: every CRC, every GOP, and payload sizes as they were measured."""
    reader = ArchiveReader(stream)
    reader.verify()
    held = ((entry.index, entry.frames, entry.payload_bytes) for entry in reader.index.gops)
    staged = ((gop.index, gop.frames, gop.payload_bytes) for gop in gops)
    if any(one != other for one, other in zip_longest(held, staged)):
        raise CorruptArchive(f"{key}: the assembled archive does not hold the GOPs that were staged")
    stream.seek(0)
    return Published(key, fixity(stream), reader.header, reader.index)


def check_smaller(video: PlannedVideo, archive: Published) -> None:
    """Raise LargerThanSource where it is."""
    if archive.fixity.size > video.fixity.size:
        raise LargerThanSource(
            f"{video.source.uri}: its archive takes {archive.fixity.size} bytes and the source {video.fixity.size}, so "
            "it was not published: ask for less by --quality, --target or --target-ratio, or give --allow-larger"
        )


def _record(
    job: JobContext,
    source: Source,
    known: SourceFixity,
    staging: str,
    published: Published,
    gops: GopLog,
    storage: Storage,
) -> None:
    write_part(storage, gop_rows(job, source, known, published, gops))
    clear_staging(staging, storage)
