"""Decoded pictures as PNG and JPEG files: one, or a numbered sequence. Whole or not at all.

Owns names, existing files and image encoding. It must not know archives or the codec.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2vc_ray.errors import ConfigError, ObjectExists, StorageError
from s2vc_ray.storage_local import local_errors

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SETTINGS: dict[str, dict[str, int]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
}
_NUMBER = re.compile(r"%(0?\d{0,2})d")


@dataclass(frozen=True, slots=True)
class StillPattern:
    """Where pictures go, by their frame numbers: ``shot.png``, ``shots/%06d.png``.

    Attributes:
        folder: it is made when it is not there.
        name: a file name ending in .png, .jpg or .jpeg, with at most one ``%d`` or ``%06d``.
    """

    folder: Path
    name: str

    @classmethod
    def parse(cls, out: str) -> StillPattern:
        """A file name or pattern.

        Raises:
            ConfigError: another suffix, or several numbers, or one that is not in the last part.
        """
        path = Path(out)
        if path.suffix.lower() not in _FORMATS:
            raise ConfigError(f"{out}: unknown picture format; use one of {', '.join(_FORMATS)}")
        if len(_NUMBER.findall(path.name)) != path.name.count("%") or path.name.count("%") > 1:
            raise ConfigError(f"{out}: write the frame number once, as %d or %06d")
        return cls(path.parent, path.name)

    @property
    def numbered(self) -> bool:
        """Whether every picture has a name of its own."""
        return "%" in self.name

    def path(self, number: int) -> Path:
        """The file of frame ``number``."""
        return self.folder / (self.name % number if self.numbered else self.name)

    @property
    def times(self) -> Path:
        """The file that holds the times of a sequence."""
        return self.folder / f"{_NUMBER.split(self.name)[0] if self.numbered else ''}timestamps.txt"

    def existing(self) -> Iterator[Path]:
        """The files there that are of this pattern."""
        prefix, _, suffix = _NUMBER.sub("\0", self.name).partition("\0")
        if not self.numbered:
            yield from [self.path(0)] if self.path(0).exists() else []
        elif self.folder.is_dir():
            shape = re.compile(re.escape(prefix) + r"\d+" + re.escape(suffix))
            yield from (path for path in self.folder.iterdir() if shape.fullmatch(path.name))
            yield from [self.times] if self.times.exists() else []


def write_still(path: Path, rgb: npt.NDArray[np.uint8]) -> None:
    """Write one picture, uint8 (H, W, 3), in the format that ``path``'s suffix names; replaces what is there.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    with local_errors(f"write {path}"):
        try:
            _save(temporary, rgb)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _save(path: Path, rgb: npt.NDArray[np.uint8]) -> None:
    from PIL import Image

    kind = _FORMATS[path.suffix.lower()]
    Image.fromarray(rgb).save(path, kind, **_SETTINGS[kind])


def refuse_existing(pattern: StillPattern) -> None:
    """Raises ObjectExists when a file of the pattern is there."""
    for path in pattern.existing():
        raise ObjectExists(f"{path} exists; remove it, choose another name or say --overwrite")


def write_sequence(
    pattern: StillPattern, frames: Iterable[tuple[int, Fraction, npt.NDArray[np.uint8]]], *, overwrite: bool
) -> int:
    """Write (number, seconds, uint8 RGB (H, W, 3)) as one file each, and beside them the times of all.

    The times are in ``pattern.times``, milliseconds, one a line, as Matroska tools read them ("timestamp format
    v2"): image files have none. Pictures appear under their names when the last one is written. With ``overwrite``,
    files of the same names are replaced; others stay.

    Returns:
        How many pictures were written.

    Raises:
        ObjectExists: files of the pattern are there and ``overwrite`` is false.
        StorageError: they cannot be written.
    """
    if not overwrite:
        refuse_existing(pattern)
    with _scratch(pattern.folder) as scratch:
        times = ["# timestamp format v2"]
        for number, seconds, rgb in frames:
            with local_errors(f"write into {pattern.folder}"):
                _save(scratch / pattern.path(number).name, rgb)
            times.append(f"{float(seconds * 1000):.6f}".rstrip("0").rstrip("."))
        if len(times) == 1:
            raise StorageError("no frames to write")
        with local_errors(f"write into {pattern.folder}"):
            (scratch / pattern.times.name).write_text("\n".join([*times, ""]), encoding="ascii")
            for path in sorted(scratch.iterdir()):
                path.replace(pattern.folder / path.name)
    return len(times) - 1


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder inside ``folder`` for what is not complete; both are gone again when nothing came of it."""
    made = not folder.exists()
    scratch = folder / f".s2vc-{uuid.uuid4().hex[:8]}.partial"
    with local_errors(f"create {folder}"):
        folder.mkdir(exist_ok=True)
        scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()
