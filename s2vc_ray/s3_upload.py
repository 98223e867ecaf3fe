"""One large file as one object: a multipart upload that appears whole, after its last part, or not at all."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from s2vc_ray.errors import StorageError
from s2vc_ray.s3_bucket import Bucket, condition, mark, md5, new_token
from s2vc_ray.s3_client import error_code

_MAX_PARTS = 10_000
_UPLOADS = 5
"""How often an upload that somebody aborted under us is begun afresh."""


def upload(
    bucket: Bucket, name: str, source: BinaryIO, size: int, *, part_bytes: int, overwrite: bool
) -> bool:
    """Write ``size`` bytes of ``source`` as the object ``name``, in parts of at least ``part_bytes``.

    Returns:
        False when an object was there and ``overwrite`` is false.
    """
    for _ in range(_UPLOADS):
        won = _try_upload(bucket, name, source, size, max(part_bytes, -(-size // _MAX_PARTS)), overwrite)
        if won is not None:
            return won
    raise StorageError(f"cannot write {bucket.uri(name)}: its upload was aborted {_UPLOADS} times by others")


def _try_upload(
    bucket: Bucket, name: str, source: BinaryIO, size: int, part_bytes: int, overwrite: bool
) -> bool | None:
    """Whether this upload won; None when somebody aborted it, and it is to be begun afresh."""
    token, client = new_token(), bucket.client
    place = {"Bucket": bucket.name, "Key": name}
    create = partial(client.create_multipart_upload, **place, Metadata=mark(token))
    place["UploadId"] = bucket.call(f"write {name}", create)["UploadId"]
    won = False
    try:
        parts = list(_parts(bucket, place, source, size, part_bytes))
        done = {**place, "MultipartUpload": {"Parts": parts}, **condition(overwrite)}
        won = bucket.write_once(name, token, partial(client.complete_multipart_upload, **done))
    except StorageError as error:
        if not _is_gone(error):
            raise
        # An upload that was completed, by a try whose answer was lost, is gone as well.
        return bucket.holds(name, token, after_loss=True) or None
    finally:
        if not won:
            _abort(bucket, place)
    # S3 lets one of several conditional completions win. SeaweedFS may let completions that overlap all
    # succeed, the last one staying. Asking again tells nearly every overwritten one; two that overlap to the
    # millisecond may still both believe that they won, and whole is what lies there either way.
    return won and (overwrite or bucket.holds(name, token))


def _parts(
    bucket: Bucket, place: dict[str, str], source: BinaryIO, size: int, part_bytes: int
) -> Iterator[dict[str, Any]]:
    source.seek(0)
    sent = 0
    while data := source.read(part_bytes):
        number = sent // part_bytes + 1
        content_md5 = base64.b64encode(md5(data)).decode()
        part = partial(
            bucket.client.upload_part, **place, PartNumber=number, Body=data, ContentMD5=content_md5
        )
        sent += len(data)
        if sent > size:
            break
        yield {"PartNumber": number, "ETag": bucket.call(f"write {place['Key']}", part)["ETag"]}
    if sent != size:
        raise StorageError(f"cannot write {bucket.uri(place['Key'])}: the file changed while it was uploaded")


def _abort(bucket: Bucket, place: dict[str, str]) -> None:
    # Best effort: the first error matters more, and `s2vc gc` finds what stays.
    with contextlib.suppress(ClientError, BotoCoreError):
        bucket.client.abort_multipart_upload(**place)


def _is_gone(error: StorageError) -> bool:
    return isinstance(error.__cause__, ClientError) and error_code(error.__cause__) == "NoSuchUpload"
