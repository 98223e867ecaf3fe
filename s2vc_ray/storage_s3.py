"""Storage under a prefix of an S3 bucket, through boto3: conditional writes, multipart uploads, ranged reads.

Every request carries what makes it safe to believe: uploads a Content-MD5, writes that must not overwrite
``If-None-Match: *``, ranged reads of one stream the ETag they began with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.s3_client import MISSING, error_code, make_client, no_bucket, s3_errors
from s2vc_ray.storage import ObjectStat, RangeStream, check_key, check_range
from s2vc_ray.storage_local import open_file

_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_ATTEMPTS = 5
_CHANGED = {"412", "PreconditionFailed"}
_CONFLICT = {"409", "ConditionalRequestConflict", "OperationAborted"}
_BROKEN_BODY = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


class S3Storage:
    """Objects under ``s3://bucket/prefix/``. See `Storage`.

    A write that reached the server but whose answer was lost is tried again by boto3 and then reports False:
    "there already" may mean "by this very call".

    Args:
        bucket: an existing bucket.
        prefix: put before every key with a slash; empty for the whole bucket.
        endpoint_url: an S3-compatible server; ``AWS_ENDPOINT_URL`` or AWS itself when ``None``.
        part_bytes: larger files are uploaded in parts of at least this size (S3 wants 5 MiB).
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None, part_bytes: int = _PART_BYTES
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint_url = endpoint_url
        self.part_bytes = part_bytes
        self._lock = threading.Lock()
        self._made_client: Any = None
        self._bucket_seen = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.bucket, self.prefix, self.endpoint_url, self.part_bytes)

    def __repr__(self) -> str:
        return f"S3Storage({self.uri!r}, endpoint_url={self.endpoint_url!r})"

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def stat(self, key: str) -> ObjectStat | None:
        """See `Storage.stat`."""
        name = self._name(key)
        with self._errors(f"examine {name}"):
            try:
                found = self._client.head_object(Bucket=self.bucket, Key=name)
            except ClientError as error:
                if error_code(error) not in MISSING:
                    raise
                # The answer to a HEAD does not say whether the object or the whole bucket is missing.
                self._require_bucket()
                return None
        self._bucket_seen = True
        return _stat(key, found, found["ContentLength"])

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `Storage.read`."""
        check_range(start, end)
        name = self._name(key)
        if start == end:
            # HTTP has no empty range; the object must exist all the same.
            self._require(key)
            return b""
        if start == 0 and end is None:
            return self._get(name)
        return self._get(name, Range=f"bytes={start}-{'' if end is None else end - 1}")

    def open(self, key: str) -> BinaryIO:
        """See `Storage.open`. Fails, rather than mix versions, when the object is replaced meanwhile."""
        found = self._require(key)
        name = self._name(key)

        def read_range(start: int, end: int) -> bytes:
            return self._get(name, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{found.etag}"')

        return RangeStream(found.size, read_range).buffered()

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> bool:
        """See `Storage.put`."""
        name = self._name(key)

        def write() -> None:
            self._client.put_object(
                Bucket=self.bucket, Key=name, Body=data, ContentMD5=_md5(data), **_condition(overwrite)
            )

        return self._conditionally(name, write)

    def put_file(self, key: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> bool:
        """See `Storage.put_file`. The object appears only when the upload is closed after its last part."""
        name = self._name(key)
        with open_file(Path(path)) as source:
            if not overwrite and self.stat(key) is not None:
                return False
            size = os.fstat(source.fileno()).st_size
            if size <= self.part_bytes:
                return self.put(key, source.read(), overwrite=overwrite)
            tags: list[str] = []
            won = self._conditionally(name, lambda: tags.append(self._upload(name, source, size, overwrite)))
        return won and (overwrite or self._is_still(key, tags[-1]))

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """See `Storage.list`. Names that are no valid key, such as "folder" markers, are passed over."""
        root = self._root()
        for page in self._pages("list_objects_v2", root + prefix):
            for found in page.get("Contents", ()):
                try:
                    key = check_key(found["Key"].removeprefix(root))
                except StorageError:
                    continue
                yield _stat(key, found, found["Size"])

    def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        name = self._name(key)
        with self._errors(f"delete {name}"):
            self._client.delete_object(Bucket=self.bucket, Key=name)

    def sweep(self, prefix: str = "", *, older_than: float) -> int:
        """See `Storage.sweep`: aborts uploads that killed clients left open; S3 bills for their parts."""
        cutoff = time.time() - older_than
        removed = 0
        for page in self._pages("list_multipart_uploads", self._root() + prefix):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"].timestamp() <= cutoff:
                    self._abort(upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    def _is_still(self, key: str, etag: str) -> bool:
        """Whether the object is the one just written.

        S3 lets one of several conditional completions win. SeaweedFS may let completions that overlap all
        succeed, the last one staying. Asking again tells nearly every overwritten one; two that overlap to
        the millisecond may still both believe that they won, and whole is what lies there either way.
        """
        found = self.stat(key)
        return found is not None and found.etag == etag

    def _upload(self, name: str, source: BinaryIO, size: int, overwrite: bool) -> str:
        source.seek(0)
        part_bytes = max(self.part_bytes, -(-size // _MAX_PARTS))
        place = {"Bucket": self.bucket, "Key": name}
        place["UploadId"] = self._client.create_multipart_upload(**place)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            sent = 0
            while data := source.read(part_bytes):
                number = len(parts) + 1
                answer = self._client.upload_part(
                    **place, PartNumber=number, Body=data, ContentMD5=_md5(data)
                )
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
                sent += len(data)
            if sent != size:
                raise StorageError(f"cannot write {self._uri(name)}: the file changed while it was uploaded")
            done = self._client.complete_multipart_upload(
                **place, MultipartUpload={"Parts": parts}, **_condition(overwrite)
            )
            return str(done["ETag"]).strip('"')
        except BaseException:
            self._abort(name, place["UploadId"])
            raise

    def _abort(self, name: str, upload: str) -> None:
        # Best effort: the first error matters more, and `sweep` finds what stays.
        with contextlib.suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload)

    def _conditionally(self, name: str, write: Callable[[], None]) -> bool:
        """Run ``write``; False when the object exists. S3 asks racing writers (409) to come again."""
        with self._errors(f"write {name}"):
            for attempt in range(_ATTEMPTS):
                try:
                    write()
                    return True
                except ClientError as error:
                    if error_code(error) in _CHANGED:
                        return False
                    if error_code(error) not in _CONFLICT or attempt + 1 == _ATTEMPTS:
                        raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def _get(self, name: str, **wanted: str) -> bytes:
        with self._errors(f"read {name}"):
            for attempt in range(_ATTEMPTS):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=name, **wanted)
                    body: bytes = answer["Body"].read()
                    return body
                except ClientError as error:
                    if error_code(error) in ("416", "InvalidRange"):
                        return b""
                    if error_code(error) in _CHANGED:
                        raise StorageError(f"{self._uri(name)} was replaced while it was read") from error
                    raise
                except _BROKEN_BODY:
                    # boto3 repeats requests, but not a body whose connection broke on the way.
                    if attempt + 1 == _ATTEMPTS:
                        raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def _pages(self, operation: str, prefix: str) -> Iterator[dict[str, Any]]:
        with self._errors(f"list {prefix}*"):
            yield from self._client.get_paginator(operation).paginate(Bucket=self.bucket, Prefix=prefix)

    def _require(self, key: str) -> ObjectStat:
        found = self.stat(key)
        if found is None:
            raise ObjectMissing(f"no such object: {self._uri(self._name(key))}")
        return found

    def _require_bucket(self) -> None:
        if not self._bucket_seen:
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if error_code(error) not in MISSING:
                    raise
                raise StorageError(no_bucket(self.bucket, self._endpoint)) from error
            self._bucket_seen = True

    def _errors(self, action: str) -> contextlib.AbstractContextManager[None]:
        return s3_errors(f"{action} in bucket {self.bucket!r}", self.bucket, self._endpoint)

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made_client is None:
                self._made_client = make_client(self.endpoint_url)
            return self._made_client

    @property
    def _endpoint(self) -> str:
        return str(self._client.meta.endpoint_url)

    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _name(self, key: str) -> str:
        return self._root() + check_key(key)

    def _uri(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"


def _unpickle(bucket: str, prefix: str, endpoint_url: str | None, part_bytes: int) -> S3Storage:
    return S3Storage(bucket, prefix, endpoint_url=endpoint_url, part_bytes=part_bytes)


def _stat(key: str, found: dict[str, Any], size: int) -> ObjectStat:
    return ObjectStat(key, size, found["ETag"].strip('"'), found["LastModified"].timestamp())


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
