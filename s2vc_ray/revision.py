"""``Revision``: one video of whose archive GOPs are to be coded again, as a source that a job lists.

Owns what a revision is: the archive that counts now, the GOPs, and from these the names and hashes of what is made. See
``docs/reencode.md``. Knows nothing of executors or the codec.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, overload

import pyarrow as pa

from s2vc_ray.config import JobConfig
from s2vc_ray.errors import StorageError
from s2vc_ray.manifest import SCHEMA, SCHEMA_VERSION, ManifestRow, part_key, read_columns
from s2vc_ray.sources import Source
from s2vc_ray.staging import staging_prefix
from s2vc_ray.storage import Storage
from s2vc_ray.versions import archive_key

_AT_ONCE = 1000
"""Rows made together."""


class Rows(Sequence[ManifestRow]):
    """Rows of one part, each made when it is asked for: as objects, those of a film of ten hours take 400 MB.

    Args:
        table: a row's columns but ``job``, in their order.
    """

    def __init__(self, job: str, table: pa.Table) -> None:
        self._job = job
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> ManifestRow: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ManifestRow, ...]: ...

    def __getitem__(self, index: int | slice) -> ManifestRow | tuple[ManifestRow, ...]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return tuple(self[at] for at in places)
        return next(self._rows(places, 1))

    def __iter__(self) -> Iterator[ManifestRow]:
        return chain.from_iterable(self._rows(at, _AT_ONCE) for at in range(0, len(self), _AT_ONCE))

    def column(self, name: str) -> list[Any]:
        """One value of each row."""
        values: list[Any] = self._table[name].to_pylist()
        return values

    def _rows(self, begin: int, count: int) -> Iterator[ManifestRow]:
        columns = (column.to_pylist() for column in self._table.slice(begin, count).columns)
        return (ManifestRow(self._job, *values) for values in zip(*columns, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision(Source):
    """``uri`` and ``name`` are the manifest's.

    Attributes:
        video: the video's id.
        job: whose manifest part describes the archive that counts.
        base, base_sha256, base_bytes: that archive's key and fixity.
        version: of the archive to be made.
        gops: numbers of the GOPs to be coded again, ascending.
        root: where the source is looked for; None is where the manifest says.
    """

    video: str
    job: str
    base: str
    base_sha256: str
    base_bytes: int
    version: int
    gops: tuple[int, ...]
    root: str | None = None

    @property
    def video_id(self) -> str:
        """That of the video which it is about, wherever its source lies now."""
        return self.video

    @property
    def archive_key(self) -> str:
        """Where the new version goes."""
        return archive_key(self.name, self.version)

    def digest(self, config_hash: str) -> str:
        """16 hex digits over what decides the new archive's bytes: GOPs, how they are coded, and the archive they come
        into."""
        return _hashed(self.base_sha256, config_hash, *map(str, self.gops))

    def staging(self, config: JobConfig, weights_sha256: str, source_sha256: str) -> str:
        """Key prefix of the staged GOPs. Which others are coded again decides nothing of a GOP's bytes."""
        coding = _hashed(self.base_sha256, config.config_hash(weights_sha256))
        return f"{staging_prefix(self.video, source_sha256, coding, config.metrics)}-v{self.version}"

    def rows(self, storage: Storage) -> Rows:
        """What the manifest says of the GOPs of the archive that counts, in their order.

        Raises:
            StorageError: the part cannot be read, or was written by a newer version.
        """
        key = part_key(self.job, self.video)
        columns = [name for name in SCHEMA.names if name != "job"]
        table = read_columns(storage.read(key), columns, compact=True)
        if any(version > SCHEMA_VERSION for version in table["schema_version"].to_pylist()):
            raise StorageError(f"manifest part {key} was written by a newer version: use that one")
        return Rows(self.job, table.sort_by("gop_index"))


def _hashed(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
