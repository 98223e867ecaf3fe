"""From a source to GOP references: fixity, what the destination already holds, probe, split.

One call per source, on any node, and its trouble is a value, `VideoFailure`, so that one bad source never ends a batch.
Reads a source's bytes and its packets. Knows nothing of executors or the codec.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from s2vc_model.heap import give_back
from s2vc_ray.archive import ArchiveHeader, ArchiveReader
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import (
    ArchiveError,
    ConfigError,
    ObjectExists,
    S2vcError,
    SourceError,
)
from s2vc_ray.fixity import fixity
from s2vc_ray.manifest import Description, describe, latest_word
from s2vc_ray.policy import policy_digest
from s2vc_ray.probe import probe
from s2vc_ray.size_budget import bits_per_pixel
from s2vc_ray.sources import Source, open_media
from s2vc_ray.split import split
from s2vc_ray.staging import (
    StagedGop,
    staging_key,
    staging_prefix,
    unpack_staged,
)
from s2vc_ray.storage import Storage, open_source, stat_source
from s2vc_ray.storage_local import LocalStorage
from s2vc_ray.values import GopSpec, VideoInfo
from s2vc_ray.versions import archive_key

_LONGEST_NAME = 255
"""Bytes of a file's name."""

_READERS = 8
"""Staged GOPs of one video read at once when a job is resumed."""
_READ_AHEAD = 256
"""Of these, how many are asked for at a time."""


@dataclass(frozen=True, slots=True)
class SourceFixity:
    """The source's bytes as they were when the job read them."""

    size: int
    etag: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """A source to encode: ``specs`` cover every frame once, ``staging`` is where its GOPs are staged.

    ``staged`` are the GOPs that an earlier run has staged. ``max_bpp`` is the most payload bits per pixel of each GOP
    where the job asks for a size.
    """

    source: Source
    fixity: SourceFixity
    info: VideoInfo
    specs: Sequence[GopSpec]
    staging: str
    staged: tuple[StagedGop, ...] = ()
    max_bpp: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedVideo:
    """A source whose archive lies whole at the destination, made from these bytes with this configuration.

    ``archive`` is the key of its latest version, ``described`` what the manifest says of that; None when a crash came
    between publishing and describing.
    """

    source: Source
    fixity: SourceFixity
    staging: str
    archive: str
    described: Description | None = None


@dataclass(frozen=True, slots=True)
class ExcludedVideo:
    """A source that is not to be coded, and why; ``described`` when the manifest says so already."""

    source: Source
    reason: str
    described: bool = False


@dataclass(frozen=True, slots=True)
class VideoFailure:
    """A source that could not be compressed, and why; ``gop_index`` where one GOP is to blame."""

    source: Source
    error_class: str
    error: str
    fixity: SourceFixity | None = None
    gop_index: int | None = None
    attempts: int = 1


Plan = PlannedVideo | PublishedVideo | ExcludedVideo | VideoFailure


def plan_video(
    source: Source, storage: Storage, config: JobConfig, weights_sha256: str, parts: Sequence[str] = ()
) -> Plan:
    """Decide what is to be done about one source. Never raises for a reason that lies in the source.

    Args:
        parts: keys of the manifest parts that tell of it. When one describes an archive that is there at the size it
            had, made from a source of the size and tag that this one still has, neither is read again.
    """
    known: SourceFixity | None = None
    # Whatever goes wrong here concerns this source alone and belongs in its manifest row.
    try:
        if excluded := exclusion(source, storage, config, parts):
            return excluded
        if source.refused:
            raise ConfigError(source.refused)
        _refuse_long_name(source, storage)
        digest = config.config_hash(weights_sha256)
        told = describe(storage, parts, archive=source.archive_key, config_hash=digest) if parts else None
        known = _unchanged(source, storage, told) if told else None
        if told and known:
            return PublishedVideo(source, known, _staging(source, known, digest, config), told.archive, told)
        known = read_fixity(source.uri)
        staging = _staging(source, known, digest, config)
        mine = told if told and told.source_sha256 == known.sha256 else None
        if mine and mine.archive != source.archive_key and _is_there(storage, mine):
            return PublishedVideo(source, known, staging, mine.archive, mine)
        if is_published(storage, source, known.sha256, config, weights_sha256):
            if mine and mine.archive == source.archive_key:
                return PublishedVideo(source, known, staging, mine.archive, mine)
            return PublishedVideo(source, known, staging, _latest_version(storage, source, known.sha256))
        with open_media(source.uri) as media:
            info = probe(media, uri=source.uri)
        give_back()  # FFmpeg's index of a film of hours
        specs = split(info, source_uri=source.uri, video_id=source.video_id, gop=config.gop)
        staged = read_staged(storage, staging, range(len(specs)))
        budget = bits_per_pixel(config, info, specs, uri=source.uri, source_bytes=known.size)
        return PlannedVideo(source, known, info, specs, staging, staged, budget)
    except Exception as error:
        return failure_of(source, error, known)


