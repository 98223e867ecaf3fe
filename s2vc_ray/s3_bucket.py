"""One bucket, asked patiently and believed carefully; what `S3Storage` and multipart uploads are made of.

Every request is tried again while its failure may pass, every answer is checked for what it promised, and a
write whose answer was lost is told from somebody else's by a mark: a random token in the object's metadata.
Speaks of full object names; knows nothing of keys and prefixes.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from s2vc_ray.backoff import Patience
from s2vc_ray.counters import count
from s2vc_ray.errors import StorageError
from s2vc_ray.s3_client import (
    EXISTS,
    MISSING,
    BrokenBody,
    error_code,
    make_client,
    no_bucket,
    retrying,
    s3_errors,
    shared_client,
    was_repeated,
)

T = TypeVar("T")
_TOKEN, _MD5 = "s2vc-write", "s2vc-md5"


class Bucket:
    """Requests to one bucket. Threads may share it. Every method raises as `Storage`'s do."""

    def __init__(
        self, name: str, endpoint_url: str | None, patience: Patience, *, shared: bool = False
    ) -> None:
        self.name = name
        self.patience = patience
        self._make_client = shared_client if shared else make_client
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._client: Any = None
        self._seen = False

    @property
    def client(self) -> Any:
        """The boto3 client, made at the first request."""
        with self._lock:
            if self._client is None:
                self._client = self._make_client(self._endpoint_url, self.patience)
            return self._client

    @property
    def endpoint(self) -> str:
        """Where the bucket is asked for."""
        return str(self.client.meta.endpoint_url)

    def uri(self, name: str) -> str:
        """The object's ``s3://`` URI."""
        return f"s3://{self.name}/{name}"

    def call(self, action: str, request: Callable[[], T], *, failed: Callable[[], None] | None = None) -> T:
        """What ``request`` returns; see `s2vc_ray.s3_client.retrying`. ``action`` is for its error."""
        with s3_errors(f"{action} in bucket {self.name!r}", self.name, self.endpoint, self.patience):
            return retrying(request, self.patience, failed=failed)

    def head(self, name: str) -> dict[str, Any] | None:
        """What the store says of an object; None when there is none."""
        return self.call(f"examine {name}", partial(self._head, name))

    def get(self, name: str, start: int = 0, end: int | None = None, **wanted: str) -> bytes:
        """Bytes ``start..end`` of an object, cut at its end. ``wanted`` goes to boto3's ``get_object``."""
        if start == 0 and end is None:
            wanted["ChecksumMode"] = "ENABLED"
        else:
            wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"

        def fetch() -> bytes:
            try:
                answer = self.client.get_object(Bucket=self.name, Key=name, **wanted)
            except ClientError as error:
                if error_code(error) in ("416", "InvalidRange"):
                    return b""
                if error_code(error) in EXISTS:
                    raise StorageError(f"{self.uri(name)} was replaced while it was read") from error
                raise
            return _checked(answer, answer["Body"].read(), start, end)

        return self.call(f"read {name}", fetch)

    def put(self, name: str, data: bytes, *, overwrite: bool) -> bool:
        """Write an object in one request; False when one was there and ``overwrite`` is false."""
        token, digest = new_token(), md5(data)
        wanted = {
            "Bucket": self.name,
            "Key": name,
            "Body": data,
            "ContentMD5": base64.b64encode(digest).decode(),
            "Metadata": {_TOKEN: token, _MD5: digest.hex()},
            **condition(overwrite),
        }
        return self.write_once(name, token, lambda: self.client.put_object(**wanted))

    def write_once(self, name: str, token: str, write: Callable[[], Any]) -> bool:
        """Run a conditional ``write`` that carries ``token``; False when somebody else's object is there."""
        unsure = False

        def lost() -> None:
            nonlocal unsure
            unsure = True

        def attempt() -> bool:
            try:
                write()
                return True
            except ClientError as error:
                if error_code(error) not in EXISTS:
                    raise
                # A try before this one may have been the write that it now finds.
                return (unsure or was_repeated(error)) and self.holds(name, token, after_loss=True)

        return self.call(f"write {name}", attempt, failed=lost)

    def holds(self, name: str, token: str, *, after_loss: bool = False) -> bool:
        """Whether the object there is the one that was written with ``token``."""
        found = self.head(name)
        ours = found is not None and found.get("Metadata", {}).get(_TOKEN) == token
        if ours and after_loss:
            count("s3_lost_answers")
        return ours

    def pages(self, operation: str, held: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Entries of all pages of a listing; a page that fails is asked for again, not the whole listing."""
        request = getattr(self.client, operation)
        at: dict[str, str] = {}
        while True:
            page: dict[str, Any] = self.call(
                f"list {prefix}*", partial(request, Bucket=self.name, Prefix=prefix, **at)
            )
            yield from page.get(held, ())
            if not page.get("IsTruncated"):
                return
            at = _next_page(page)
            if not at:
                raise StorageError(f"{self.endpoint} breaks off the listing of {self.uri(prefix)}*")

    def _head(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.client.head_object(Bucket=self.name, Key=name)
        except ClientError as error:
            if error_code(error) not in MISSING:
                raise
            # The answer to a HEAD does not say whether the object or the whole bucket is missing.
            self._require()
            return None
        self._seen = True
        return found

    def _require(self) -> None:
        if not self._seen:
            try:
                self.client.head_bucket(Bucket=self.name)
            except ClientError as error:
                if error_code(error) not in MISSING:
                    raise
                raise StorageError(no_bucket(self.name, self.endpoint)) from error
            self._seen = True


def new_token() -> str:
    """A mark that no other write carries."""
    return uuid.uuid4().hex


def mark(token: str) -> dict[str, str]:
    """The metadata that carries ``token``."""
    return {_TOKEN: token}


def condition(overwrite: bool) -> dict[str, str]:
    """What makes a write give way to an object that is there."""
    return {} if overwrite else {"IfNoneMatch": "*"}


def md5(data: bytes) -> bytes:
    """What Content-MD5 and plain ETags are made of: against damage on the way, not against anybody."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def _checked(answer: dict[str, Any], body: bytes, start: int, end: int | None) -> bytes:
    """Bytes ``start..end`` of the object out of ``body``, when it is all that the answer promised.

    Raises:
        BrokenBody: it is not.
    """
    covered = answer.get("ContentRange")
    if covered is None:
        # All of the object: it was asked for, or the server knows no ranges.
        stored = answer.get("Metadata", {}).get(_MD5)
        if stored and md5(body).hex() != stored:
            raise BrokenBody("corrupted", "the bytes that arrived do not have the MD5 they were stored with")
        return body[start:end]
    total = covered.rpartition("/")[2]
    stop = end if total == "*" else int(total) if end is None else min(end, int(total))
    if not covered.startswith(f"bytes {start}-") or (stop is not None and len(body) != stop - start):
        raise BrokenBody("broken_body", f"{len(body)} bytes ({covered}) arrived of bytes {start}..{stop}")
    return body


def _next_page(page: dict[str, Any]) -> dict[str, str]:
    if token := page.get("NextContinuationToken"):
        return {"ContinuationToken": token}
    markers = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
    return {name: marker for name, marker in markers.items() if marker}
