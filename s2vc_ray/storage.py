"""The storage seam: named, immutable objects under one root, in a folder or an S3 prefix.

Owns the protocol, the rules for keys and URIs, and reading sources. Knows nothing of archives or manifests.
A new backend is one file that implements `Storage`, one line in `open_storage`, and passes
``tests/s2vc_ray/test_storage.py``.

    storage = open_storage("s3://bucket/archive")
    storage.put("video-1.s2vc", data)       # True: written; False: it was there already and was left alone
    with storage.open("video-1.s2vc") as stream: ...
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from s2vc_ray.backoff import Patience
from s2vc_ray.block_cache import BlockCache
from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError

if TYPE_CHECKING:
    from s2vc_ray.storage_s3 import S3Storage

# Names of unfinished local writes end so; no object may, on any backend.
TEMPORARY_SUFFIX = ".s2vc-tmp"
_MAX_KEY_BYTES = 900
_NO_PARTS = frozenset(("", ".", ".."))


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """One object: its key, size in bytes, a tag that changes with its bytes, and mtime in POSIX seconds.

    The time is the store's: compare it with `Storage.now`, never with this machine's clock.
    """

    key: str
    size: int
    etag: str
    mtime: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that was begun and not ended: by a client that died, or by one that is still at work.

    Attributes:
        key: the object it would become or, where the store does not know that, its temporary name.
        token: what tells it from other unfinished writes of that key.
        since: POSIX seconds, on the store's clock, of its beginning (local: of its last byte).
    """

    key: str
    token: str
    since: float


class Storage(Protocol):
    """Objects under one root. Keys: see `check_key`. Instances pickle, and threads may share one.

    Every method raises StorageError, with what failed and where, when the store refuses, and StoreUnavailable
    when it went on failing for a reason that may pass.
    """

    @property
    def uri(self) -> str:
        """The root; `open_storage` of it gives an equal storage (on S3, at the same endpoint)."""
        ...

    def stat(self, key: str) -> ObjectStat | None:
        """The object's size, tag and time, or ``None`` when there is no such object."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start..end`` (exclusive; ``None``: to the end) of the object, cut at its end.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable stream of the object that reads ranges on demand.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> bool:
        """Make an object of ``data``, whole or not at all, durably. Of racing writers exactly one wins.

        Returns:
            True when this call wrote it; False when it existed and ``overwrite`` is false.
        """
        ...

    def put_file(self, key: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> bool:
        """As ``put``, from the file at ``path``, in bounded memory."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Objects whose key starts with ``prefix`` (any text, not only whole parts).

        The order is the store's own; most, but not all, list ascending by key.
        """
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that ``list`` gives, and nothing else of the objects: where those are files, none is looked at."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        ...

    def delete_many(self, keys: Iterable[str]) -> None:
        """As `delete`, of each, in few requests."""
        ...

    def now(self) -> float:
        """POSIX seconds on the clock that stamps this store's objects, which need not be this machine's.

        A folder is asked by writing an empty temporary file and removing it.
        """
        ...

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """Writes under ``prefix`` that were begun and not ended, whether or not anybody is still at them."""
        ...

    def discard(self, write: Unfinished) -> None:
        """Remove what an unfinished write has left so far; no error when it has ended meanwhile."""
        ...


def check_key(key: str) -> str:
    """``key`` itself, when it is ``part/part/...`` and cannot lead out of a root.

    Refused: empty keys and parts (so absolute keys and trailing slashes), ``.`` and ``..``, backslashes, NUL,
    text that is not UTF-8, over 900 bytes, and the suffix of temporary files.

    Raises:
        StorageError: the key is refused.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise StorageError(f"key {key!r} is not valid UTF-8") from None
    parts = key.split("/")
    if "\0" in key or "\\" in key or not _NO_PARTS.isdisjoint(parts):
        raise StorageError(f"key {key!r} must be relative, '/'-separated, without empty, '.' or '..' parts")
    if size > _MAX_KEY_BYTES or (
        TEMPORARY_SUFFIX in key and any(part.endswith(TEMPORARY_SUFFIX) for part in parts)
    ):
        raise StorageError(f"key {key[:80]!r} is longer than {_MAX_KEY_BYTES} bytes or a temporary name")
    return key