def exclusion(
    source: Source, storage: Storage, config: JobConfig, parts: Sequence[str]
) -> ExcludedVideo | None:
    """Why the job's policy leaves a source out; None where it does not. Looks at its name alone."""
    pattern = config.policy.excludes(source.name) if config.policy else None
    if pattern is None:
        return None
    reason = f"excluded by the policy: its name matches {pattern}"
    return ExcludedVideo(source, reason, latest_word(storage, parts) == ("excluded", reason))


def _refuse_long_name(source: Source, storage: Storage) -> None:
    """Before hours of work: file systems take no longer names, and the frame list's is the longest."""
    longest = max(len(os.fsencode(part)) for part in source.frame_list_key.split("/"))
    if isinstance(storage, LocalStorage) and longest > _LONGEST_NAME:
        name = len(os.fsencode(source.name.rpartition("/")[2]))
        raise ConfigError(
            f"{source.uri}: its name has {name} bytes, and names of what is made of it would have {longest}, of "
            f"{_LONGEST_NAME} at most: rename it to {_LONGEST_NAME - longest + name} bytes, or compress it to s3://"
        )


def _staging(source: Source, known: SourceFixity, digest: str, config: JobConfig) -> str:
    return staging_prefix(source.video_id, known.sha256, digest, config.metrics)


def _unchanged(source: Source, storage: Storage, told: Description) -> SourceFixity | None:
    """The source's fixity as the manifest has it, when source and archive look as they did then."""
    now, archive = stat_source(source.uri), storage.stat(told.archive)
    if (now.size, now.etag) != (told.source_size, told.source_etag):
        return None
    if archive is None or archive.size != told.archive_bytes:
        return None
    return SourceFixity(now.size, now.etag, told.source_sha256)


def read_staged(storage: Storage, prefix: str, gops: Sequence[int]) -> tuple[StagedGop, ...]:
    """Those of ``gops`` that are staged under ``prefix``, without what was measured of them: that stays with their
    payloads, for a film of ten hours has 36,000."""
    there = {item.key for item in storage.list(f"{prefix}/")}
    keys = (key for key in (staging_key(prefix, index) for index in gops) if key in there)
    if not there:
        return ()

    def read(key: str) -> StagedGop:
        return replace(unpack_staged(storage.read(key), key).gop, metrics=(), risk=None)

    found: list[StagedGop] = []
    with ThreadPoolExecutor(_READERS) as readers:
        while some := list(islice(keys, _READ_AHEAD)):
            found.extend(readers.map(read, some))
    return tuple(found)


def read_fixity(uri: str) -> SourceFixity:
    """Size, store tag and SHA-256 of a source, read as a stream.

    Raises:
        SourceError: missing, empty, or changed while it was read.
        StorageError: the store failed.
    """
    before = stat_source(uri)
    with open_source(uri) as stream:
        read = fixity(stream)
    if not read.size:
        raise SourceError(f"{uri}: empty file")
    if (read.size, stat_source(uri).etag) != (before.size, before.etag):
        raise SourceError(f"{uri}: changed while it was being read; compress it when it is finished")
    return SourceFixity(read.size, before.etag, read.sha256)


