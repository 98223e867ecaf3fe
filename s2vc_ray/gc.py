"""Removing what a destination's jobs have left over: orphaned staging and unfinished writes, nothing else.

What goes: staged GOPs of a video whose archive lies whole at its place and is described in the manifest;
staged GOPs of any other video once nothing at all under its staging prefix is younger than the limit; and
uploads or temporary files of ours that were begun before the limit. Archives, manifest, sources and whatever
else anybody keeps there are never named in a request that deletes. Ages are by the store's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from s2vc_ray.storage import ObjectStat, Storage, Unfinished, open_storage
from s2vc_ray.survey import StagedVideo, is_our_write, is_staged_gop, staged_version, survey


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that went (or, in a dry run, would go): its key or prefix, how much, and why."""

    name: str
    objects: int
    bytes: int
    why: str


@dataclass(slots=True)
class GcReport:
    """What a collection did."""

    destination: str
    dry_run: bool
    removed: list[Removed] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """Objects, uploads and temporary files in all."""
        return sum(each.objects for each in self.removed)

    @property
    def bytes(self) -> int:
        """Bytes of staged objects in all; what unfinished writes hold is not known."""
        return sum(each.bytes for each in self.removed)


def collect(destination: Storage | str, *, older_than: float, dry_run: bool = False) -> GcReport:
    """Remove what is left over at a destination.

    Safe beside running jobs as long as ``older_than`` is longer than a video may go without a new GOP; what
    is removed too early costs its coding again, never an archive.

    Args:
        destination: a compress job's.
        older_than: the limit in seconds.
        dry_run: only say what would go.

    Raises:
        StorageError: the store refused or failed; what was removed stays removed.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    report = GcReport(storage.uri, dry_run)
    with survey(storage, only_staged=True) as found:
        limit = found.now - older_than
        for video in found.staged():
            if (video.archive or video.newest <= limit) and (going := _going(storage, video, limit)):
                why = (
                    "its archive is published and described"
                    if video.archive
                    else "nothing was added for long"
                )
                _remove(storage, going, dry_run)
                report.removed.append(
                    Removed(video.prefix, len(going), sum(item.size for item in going), why)
                )
    for write in abandoned(storage, limit):
        if not dry_run:
            storage.discard(write)
        report.removed.append(Removed(write.key, 1, 0, "begun long ago and never finished"))
    return report


def abandoned(storage: Storage, limit: float) -> Iterator[Unfinished]:
    """Writes of ours that were begun before ``limit`` (POSIX seconds on the store's clock) and never finished.

    Others' uploads into the same folder are theirs, however old.
    """
    return (write for write in storage.unfinished() if is_our_write(write) and write.since <= limit)


def _going(storage: Storage, video: StagedVideo, limit: float) -> list[ObjectStat]:
    """What goes of a video's staging, looked at once more: a job may have come back to it since."""
    there = list(storage.list(video.prefix))
    if video.archive:
        archive = storage.stat(video.archive)
        if archive is None or archive.size != video.archive_bytes:
            return []
    elif any(item.mtime > limit for item in there):
        return []
    return [item for item in there if is_staged_gop(item.key) and staged_version(item.key) == video.version]


def _remove(storage: Storage, going: list[ObjectStat], dry_run: bool) -> None:
    if not dry_run:
        storage.delete_many(item.key for item in going)
