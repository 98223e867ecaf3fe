"""Standard output as a muxer needs it: an error is raised once, then FFmpeg may end in peace."""

from __future__ import annotations

import sys


class Pipe:
    """Writes to standard output, which cannot be sought in. What follows an error is dropped.

    FFmpeg goes on writing when it closes a file, and a second error on that way would hide the first.
    """

    def __init__(self) -> None:
        self._out = sys.stdout.buffer
        self._failed = False

    def write(self, data: bytes) -> int:
        """Write all of ``data``; OSError the first time that it cannot be."""
        if not self._failed:
            try:
                self._out.write(data)
            except OSError:
                self._failed = True
                raise
        return len(data)

    def flush(self) -> None:
        """Hand over what is held back."""
        if not self._failed:
            self._out.flush()
