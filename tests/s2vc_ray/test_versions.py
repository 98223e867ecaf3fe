"""Names of archive versions: each tells its source and version, and no two meet."""

from __future__ import annotations

import itertools

import pytest

from s2vc_ray.versions import archive_key, frame_list_key

NAMES = (
    "film.mp4",
    "film.mp4.v2",
    "film.mp4.v2.v1",
    "film.v2.mp4",
    "film",
    ".v2",
    "a.v3/film",
    "v2",
    "film.mp4.v2\n",
)


@pytest.mark.parametrize(
    ("name", "version", "key"),
    [
        ("film.mp4", 1, "film.mp4.s2vc"),
        ("film.mp4", 2, "film.mp4.v2.s2vc"),
        ("a/film.v2.mp4", 1, "a/film.v2.mp4.s2vc"),
        ("film.mp4.v2", 1, "film.mp4.v2.v1.s2vc"),
        ("film.mp4.v2", 3, "film.mp4.v2.v3.s2vc"),
    ],
)
def test_names(name: str, version: int, key: str) -> None:
    assert archive_key(name, version) == key


def test_no_two_sources_share_a_name() -> None:
    keys = [archive_key(name, version) for name, version in itertools.product(NAMES, (1, 2, 3, 22))]
    assert len(set(keys)) == len(keys)


def test_versions_share_the_frame_list() -> None:
    for name, version in itertools.product(NAMES, (1, 2, 10)):
        assert frame_list_key(archive_key(name, version), version) == f"{name}.framemd5"
    assert frame_list_key("film.mp4.v2.s2vc", None) == "film.mp4.v2.framemd5"
