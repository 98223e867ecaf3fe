"""The whole archives and sources that cases are made of, laid out for the workers."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.archives import archive_bytes
from tests.fuzz.sources import make_sources
from tests.golden.record import SETS


def lay_out(folder: Path) -> tuple[Path, Path]:
    """Folders of archives and of sources, made in ``folder``.

    The archives are a set of golden ones, and one with lost GOPs and a codec that nobody knows.
    """
    archives, sources = folder / "archives", folder / "sources"
    archives.mkdir()
    for path in max(SETS.iterdir()).glob("*.s2vc"):
        shutil.copyfile(path, archives / path.name)
    (archives / "gaps.s2vc").write_bytes(archive_bytes(passthrough=()))
    make_sources(sources)
    return archives, sources