def is_published(
    storage: Storage, source: Source, source_sha256: str, config: JobConfig, weights_sha256: str
) -> bool:
    """Whether the destination holds this source's whole archive, by its trailer, index and header.

    Raises:
        ObjectExists: something else lies under the archive's name; the message says what and what to do.
    """
    key = source.archive_key
    if storage.stat(key) is None:
        return False
    remedy = f"it was left alone; move {key} away, or choose another destination"
    try:
        with storage.open(key) as stream:
            reader = ArchiveReader(stream)
            header, coded = reader.header, sum(entry.frames for entry in reader.index.gops)
            carries = reader.index.passthrough_bytes > 0
    except ArchiveError as error:
        raise ObjectExists(f"{key} exists and is not a whole archive ({error}); {remedy}") from error
    difference = _difference(header, source_sha256, config, weights_sha256)
    if not difference and carries != config.passthrough:
        difference = f"was made {'with' if carries else 'without'} passthrough streams"
    if not difference and not coded:
        difference = "holds no frames"
    if difference:
        raise ObjectExists(f"{key} exists and {difference}; {remedy}")
    return True


def _is_there(storage: Storage, told: Description) -> bool:
    """Whether the later version that the manifest describes is there.

    Raises:
        ObjectExists: what is there is not of the size it had.
    """
    there = storage.stat(told.archive)
    if there is not None and there.size != told.archive_bytes:
        raise ObjectExists(
            f"{told.archive} has {there.size} bytes and the manifest says {told.archive_bytes}; it was left alone: "
            "restore it from a copy, or move it away and run the job again, so that the first version counts"
        )
    return there is not None


def _latest_version(storage: Storage, source: Source, source_sha256: str) -> str:
    """Key of the latest archive that replaces GOPs of the first version, which is there."""
    latest, version = source.archive_key, 2
    while storage.stat(key := archive_key(source.name, version)) is not None:
        with suppress(ArchiveError), storage.open(key) as stream:
            header = ArchiveReader(stream).header
            if (header.archive_version, header.source_sha256) == (version, source_sha256):
                latest = key
        version += 1
    return latest


def failure_of(source: Source, error: Exception, known: SourceFixity | None = None) -> VideoFailure:
    """An exception as a value. One that is not an `S2vcError` keeps its class name: it is a bug."""
    text = str(error) or repr(error)
    if not isinstance(error, S2vcError):
        text = f"{source.uri}: {text}"
    return VideoFailure(source, type(error).__name__, text, known)


def _difference(header: ArchiveHeader, source_sha256: str, config: JobConfig, weights_sha256: str) -> str:
    if header.source_sha256 != source_sha256:
        return f"was made from other bytes (SHA-256 {header.source_sha256[:12]}, not {source_sha256[:12]})"
    if header.weights_sha256 != weights_sha256:
        return f"was coded by other weights ({header.weights_sha256[:12]}, not {weights_sha256[:12]})"
    if header.target != config.target_text:
        asked = config.target_text or f"q {config.quality}"
        return f"was made for {header.target or f'q {header.q}'}, not {asked}"
    if header.policy != config.policy_text:
        made, asked = (
            f"policy {policy_digest(text)[:12]}" if text else "no policy"
            for text in (header.policy, config.policy_text)
        )
        return f"was made under {made}, not {asked}"
    if (header.q, header.gop_length) != (config.quality, config.gop):
        return f"was coded at q {header.q}, GOP {header.gop_length}, not q {config.quality}, GOP {config.gop}"
    if header.shots != config.scene_cuts:
        return f"was made with --{'' if header.shots else 'no-'}scene-cuts"
    if header.deinterlace != config.deinterlace:
        return f"was made {'with' if header.deinterlace else 'without'} --deinterlace"
    if header.refine != config.refine:
        return f"was made with --refine {header.refine}, not {config.refine}"
    if header.own_size == config.enlarge:
        return f"was made with --{'no-' if header.own_size else ''}enlarge"
    return ""
