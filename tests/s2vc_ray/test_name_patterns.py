"""Which names a pattern matches, and when it is plain that another has them all."""

from __future__ import annotations

import re
from itertools import product

import duckdb
import pytest

from s2vc_ray.errors import ConfigError
from s2vc_ray.name_patterns import check_pattern, covers, expression, matching

NAMES = (
    "a.mp4",
    "a/b.mp4",
    "a/b/c.mp4",
    "ab.mp4",
    "a b/'x'.mov",
    "é(1)+[2].mov",
    "a/#-~&.mkv",
    "b/a/x.mov",
    "two\nlines.mov",
)
PATTERNS = (
    "**",
    "*",
    "a/**",
    "a/b/**",
    "a*",
    "a/*",
    "a?*.mp4",
    "**/*.mov",
    "a b/'*'.mov",
    "é(1)+[2].mov",
    "a/#-~&.*",
    "**/a/**",
    "**/a/?.mov",
    "two?lines.*",
)


def test_the_first_that_matches() -> None:
    assert matching(["b/**", "a/*", "a/**"], "a/b.mp4") == "a/*"
    assert matching(["b/**", "a/*"], "a/b/c.mp4") is None
    assert matching([], "a") is None


def test_duckdb_reads_the_expressions_alike() -> None:
    """The audit asks DuckDB, which has another engine."""
    for pattern, name in product(PATTERNS, NAMES):
        (answer,) = duckdb.execute(
            "SELECT regexp_full_match($1, $2, 's')", [name, expression(pattern)]
        ).fetchone() or (None,)
        assert answer == (matching([pattern], name) is not None), (pattern, name)


def test_what_covers_another_matches_all_of_it() -> None:
    found = [pair for pair in product(PATTERNS, PATTERNS) if covers(*pair)]
    for earlier, later in found:
        for name in NAMES:
            assert matching([later], name) is None or matching([earlier], name), (earlier, later, name)
    proper = {pair for pair in found if pair[0] != pair[1]}
    assert proper == {("**", later) for later in PATTERNS if later != "**"} | {
        ("a/**", later) for later in PATTERNS if re.match("a/", later) and later != "a/**"
    } | {("**/a/**", "**/a/?.mov")}
    assert not covers("a/*/**", "a/b/**")
    assert not covers("a/**/z", "a/z")


@pytest.mark.parametrize("pattern", ["", "/a/**", "s3://bucket/a/**", "a\\b", "a\0b"])
def test_what_no_name_can_match(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"^sources .*relative"):
        check_pattern("sources", pattern)
