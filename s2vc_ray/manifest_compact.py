"""A second, compact copy of the manifest: many parts' rows in few large files, for whoever reads all of them.

Copies lie at ``manifest-compact/<name>.parquet``. They are derived, like ``manifest-sha256.txt``: parts stay the one
truth, are never removed, and whoever reads ``manifest/`` knows of no copies and sees each row once. A copy has the
``job`` column inside, so its rows name the parts that it stands for (one part per job and video); whoever reads copies
leaves those parts out, and rows whose part is gone. A copy is named for its set of parts and put whole or not at all:
doing it again, or twice at once, gives the same object. Knows nothing of Ray, torch or DuckDB.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.manifest import ROOT, SCHEMA, SCHEMA_VERSION, part_key
from s2vc_ray.storage import ObjectStat, Storage, open_storage
from s2vc_ray.storage_local import local_errors

COMPACT = "manifest-compact"
ROWS = 122_880
"""Rows of a row group: what a reader holds of a column at once, and what it can leave out by a filter."""
_PART = rf"{ROOT}/job=(?P<job>[^/]+)/(?P<video_id>[0-9a-f]{{16}})\.parquet"
_COPY = re.compile(rf"{COMPACT}/[0-9a-f]{{16}}\.parquet")
_READERS = 16
_JOIN = 256


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What was copied: the copy's ``key`` and size, None and 0 when every part was in one already.

    ``left_out`` names the parts that are not in it, and why; ``already`` counts those that older copies hold.
    """

    key: str | None
    parts: int
    rows: int
    bytes: int
    already: int
    left_out: tuple[str, ...]


def compact_manifest(destination: Storage | str) -> CompactReport:
    """Copy the parts that no copy holds yet into one file. Memory follows the number of parts, 100 bytes each.

    Raises:
        ObjectMissing: there is no manifest.
        StorageError: the store refused or failed, or a copy cannot be read; nothing was changed.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    listed = {found for key in storage.keys(f"{ROOT}/") if (found := named_part(key))}
    if not listed:
        raise ObjectMissing(f"no manifest under {storage.uri}: is that the destination of a compress job?")
    todo = sorted(listed - set(_copied(storage)))
    with (
        local_errors("write the copy in the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as folder,
    ):
        path, digest = Path(folder, "copy.parquet"), hashlib.sha256()
        copied = copy_parts(
            storage, todo, path, lambda key: digest.update(f"{key}\n".encode()), lossless=True
        )
        report = CompactReport(None, 0, 0, 0, len(listed) - len(todo), copied.left_out)
        if not copied.parts:
            return report
        key = f"{COMPACT}/{digest.hexdigest()[:16]}.parquet"
        storage.put_file(key, path)
        size = path.stat().st_size
        return replace(report, key=key, parts=copied.parts, rows=copied.rows, bytes=size)


@dataclass(frozen=True, slots=True)
class Copied:
    """How many parts and rows went into a file, and which parts did not, and why."""

    parts: int
    rows: int
    left_out: tuple[str, ...]


def copy_parts(
    storage: Storage,
    parts: Iterable[tuple[str, str]],
    path: Path,
    took: Callable[[str], None] = lambda _: None,
    *,
    lossless: bool = False,
) -> Copied:
    """Write the columns of `SCHEMA` of parts, each named by job and video id, to one Parquet file.

    Args:
        took: hears each part's key.
        lossless: leave out parts of newer versions, which have columns that would be lost.

    Raises:
        StorageError: the store refused or failed. A part that cannot be read is only left out.
    """
    number = rows = 0
    left_out: list[str] = []
    with copy_writer(path) as writer:
        group = _RowGroup(writer)
        for key, table in _tables(storage, parts, lossless):
            if isinstance(table, str):
                left_out.append(f"{key}: {table}")
                continue
            took(key)
            number, rows = number + 1, rows + len(table)
            group.add(table)
        group.write()
    return Copied(number, rows, tuple(left_out))


def copy_writer(path: Path) -> pq.ParquetWriter:
    """A writer of what is read whole, and often: figures, of which hardly two are alike, are split into their bytes,
    and have no dictionary, which would be as large as themselves and take twice as long to read."""
    figures = [field.name for field in SCHEMA if pa.types.is_floating(field.type)]
    repeated = [name for name in SCHEMA.names if name not in {*figures, "payload_sha256"}]
    return pq.ParquetWriter(
        path, SCHEMA, compression="zstd", use_dictionary=repeated, use_byte_stream_split=figures
    )


class _RowGroup:
    """Rows that wait to be enough for a row group. Small tables take a hundred times their rows' memory, so these are
    joined early."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._small: list[pa.Table] = []
        self._joined: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        self._small.append(table)
        self._rows += len(table)
        if len(self._small) == _JOIN:
            self._join()
        if self._rows >= ROWS:
            self.write()

    def write(self) -> None:
        self._join()
        if self._joined:
            self._writer.write_table(pa.concat_tables(self._joined), row_group_size=ROWS)
        self._joined, self._rows = [], 0

    def _join(self) -> None:
        if self._small:
            self._joined.append(pa.concat_tables(self._small).combine_chunks())
        self._small = []


