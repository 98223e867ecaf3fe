"""Patterns of source names: ``*`` and ``?`` stay within one folder, ``**`` does not; capitals matter.

Names are those that the manifest has: relative, with slashes. Knows no policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from s2vc_ray.errors import ConfigError

_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def check_pattern(key: str, pattern: str) -> None:
    """Refuse what no name can match.

    Args:
        key: where it stands, for the message.

    Raises:
        ConfigError: it is empty, absolute, a URI, or has backslashes.
    """
    if not pattern or pattern.startswith("/") or "://" in pattern or "\\" in pattern or "\0" in pattern:
        raise ConfigError(
            f"{key} {pattern!r}: give patterns of names as the manifest has them (source_name), with slashes "
            "and relative, such as masters/** or **/*_raw.mov"
        )


def matching(patterns: Iterable[str], name: str) -> str | None:
    """The first pattern that a name matches."""
    return next((one for one in patterns if re.fullmatch(expression(one), name, re.DOTALL)), None)


def covers(earlier: str, later: str) -> bool:
    """Whether it is plain that ``earlier`` matches all that ``later`` does: they are one, or ``earlier`` is a
    beginning of ``later`` and then ``**``."""
    start = earlier.removesuffix("**")
    return earlier == later or (start != earlier and later.startswith(start))


def expression(pattern: str) -> str:
    """A regular expression, as Python and RE2 read it, of whole names; a dot in it is any character."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "".join(_WILD.get(token) or re.escape(token) for token in tokens)