def check_range(start: int, end: int | None) -> None:
    """Refuse byte ranges that count from the end or run backwards.

    Raises:
        ValueError: ``start`` is negative or ``end`` lies before it.
    """
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"byte range {start}..{end} is negative or runs backwards")


def open_storage(uri: str, *, endpoint_url: str | None = None, patience: Patience | None = None) -> Storage:
    """The storage at ``uri``: a folder path, ``file:///folder`` or ``s3://bucket/prefix``. Creates nothing.

    Credentials come from the usual AWS providers (environment, profile, instance role); the S3 endpoint from
    ``endpoint_url``, else ``AWS_ENDPOINT_URL``. ``patience`` is how long a failing store is asked again.

    Raises:
        ConfigError: the URI has another scheme, names no bucket or carries credentials.
    """
    if uri.startswith("s3://"):
        from s2vc_ray.storage_s3 import S3Storage

        bucket, prefix = _split_s3(uri)
        return S3Storage(bucket, prefix.strip("/"), endpoint_url=endpoint_url, patience=patience)
    from s2vc_ray.storage_local import LocalStorage

    return LocalStorage(local_path(uri))


def open_source(
    uri: str,
    *,
    endpoint_url: str | None = None,
    patience: Patience | None = None,
    cache: BlockCache | None = None,
) -> BinaryIO:
    """A seekable stream of a source: a local path, a ``file://`` URI or an ``s3://bucket/key`` object.

    ``cache`` holds what was read of objects before; files have the system's.

    Raises:
        ObjectMissing: there is no such file or object.
        StorageError: it cannot be opened.
        ConfigError: as `open_storage`.
    """
    if uri.startswith("s3://"):
        storage, key = _s3_object(uri, endpoint_url, patience)
        return storage.open(key, cache)
    from s2vc_ray.storage_local import open_file

    return open_file(local_path(uri))


def stat_source(uri: str, *, endpoint_url: str | None = None) -> ObjectStat:
    """Size, tag and time of a source; its ``key`` is the last part of the URI.

    Raises:
        ObjectMissing: there is no such file or object.
        StorageError: it cannot be examined.
        ConfigError: as `open_storage`.
    """
    if uri.startswith("s3://"):
        storage, key = _s3_object(uri, endpoint_url, None)
        found = storage.stat(key)
    else:
        from s2vc_ray.storage_local import stat_file

        path = local_path(uri)
        found = stat_file(path, path.name)
    if found is None:
        raise ObjectMissing(f"no such source: {uri}")
    return found


def local_path(uri: str) -> Path:
    """The path that a plain path or a ``file://`` URI names.

    Raises:
        ConfigError: another scheme, another host, or nothing at all.
    """
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigError(f"{uri!r} names another host; write file:///folder")
        # Not urlsplit's path: '?' and '#' are plain characters of a file name here.
        return Path(unquote(uri.removeprefix("file://").removeprefix(parts.netloc)))
    scheme, separator, _ = uri.partition("://")
    if not uri or "\0" in uri or (separator and scheme.isalnum()):
        raise ConfigError(f"cannot use {uri!r}: give a folder, file:///folder or s3://bucket/prefix")
    return Path(uri)


def _split_s3(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
    if "@" in bucket or ":" in bucket:
        # Not repeated in the message: what stands there may be a secret.
        raise ConfigError(
            "an s3:// URI takes no credentials or port: write s3://bucket/prefix, and set credentials in the "
            "environment, a profile or a role"
        )
    return bucket, key


def _s3_object(uri: str, endpoint_url: str | None, patience: Patience | None) -> tuple[S3Storage, str]:
    from s2vc_ray.storage_s3 import S3Storage

    bucket, path = _split_s3(uri)
    # The prefix stays as written: keys that others made may hold what `check_key` forbids ours.
    prefix, _, key = path.rpartition("/")
    return S3Storage(bucket, prefix, endpoint_url=endpoint_url, patience=patience, shared=True), key
