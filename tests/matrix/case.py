"""A media case, and one run of the product over its source: the real job functions, with the codec of `tests.fakes`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import DecompressReport, decompress
from s2vc_ray.manifest import read_manifest
from s2vc_ray.results import VideoResult
from tests.fakes import load_fake

GOP = 8


class NotInstalled(Exception):
    """The source of a case comes from a package that is not there."""


@dataclass(frozen=True)
class Case:
    """One kind of source.

    Attributes:
        name: what it is, in a few words; unique.
        survives: what must survive of it, or how it must be refused, in one line.
        make: (an empty folder) -> the source, made there or found in a package.
        check: (the source, its run) -> the result in a few words; asserts what must hold. Equal in every run.
    """

    name: str
    survives: str
    make: Callable[[Path], Path]
    check: Callable[[Path, Run], str]


class Run:
    """What becomes of one source. Everything is made when it is first asked for.

    Args:
        source: a file.
        folder: where to write.
        options: of the `JobConfig`.
    """

    def __init__(self, source: Path, folder: Path, **options: Any) -> None:
        self.source, self.folder, self._options = source, folder, options
        self._outputs: dict[str, tuple[Path, DecompressReport]] = {}

    @cached_property
    def result(self) -> VideoResult:
        """The job's own word on the source; its archive and rows are written by then."""
        config = JobConfig(
            **{
                "model": "fake",
                "executor": "local",
                "allow_larger": True,
                "gop": GOP,
                "metrics": MetricPolicy.parse("none"),
                **self._options,
            }
        )
        (video,) = compress([str(self.source)], str(self.folder / "dst"), config, load_codec=load_fake).videos
        return video

    @property
    def archive(self) -> Path:
        """The archive; fails when the source was refused."""
        assert self.result.archive, f"{self.result.error_class}: {self.result.error}"
        return self.folder / "dst" / self.result.archive

    @cached_property
    def reader(self) -> ArchiveReader:
        """The archive, read."""
        return ArchiveReader(self.archive.read_bytes())

    @cached_property
    def pts(self) -> list[int]:
        """The archived frames' times in `reader.header.time_base`."""
        return [pts for record in self.reader.gops() for pts in record.pts]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The manifest's rows of the source."""
        assert self.result
        rows: list[dict[str, Any]] = read_manifest(str(self.folder / "dst")).to_pylist()
        return rows

    def refused(self, error_class: str = "SourceError") -> str:
        """The reason for which the source was refused; fails when it was not, or when the manifest does not say so."""
        assert (self.result.status, self.result.error_class) == ("failed", error_class), self.result
        (row,) = self.rows
        assert (row["status"], row["error_class"], row["error"]) == ("failed", error_class, self.result.error)
        assert not list((self.folder / "dst").rglob("*.s2vc"))
        return self.result.error or ""

    def output(self, suffix: str = ".mkv") -> Path:
        """The archive, decompressed to a container: ``.mkv``, ``.mp4`` or ``.y4m``."""
        return self._decompressed(suffix)[0]

    def report(self, suffix: str = ".mkv") -> DecompressReport:
        """What the decompressing of `output` reported."""
        return self._decompressed(suffix)[1]

    def _decompressed(self, suffix: str) -> tuple[Path, DecompressReport]:
        if suffix not in self._outputs:
            out = self.folder / f"back{suffix}"
            self._outputs[suffix] = (
                out,
                decompress(str(self.archive), str(out), model="fake", load_codec=load_fake),
            )
        return self._outputs[suffix]


def run_case(case: Case, source: Path, folder: Path) -> str:
    """Check ``case`` on its ``source``, writing to ``folder``; returns the result in a few words.

    Raises:
        AssertionError: something did not survive.
    """
    before = source.read_bytes()
    result = case.check(source, Run(source, folder))
    assert source.read_bytes() == before, "the source was touched"
    assert str(source.parent) not in result
    return result
