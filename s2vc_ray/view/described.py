"""What the manifest beside an archive says of it: where its source lay, and its GOPs' figures. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from s2vc_ray.errors import ObjectMissing
from s2vc_ray.manifest import QUALITY, ROOT, read_columns
from s2vc_ray.storage import Storage, local_path, open_storage

_PARTS = 2000
"""Parts looked through: each is a read, and one of them is about the archive."""
_LEVELS = 8
_COLUMNS = ("archive", "status", "created", "source_uri", "gop_index", *(f"{name}_mean" for name in QUALITY))


@dataclass(frozen=True, slots=True)
class Described:
    """Where a source lay when it was compressed, and columns of each GOP's row, by GOP."""

    source_uri: str
    gops: dict[int, dict[str, Any]]


def described(archive: str) -> Described:
    """Find the rows of the archive at a path or ``s3://`` URI in the manifest of the destination that it lies in.

    Raises:
        ObjectMissing: there is no manifest above it, it does not know the archive, or it has too many parts to
            be looked through for one archive.
        StorageError: the store refused or failed.
    """
    for storage, key in _destinations(archive):
        parts = list(islice(storage.keys(f"{ROOT}/"), _PARTS + 1))
        if not parts:
            continue
        if len(parts) > _PARTS:
            raise ObjectMissing(
                f"the manifest has over {_PARTS} parts, too many to look through for one archive"
            )
        found = [rows for part in parts if (rows := _rows(storage, part, key))]
        if not found:
            raise ObjectMissing(f"the manifest under {storage.uri} does not know {key}")
        rows = max(found, key=lambda rows: rows[0]["created"])
        return Described(rows[0]["source_uri"], {row["gop_index"]: row for row in rows})
    raise ObjectMissing("no manifest lies beside or above the archive")


def _rows(storage: Storage, part: str, archive: str) -> list[dict[str, Any]]:
    import pyarrow as pa

    if not part.endswith(".parquet"):
        return []
    try:
        rows = read_columns(storage.read(part), _COLUMNS).to_pylist()
    except pa.ArrowException:
        return []
    return [row for row in rows if row["archive"] == archive and row["status"] != "failed"]


def _destinations(archive: str) -> Iterator[tuple[Storage, str]]:
    """Folders or prefixes that the archive lies in, the nearest first, and its key below each."""
    if archive.startswith("s3://"):
        bucket, *parts = archive.removeprefix("s3://").split("/")
        for level in range(len(parts) - 1, max(-1, len(parts) - 1 - _LEVELS), -1):
            prefix = "/".join([bucket, *parts[:level]])
            yield open_storage(f"s3://{prefix}"), "/".join(parts[level:])
        return
    path = local_path(archive).absolute()
    for folder in path.parents[:_LEVELS]:
        if (folder / ROOT).is_dir():
            yield open_storage(str(folder)), path.relative_to(folder).as_posix()
