"""Secrets out of text that is to be shown or kept: error messages and URIs quote what they were given.

A net under the rule that nobody logs credentials in the first place. Knows the forms that leak in practice:
user and password in a URL, the parameters of a presigned URL, ``name=value`` of a secret's name, an
Authorization header and AWS key ids.
"""

from __future__ import annotations

import re

_HIDDEN = "***"
_MOST = 2000
_NAMES = (
    r"(?:x-amz-(?:signature|credential|security-token)|(?:aws_?)?secret_?access_?key|(?:aws_?)?session_?token|"
    r"aws_?access_?key_?id|(?:\w+[-_])?(?:secret|password|passwd|token|signature|api[-_]?key)|sig)"
)
_PATTERNS = (
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE), rf"\1{_HIDDEN}@"),
    (re.compile(r"\b((?:bearer|basic)\s+)[\w+/=.~-]{8,}", re.IGNORECASE), rf"\1{_HIDDEN}"),
    (re.compile(rf"\b({_NAMES}[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)]+", re.IGNORECASE), rf"\1{_HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), _HIDDEN),
)


def redacted(text: str) -> str:
    """``text`` without secrets, cut to 2000 characters.

    >>> redacted("https://me:pw@host/a?X-Amz-Signature=0af1&part=2")
    'https://***@host/a?X-Amz-Signature=***&part=2'
    """
    text = text[:_MOST]
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text
