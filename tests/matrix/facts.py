"""What FFmpeg says of a file, read without the product: the yardstick of the cases."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av


def shown(path: Path) -> list[Fraction]:
    """The times in seconds at which a plain decode of the file's video shows frames."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]
