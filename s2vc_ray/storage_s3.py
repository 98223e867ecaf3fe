"""Storage under a prefix of an S3 bucket: conditional writes, multipart uploads, ranged reads.

Every request carries what makes it safe to believe: uploads a Content-MD5, writes that must not overwrite
``If-None-Match: *``, ranged reads of one stream the ETag they began with.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from s2vc_ray.backoff import Patience
from s2vc_ray.block_cache import BlockCache
from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.range_stream import RangeStream
from s2vc_ray.s3_bucket import Bucket
from s2vc_ray.s3_client import error_code
from s2vc_ray.s3_upload import upload
from s2vc_ray.storage import ObjectStat, Unfinished, check_key, check_range
from s2vc_ray.storage_local import open_file

_log = logging.getLogger(__name__)
_PART_BYTES = 16 << 20
_DELETE_BATCH = 1000


class S3Storage:
    """Objects under ``s3://bucket/prefix/``. See `Storage`.

    Args:
        bucket: an existing bucket.
        prefix: put before every key with a slash; empty for the whole bucket.
        endpoint_url: an S3-compatible server; ``AWS_ENDPOINT_URL`` or AWS itself when ``None``.
        part_bytes: larger files are uploaded in parts of at least this size (S3 wants 5 MiB).
        patience: how long a failing store is asked again; ``None`` is `Patience.from_environment`.
        shared: use the process's one client, for storages that are opened for a request or two.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        part_bytes: int = _PART_BYTES,
        patience: Patience | None = None,
        shared: bool = False,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint_url = endpoint_url
        self.part_bytes = part_bytes
        self.patience = patience or Patience.from_environment()
        self._bucket = Bucket(bucket, endpoint_url, self.patience, shared=shared)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.bucket, self.prefix, self.endpoint_url, self.part_bytes, self.patience)

    def __repr__(self) -> str:
        return f"S3Storage({self.uri!r}, endpoint_url={self.endpoint_url!r})"

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def stat(self, key: str) -> ObjectStat | None:
        """See `Storage.stat`."""
        found = self._bucket.head(self._name(key))
        return None if found is None else _stat(key, found, found["ContentLength"])

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `Storage.read`."""
        check_range(start, end)
        if start == end:
            # HTTP has no empty range; the object must exist all the same.
            self._require(key)
            return b""
        return self._bucket.get(self._name(key), start, end)

    def open(self, key: str, cache: BlockCache | None = None) -> BinaryIO:
        """See `Storage.open`. Fails, rather than mix versions, when the object is replaced meanwhile."""
        found = self._require(key)
        name = self._name(key)

        def read_range(start: int, end: int) -> bytes:
            data = self._bucket.get(name, start, end, IfMatch=f'"{found.etag}"')
            if len(data) != end - start:
                raise StorageError(f"{self._bucket.uri(name)} is shorter than its {found.size} bytes")
            return data

        if cache is not None:
            identity = (self._bucket.uri(name), found.etag, found.size)
            return RangeStream(found.size, cache.reader(identity, found.size, read_range)).buffered()
        return RangeStream(found.size, read_range).buffered()

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> bool:
        """See `Storage.put`."""
        return self._bucket.put(self._name(key), data, overwrite=overwrite)

    def put_file(self, key: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> bool:
        """See `Storage.put_file`. The object appears only when the upload is closed after its last part."""
        name = self._name(key)
        with open_file(Path(path)) as source:
            if not overwrite and self.stat(key) is not None:
                return False
            size = os.fstat(source.fileno()).st_size
            if size <= self.part_bytes:
                return self.put(key, source.read(), overwrite=overwrite)
            return upload(self._bucket, name, source, size, part_bytes=self.part_bytes, overwrite=overwrite)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """See `Storage.list`. Names that are no valid key are passed over; all but "folder" markers aloud."""
        root = self._root()
        for found in self._bucket.pages("list_objects_v2", "Contents", root + prefix):
            name = found["Key"].removeprefix(root)
            try:
                key = check_key(name)
            except StorageError as error:
                if name and not name.endswith("/"):
                    _log.warning("not listed: %s", error)
                continue
            yield _stat(key, found, found["Size"])

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `Storage.keys`."""
        return (item.key for item in self.list(prefix))

    def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        name = self._name(key)
        self._bucket.call(f"delete {name}", partial(self._client.delete_object, Bucket=self.bucket, Key=name))

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Storage.delete_many`."""
        left = iter(keys)
        while batch := [self._name(key) for key in islice(left, _DELETE_BATCH)]:
            # One by one, what a server does not delete in a batch gets its own tries and its own error.
            for name in self._not_deleted(batch):
                self.delete(name.removeprefix(self._root()))

    def now(self) -> float:
        """See `Storage.now`: the ``Date`` of an answer."""
        ask = partial(self._client.list_objects_v2, Bucket=self.bucket, Prefix=self._root(), MaxKeys=1)
        answer = self._bucket.call("ask for the time", ask)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(date).timestamp()
        except ValueError:
            where = self._bucket.endpoint
            raise StorageError(
                f"{where} does not say what time it is ({date!r}), so ages are unknown"
            ) from None

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `Storage.unfinished`: multipart uploads; S3 bills for their parts."""
        root = self._root()
        for found in self._bucket.pages("list_multipart_uploads", "Uploads", root + prefix):
            key = found["Key"].removeprefix(root)
            yield Unfinished(key, found["UploadId"], found["Initiated"].timestamp())

    def discard(self, write: Unfinished) -> None:
        """See `Storage.discard`."""
        name = self._root() + write.key

        def abort() -> None:
            try:
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=write.token)
            except ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise

        self._bucket.call(f"abort the upload of {name}", abort)

    def _not_deleted(self, names: Sequence[str]) -> Sequence[str]:
        """Names that are left after one request to delete them all."""
        wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}

        def ask() -> Sequence[str]:
            try:
                answer = self._client.delete_objects(Bucket=self.bucket, Delete=wanted)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 405, 501):
                    # A server that knows no such request, or wants another checksum of it.
                    return names
                raise
            return [failed["Key"] for failed in answer.get("Errors", ())]

        return self._bucket.call(f"delete {len(names)} objects", ask)

    def _require(self, key: str) -> ObjectStat:
        found = self.stat(key)
        if found is None:
            raise ObjectMissing(f"no such object: {self._bucket.uri(self._name(key))}")
        return found

    @property
    def _client(self) -> Any:
        return self._bucket.client

    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _name(self, key: str) -> str:
        return self._root() + check_key(key)


def _unpickle(
    bucket: str, prefix: str, endpoint_url: str | None, part_bytes: int, patience: Patience
) -> S3Storage:
    return S3Storage(bucket, prefix, endpoint_url=endpoint_url, part_bytes=part_bytes, patience=patience)


def _stat(key: str, found: dict[str, Any], size: int) -> ObjectStat:
    return ObjectStat(key, size, found["ETag"].strip('"'), found["LastModified"].timestamp())
