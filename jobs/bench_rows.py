"""One measured point, and the folder where points are kept so that no run measures one twice.

A point is kept under everything that decides its bytes; metrics are added to it as they are asked for. Knows
no codec and no metric.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

OURS = "s2vc"
# Raise it when a metric or a conversion changes its numbers, or a pinned tool behind one is replaced.
_CACHE_VERSION = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One codec at one setting on one clip.

    ``point`` is our q or the anchor's CRF or QP; ``means`` and ``worsts`` map metric names to scores over the
    clip.
    """

    clip: str
    codec: str
    point: int
    width: int
    height: int
    frames: int
    bytes: int
    payload_bytes: int
    bpp: float
    kbps: float
    encode_fps: float
    decode_fps: float
    means: Mapping[str, float]
    worsts: Mapping[str, float]

    @property
    def payload_bpp(self) -> float:
        """The rate without container overhead."""
        return self.bpp * self.payload_bytes / self.bytes


@dataclass(frozen=True, slots=True)
class RowCache:
    """Rows on disk by a hash of what decides them; ``folder`` None keeps nothing."""

    folder: Path | None

    def get(self, identity: Mapping[str, object]) -> Row | None:
        """The row kept under ``identity`` (JSON values), with every metric ever measured for it."""
        path = kept_at(self.folder, identity)
        if path is None or not path.is_file():
            return None
        return Row(**json.loads(path.read_bytes()))

    def put(self, identity: Mapping[str, object], row: Row) -> None:
        """Keep ``row`` in place of what was kept."""
        path = kept_at(self.folder, identity)
        if path is not None:
            keep(path, json.dumps(asdict(row)))


def kept_at(folder: Path | None, identity: Mapping[str, object]) -> Path | None:
    """The file below ``folder`` for what ``identity`` (JSON values) decides; None without a folder."""
    if folder is None:
        return None
    text = json.dumps({"cache": _CACHE_VERSION, **identity}, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def keep(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
