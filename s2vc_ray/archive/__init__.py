"""The ``.s2vc`` container: one self-describing file per video. ``docs/format.md`` is its specification.

Knows bytes and time stamps only: no codec, no storage backend, no media library.
"""

from s2vc_ray.archive.format import ArchiveIndex, GopRecord, IndexEntry
from s2vc_ray.archive.header import ArchiveHeader
from s2vc_ray.archive.reader import ArchiveReader
from s2vc_ray.archive.writer import write_archive

__all__ = [
    "ArchiveHeader",
    "ArchiveIndex",
    "ArchiveReader",
    "GopRecord",
    "IndexEntry",
    "write_archive",
]
