"""``GopLog``: what is known of each GOP of one archive, on disk, since a film of ten hours has 30,000 of them.

Knows nothing of archives, the manifest or executors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from s2vc_ray.staging import StagedGop, gop_fields, gop_of
from s2vc_ray.storage_local import local_errors

_IN_MEMORY = 1 << 20


@dataclass(frozen=True, slots=True)
class GopTotals:
    """Sums over GOPs. ``pixels`` are true pixels of all coded frames; the others as in `StagedGop`."""

    gops: int = 0
    frames_expected: int = 0
    frames: int = 0
    frames_corrupt: int = 0
    pixels: int = 0
    payload_bytes: int = 0
    targets_missed: int = 0

    def plus(self, gop: StagedGop) -> GopTotals:
        """With ``gop``."""
        return GopTotals(
            self.gops + 1,
            self.frames_expected + gop.frames_expected,
            self.frames + gop.frames,
            self.frames_corrupt + gop.frames_corrupt,
            self.pixels + gop.frames * gop.width * gop.height,
            self.payload_bytes + gop.payload_bytes,
            self.targets_missed + (gop.target_met is False),
        )


class GopLog:
    """GOPs in the order in which they were added, and their sums.

    Beyond 1 MiB they lie in a temporary file, which is gone when this is closed or forgotten.
    """

    def __init__(self) -> None:
        # Closed by whoever is done with it, or with the last reference: it has no name.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._end = 0
        self.totals = GopTotals()

    def add(self, gop: StagedGop) -> None:
        """Append ``gop``.

        Raises:
            StorageError: there is no room.
        """
        with local_errors("write what is known of GOPs in the scratch folder (TMPDIR)"):
            self._file.seek(self._end)
            self._end += self._file.write(json.dumps(gop_fields(gop)).encode() + b"\n")
        self.totals = self.totals.plus(gop)

    def __len__(self) -> int:
        return self.totals.gops

    def __iter__(self) -> Iterator[StagedGop]:
        at = 0
        while at < self._end:
            self._file.seek(at)
            line = self._file.readline()
            at += len(line)
            yield gop_of(json.loads(line))
