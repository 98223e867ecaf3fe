"""``manifest-sha256.txt``: digests of all archives and frame lists of a destination, for tools that know no Parquet.

Lines are BagIt's (RFC 8493), ``<sha256>  <path>``, as ``sha256sum -c`` reads them. The file is derived from the Parquet
manifest, which stays the one truth: of each video the job that compressed it last counts. It is rewritten whole, and
atomically, at the end of every job that wrote a row. Memory does not grow with the number of videos.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.manifest import ROOT as MANIFEST
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.storage_local import local_errors
from s2vc_ray.survey import BAG, Survey, survey
from s2vc_ray.versions import frame_list_key

_TRIES = 5


@dataclass(frozen=True, slots=True)
class BagReport:
    """What was written: ``entries`` lines from ``parts`` manifest parts; ``unreadable`` are parts left out, and why."""

    key: str
    entries: int
    parts: int
    unreadable: tuple[str, ...]


def write_bag(destination: Storage | str) -> BagReport:
    """Derive the bag manifest of a destination and put it in the place of the one that is there.

    Several jobs may do so at once: who finds after writing that parts have come since writes once more, so whoever
    writes last has seen every part of every job that has ended.

    Raises:
        ObjectMissing: there is no manifest.
        StorageError: the store refused or failed, or the manifest kept changing; the old file is left whole.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    for _ in range(_TRIES):
        with survey(storage, under=f"{MANIFEST}/") as found:
            if not any(found.rows("SELECT 1 FROM parts LIMIT 1")):
                raise ObjectMissing(
                    f"no manifest under {storage.uri}: is that the destination of a compress job?"
                )
            report = _write(found)
            if not _has_changed(found):
                return report
    raise StorageError(f"{storage.uri}: parts keep being written; run s2vc bag again when the job has ended")


def is_stale(storage: Storage) -> bool:
    """Whether a manifest part is not older than the bag manifest: its job may have died before renewing that."""
    bag = storage.stat(BAG)
    times = (item.mtime for item in storage.list(f"{MANIFEST}/") if item.key.endswith(".parquet"))
    return any(bag is None or time >= bag.mtime for time in times)


def bag_entries(found: Survey) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of everything that the manifest describes and that should be there."""
    query = "SELECT archive, sha256, frames_sha256, version FROM compressed ORDER BY archive"
    for archive, sha256, frames_sha256, version in found.rows(query):
        yield archive, sha256
        if frames_sha256:
            yield frame_list_key(archive, version), frames_sha256


def read_bag(lines: BinaryIO) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of each line.

    Raises:
        ValueError: a line is none of such a file; the message says which.
    """
    for number, raw in enumerate(lines, 1):
        text = raw.decode("utf-8", "surrogateescape").removesuffix("\n")
        sha256, _, path = text.removeprefix("\\").partition("  ")
        if len(sha256) != 64 or not path:
            raise ValueError(f"line {number} is not '<sha256>  <path>'")
        yield (_unescaped(path) if text.startswith("\\") else path), sha256


def bag_line(path: str, sha256: str) -> str:
    """One line. Names with a line feed are escaped as ``sha256sum`` does it."""
    if "\n" in path:
        return f"\\{sha256}  {path.replace(chr(10), chr(92) + 'n')}\n"
    return f"{sha256}  {path}\n"


def _unescaped(path: str) -> str:
    return path.replace("\\n", "\n")


def _write(found: Survey) -> BagReport:
    entries = 0
    with (
        local_errors("write the bag manifest in the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as folder,
    ):
        path = Path(folder, BAG)
        with path.open("w", encoding="utf-8", newline="\n") as out:
            for key, sha256 in bag_entries(found):
                out.write(bag_line(key, sha256))
                entries += 1
        found.storage.put_file(BAG, path, overwrite=True)
    ((parts,),) = found.rows("SELECT count(*) FROM parts")
    unreadable = tuple(f"{key}: {error}" for key, error in found.rows("SELECT key, error FROM unreadable"))
    return BagReport(BAG, entries, parts, unreadable)


def _has_changed(found: Survey) -> bool:
    """Whether the manifest has other parts than were read."""
    count = 0
    for item in found.storage.list(f"{MANIFEST}/"):
        if item.key.endswith(".parquet"):
            count += 1
            if not any(found.rows("SELECT 1 FROM parts WHERE key = ?", item.key)):
                return True
    return any(number != count for (number,) in found.rows("SELECT count(*) FROM parts"))
