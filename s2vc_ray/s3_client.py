"""The boto3 client as this project sets it up, which of its errors may pass, and what they mean in our words.

botocore repeats a request a few times by itself; `Retrying` goes on from there, for as long as `Patience`
allows, and covers what botocore does not: bodies that break on the way, and outages that outlast its retry
quota. Refusals (permission, credentials, no such bucket, an untrusted certificate) are never tried again.
Every repetition is counted as ``s3_retries`` with its reason: ``throttled``, ``server_error``, ``timeout``,
``connection``, ``broken_body``, ``corrupted`` or ``conflict``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from s2vc_ray.backoff import Patience
from s2vc_ray.counters import count
from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError, StoreUnavailable

_log = logging.getLogger(__name__)
T = TypeVar("T")

MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
EXISTS = frozenset({"412", "PreconditionFailed"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_CREDENTIALS = frozenset({"401", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "AccountProblem"})
_THROTTLED = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "503 SlowDown",
    }
)
_TIMED_OUT = frozenset({"RequestTimeout", "RequestTimeoutException"})
_CONFLICT = frozenset({"409", "ConditionalRequestConflict", "OperationAborted"})
_CORRUPTED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_TRANSIENT_STATUS = frozenset({500, 502, 503, 504})
_PERMISSIONS = {
    "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object looks forbidden)",
    "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object looks forbidden)",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
_SHARED_SECONDS = 900.0
_MOST_SHARED = 8
_sharing = threading.Lock()
_shared: dict[tuple[Any, ...], Any] = {}
_BROKEN_TLS = ("EOF", "timed out", "reset", "closed", "BAD_RECORD")
_CORRUPTED_TRIES = 5
"""Bytes that arrive wrong this often in a row were not hit by chance."""


class BrokenBody(Exception):
    """An answer whose bytes are fewer or others than it promised."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def make_client(endpoint_url: str | None, patience: Patience) -> Any:
    """An S3 client. Credentials, region and trusted certificates come from boto3's own providers.

    Raises:
        ConfigError: the endpoint's URL carries credentials.
        StorageError: the AWS configuration or the endpoint's URL is unusable.
    """
    endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "@" in urlsplit(endpoint).netloc:
        # Not repeated in the message: it would end up in logs and manifests.
        raise ConfigError("the S3 endpoint's URL carries credentials: set AWS_ACCESS_KEY_ID and such instead")
    config = Config(
        connect_timeout=patience.connect_timeout,
        read_timeout=patience.read_timeout,
        tcp_keepalive=True,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 4},
        # Other servers rarely have a host name for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Content-MD5 is sent instead: older servers refuse boto3's checksum trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # At debug level these write whole requests down, session tokens included.
    for name in ("botocore.auth", "botocore.endpoint", "botocore.httpsession"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        session = boto3.session.Session()
        region = session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot set up S3 access: {error}") from error
    client.meta.events.register("needs-retry.s3", _note_reason)
    client.meta.events.register("request-created.s3", _count_repetition)
    return client


def shared_client(endpoint_url: str | None, patience: Patience) -> Any:
    """As `make_client`, but one for all who ask alike: making one takes longer than most requests.

    Made afresh when the environment changes, after a fork, and every quarter of an hour, so that credentials
    renewed in a file are read.
    """
    surroundings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    key = (os.getpid(), int(time.monotonic() // _SHARED_SECONDS), endpoint_url, patience, surroundings)
    with _sharing:
        if key not in _shared:
            if len(_shared) >= _MOST_SHARED:
                _shared.clear()
            _shared[key] = make_client(endpoint_url, patience)
        return _shared[key]


def _note_reason(
    response: Any, caught_exception: Exception | None, request_dict: dict[str, Any], **_: Any
) -> None:
    reason = transient(caught_exception) if caught_exception else _answer_reason(response[1])
    if reason:
        request_dict["context"]["s2vc_reason"] = reason


def _count_repetition(request: Any, **_: Any) -> None:
    """Called once more for each attempt, so what is noted by then is why there is another."""
    if reason := request.context.pop("s2vc_reason", None):
        count("s3_retries", reason=reason)


def transient(error: BaseException) -> str | None:
    """Why ``error`` may pass by itself; None when it will not."""
    if isinstance(error, ClientError):
        return _answer_reason(error.response)
    if isinstance(error, BrokenBody):
        return error.reason
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
        return "timeout"
    if isinstance(error, IncompleteReadError | ResponseStreamingError | ResponseParserError):
        return "broken_body"
    if isinstance(error, FlexibleChecksumError):
        return "corrupted"
    if _is_untrusted(error):
        return None
    return "connection" if isinstance(error, ConnectionError | HTTPClientError) else None


def _answer_reason(answer: dict[str, Any]) -> str | None:
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 200)
    if code in _THROTTLED or status == 429:
        return "throttled"
    for reason, codes in (("timeout", _TIMED_OUT), ("conflict", _CONFLICT), ("corrupted", _CORRUPTED)):
        if code in codes:
            return reason
    return "server_error" if status in _TRANSIENT_STATUS or code == "InternalError" else None


def _is_untrusted(error: BaseException) -> bool:
    """Whether TLS itself refused; a connection that broke in its handshake is an SSLError as well."""
    return isinstance(error, SSLError) and not any(sign in str(error) for sign in _BROKEN_TLS)


def error_code(error: ClientError) -> str:
    """The server's code for what went wrong, such as ``NoSuchKey``; the HTTP status after a HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def was_repeated(error: ClientError) -> bool:
    """Whether botocore had sent the request before: an earlier try may have reached the store."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def retrying(call: Callable[[], T], patience: Patience, *, failed: Callable[[], None] | None = None) -> T:
    """What ``call`` returns, tried again for as long as it fails for a reason that may pass.

    ``failed`` is told of each such failure before the next try.
    """
    pauses, corrupted = patience.pauses(), 0
    while True:
        try:
            return call()
        except Exception as error:
            reason = transient(error)
            corrupted += reason == "corrupted"
            pause = next(pauses, None) if reason and corrupted < _CORRUPTED_TRIES else None
            if reason is None or pause is None:
                raise
            _log.warning("S3 (%s): %s; trying again in %.1f s", reason, error, pause)
        if failed:
            failed()
        count("s3_retries", reason=reason)
        time.sleep(pause)


def no_bucket(bucket: str, endpoint: str) -> str:
    """What to tell when ``bucket`` does not exist."""
    return f"bucket {bucket!r} does not exist at {endpoint}; create it first"


@contextlib.contextmanager
def s3_errors(action: str, bucket: str, endpoint: str, patience: Patience) -> Iterator[None]:
    """Turn boto3's errors into StorageErrors that name ``action``."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, action, bucket, endpoint, patience) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        raise StorageError(f"cannot {action}: no AWS credentials; {hint}") from error
    except (BotoCoreError, BrokenBody, ResponseParserError) as error:
        reason = transient(error)
        if _is_untrusted(error):
            text = (
                f"the certificate of {endpoint} is not trusted ({error}); name its authority in AWS_CA_BUNDLE"
            )
            raise StorageError(f"cannot {action}: {text}") from error
        if reason == "corrupted":
            raise StorageError(f"cannot {action}: {error}; tried {_CORRUPTED_TRIES} times") from error
        if reason:
            raise StoreUnavailable(
                f"cannot {action}: cannot reach {endpoint} ({reason}) for {patience.seconds:.0f} s: {error}"
            ) from error
        raise StorageError(f"cannot {action}: {error}") from error


def _refusal(error: ClientError, action: str, bucket: str, endpoint: str, patience: Patience) -> StorageError:
    code, reason = error_code(error), transient(error)
    said = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
    if code == "NoSuchBucket":
        return StorageError(no_bucket(bucket, endpoint))
    if code in MISSING:
        return ObjectMissing(f"cannot {action}: no such object")
    if code in _EXPIRED:
        text = f"the AWS credentials have expired ({code}); renew them and run the same command again"
    elif code == "RequestTimeTooSkewed":
        text = f"this machine's clock is too far from the store's ({code}); set it, by NTP for instance"
    elif code in _UNKNOWN_CREDENTIALS:
        text = f"permission denied: the store does not accept the AWS credentials ({code}); check them"
    elif code in _DENIED:
        needed = _PERMISSIONS.get(error.operation_name, error.operation_name)
        text = (
            f"permission denied ({code}); it takes {needed} on bucket {bucket!r}, and valid AWS credentials"
        )
    elif reason and reason != "corrupted":
        return StoreUnavailable(f"cannot {action}: {endpoint} fails since {patience.seconds:.0f} s: {said}")
    else:
        text = said
    return StorageError(f"cannot {action}: {text}")
