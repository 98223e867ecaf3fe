"""What the versions of a video's archive are called. Pure: names in, names out.

    film.mp4        film.mp4.s2vc, film.mp4.v2.s2vc, film.mp4.v3.s2vc …
    film.mp4.v2     film.mp4.v2.v1.s2vc, …

A source whose name ends like a version's has its first version spelled out, so no two names meet.
"""

from __future__ import annotations

import re

ARCHIVE_SUFFIX = ".s2vc"
FRAME_LIST_SUFFIX = ".framemd5"
_ENDS_LIKE_A_VERSION = re.compile(r"\.v[0-9]+\Z")


def archive_key(name: str, version: int = 1) -> str:
    """Key of a version (from 1) of the archive of the source ``name``."""
    plain = version == 1 and not _ENDS_LIKE_A_VERSION.search(name)
    return name + ("" if plain else f".v{version}") + ARCHIVE_SUFFIX


def frame_list_key(archive: str, version: int | None) -> str:
    """Key of the frame list that all versions of an archive share.

    ``version`` is the manifest's word; None in rows of times when there were none, and names were never spelled out.
    """
    name = archive.removesuffix(ARCHIVE_SUFFIX)
    if version is not None:
        name = name.removesuffix(f".v{version}")
    return name + FRAME_LIST_SUFFIX
