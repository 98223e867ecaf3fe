"""A small evaluator of IAM policies: enough for ours, and refusing what it does not know.

Who may do what, as AWS decides it for one identity policy: an explicit Deny wins, else any Allow, else no.
Which permission an S3 request needs is Amazon's table, "Actions, resources, and condition keys for Amazon S3"
in its Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

PERMISSIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
_CREATES = ("PutObject", "CompleteMultipartUpload")


@dataclass(frozen=True, slots=True)
class Request:
    """One S3 request: the API's operation, where, and the headers that policies ask about."""

    operation: str
    bucket: str
    key: str | None = None
    if_none_match: bool = False
    secure: bool = True

    @property
    def permission(self) -> str:
        """What it needs; KeyError for an operation that no policy of ours was written for."""
        return PERMISSIONS[self.operation]

    @property
    def resource(self) -> str:
        """The ARN of the bucket or object."""
        return f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key is not None else "")

    @property
    def context(self) -> dict[str, str]:
        """Condition keys that AWS sets for it."""
        keys = {"aws:SecureTransport": str(self.secure).lower()}
        if self.permission == "s3:PutObject":
            keys["s3:ObjectCreationOperation"] = str(self.operation in _CREATES).lower()
        if self.if_none_match:
            keys["s3:if-none-match"] = "*"
        return keys


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy document."""

    document: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        known = {"Sid", "Effect", "Action", "Resource", "NotResource", "Condition"}
        for statement in self.document["Statement"]:
            if set(statement) - known or not set(statement.get("Condition", {})) <= {"Bool", "Null"}:
                raise ValueError(f"statement {statement} has parts that this evaluator does not know")

    def allows(self, request: Request) -> bool:
        """Whether the request may be made."""
        effects = {found["Effect"] for found in self.document["Statement"] if _applies(found, request)}
        return "Allow" in effects and "Deny" not in effects


def _applies(statement: dict[str, Any], request: Request) -> bool:
    return (
        _matches(_listed(statement["Action"]), request.permission)
        and _concerns(statement, request.resource)
        and all(
            _holds(operator, key, value, request.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, value in keys.items()
        )
    )


def _concerns(statement: dict[str, Any], resource: str) -> bool:
    if "NotResource" in statement:
        return not _matches(_listed(statement["NotResource"]), resource)
    return _matches(_listed(statement["Resource"]), resource)


def _holds(operator: str, key: str, value: str, context: dict[str, str]) -> bool:
    if operator == "Null":
        return (key not in context) == (value == "true")
    return context.get(key) == value


def _matches(patterns: Iterable[str], value: str) -> bool:
    return any(fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in patterns)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
