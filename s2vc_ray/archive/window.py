"""A file seen as bytes at offsets, with every request checked against the file's real size first."""

from __future__ import annotations

import os
from typing import BinaryIO

from s2vc_ray.errors import TruncatedArchive


class FileWindow:
    """Random access to a seekable stream, from its first byte on. ``size`` is measured, in bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)

    def read(self, offset: int, length: int, where: str) -> bytes:
        """Exactly ``length`` bytes at ``offset``.

        Raises:
            TruncatedArchive: they reach past the end; the message starts with ``where``.
        """
        if offset + length > self.size:
            raise TruncatedArchive(
                f"{where}: needs bytes {offset}..{offset + length} of an archive of {self.size} bytes"
            )
        data = self.read_up_to(offset, length)
        if len(data) != length:
            raise TruncatedArchive(f"{where}: the archive became shorter while it was read")
        return data

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes at ``offset``: fewer only at the end of the file."""
        self._stream.seek(offset)
        parts: list[bytes] = []
        missing = min(length, max(0, self.size - offset))
        # Unbuffered streams may give less than was asked for.
        while missing and (part := self._stream.read(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
