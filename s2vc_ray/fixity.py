"""Checksums: SHA-256 of whole files for provenance, CRC-32C of records for damage."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from s2vc_ray.range_stream import RangeStream

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Fixity:
    """Size in bytes and SHA-256 (64 lower-case hex digits) of one byte stream."""

    size: int
    sha256: str


def fixity(source: BinaryIO | str | os.PathLike[str]) -> Fixity:
    """Size and SHA-256 of a file at a path, or of a stream from its current position to its end.

    Raises:
        OSError: the path cannot be opened or read.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as stream:
            return fixity(stream)
    digest = hashlib.sha256()
    size = 0
    for chunk in _chunks(source):
        digest.update(chunk)
        size += len(chunk)
    return Fixity(size, digest.hexdigest())


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """The rest of ``source``, which is then at its end."""
    raw = getattr(source, "raw", source)
    if isinstance(raw, RangeStream):
        yield from raw.chunks(source.tell())
        source.seek(0, os.SEEK_END)
    else:
        yield from iter(lambda: source.read(_CHUNK), b"")


def sha256_hex(source: BinaryIO | str | os.PathLike[str] | bytes) -> str:
    """SHA-256 of a path's file, a stream's rest or a byte string, as 64 lower-case hex digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    return fixity(source).sha256


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4) of ``data``, continuing from ``crc`` (0 to start)."""
    # google-crc32c only takes read-only bytes; bytes(b) of a bytes object does not copy.
    return int(google_crc32c.extend(crc, bytes(data)))
