"""The boto3 client as this project sets it up, and its errors in this project's words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from s2vc_ray.errors import ObjectMissing, StorageError

MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)


def make_client(endpoint_url: str | None) -> Any:
    """An S3 client. Credentials and region come from boto3's own providers.

    Raises:
        StorageError: the AWS configuration or the endpoint's URL is unusable.
    """
    endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 4},
        # Other servers rarely have a host name for each bucket.
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Content-MD5 is sent instead: older servers refuse boto3's checksum trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session()
        region = session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot set up S3 access: {error}") from error


def error_code(error: ClientError) -> str:
    """The server's code for what went wrong, such as ``NoSuchKey``; the HTTP status after a HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def no_bucket(bucket: str, endpoint: str) -> str:
    """What to tell when ``bucket`` does not exist."""
    return f"bucket {bucket!r} does not exist at {endpoint}; create it first"


@contextlib.contextmanager
def s3_errors(action: str, bucket: str, endpoint: str) -> Iterator[None]:
    """Turn boto3's errors into StorageErrors that name ``action``."""
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        if code == "NoSuchBucket":
            raise StorageError(no_bucket(bucket, endpoint)) from error
        if code in MISSING:
            raise ObjectMissing(f"cannot {action}: no such object") from error
        if code in _DENIED:
            text = f"permission denied ({code}); check the AWS credentials and the bucket's policy"
        else:
            text = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
        raise StorageError(f"cannot {action}: {text}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        raise StorageError(f"cannot {action}: no AWS credentials; {hint}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise StorageError(f"cannot {action}: cannot reach {endpoint}: {error}") from error
    except BotoCoreError as error:
        raise StorageError(f"cannot {action}: {error}") from error