def named_part(key: str) -> tuple[str, str] | None:
    """Job and video id of a manifest part's key; None of any other key."""
    found = re.fullmatch(_PART, key)
    return (found[1], found[2]) if found else None


def named_parts(keys: Sequence[str]) -> pa.StructArray:
    """Structs of ``job`` and ``video_id`` for all ``keys``, null for any other than a manifest part's."""
    return pc.extract_regex(pa.array(keys, pa.string()), f"^{_PART}$")


def copies(storage: Storage) -> Iterator[ObjectStat]:
    """The copies there are."""
    return (item for item in storage.list(f"{COMPACT}/") if _COPY.fullmatch(item.key))


def _copied(storage: Storage) -> Iterator[tuple[str, str]]:
    """Job and video id of every part that a copy holds."""
    for item in copies(storage):
        try:
            with storage.open(item.key) as stream, pq.ParquetFile(stream) as copy:
                for batch in copy.iter_batches(columns=["job", "video_id"]):
                    pairs = pa.Table.from_batches([batch]).group_by(["job", "video_id"]).aggregate([])
                    yield from zip(pairs["job"].to_pylist(), pairs["video_id"].to_pylist(), strict=True)
        except (pa.ArrowException, KeyError) as error:
            raise StorageError(f"{item.key} cannot be read: {error}; it is derived, so remove it") from error


def _tables(
    storage: Storage, parts: Iterable[tuple[str, str]], lossless: bool
) -> Iterator[tuple[str, pa.Table | str]]:
    """Each part's key and its rows, or why it is left out; several read at once."""
    left = iter(parts)
    read: Callable[[tuple[str, str]], tuple[str, pa.Table | str]] = partial(_table, storage, lossless)
    with ThreadPoolExecutor(_READERS, "manifest") as readers:
        while batch := list(islice(left, 16 * _READERS)):
            yield from readers.map(read, batch)


def _table(storage: Storage, lossless: bool, part: tuple[str, str]) -> tuple[str, pa.Table | str]:
    job, video = part
    key = part_key(job, video)
    try:
        data = storage.read(key)
        # Threads would cost more than such small files take.
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        table = table.add_column(0, SCHEMA.field("job"), pa.array([job] * len(table), pa.string()))
        return key, _checked(table, video, lossless)
    except (ObjectMissing, pa.ArrowException, ValueError, KeyError) as error:
        return key, f"cannot be read: {error}"


def _checked(table: pa.Table, video: str, lossless: bool) -> pa.Table:
    """A part's rows with the columns of `SCHEMA`, nulls where the part is older than a column.

    Raises:
        ValueError: ``lossless``, and a newer version wrote it; or it is no part of that video.
        pyarrow.ArrowException: columns of other types.
    """
    if not table.schema.equals(SCHEMA):
        for field in SCHEMA:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(len(table), field.type))
        newest = pc.max(table["schema_version"]).as_py() or 0
        if lossless and newest > SCHEMA_VERSION:
            raise ValueError(
                f"it is of schema version {newest}, and this program knows up to {SCHEMA_VERSION}: update it"
            )
        table = table.select(SCHEMA.names).cast(SCHEMA)
    if table["video_id"].unique().to_pylist() != [video]:
        raise ValueError("it tells of another video than its name")
    return table
