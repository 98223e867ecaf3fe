"""The whole archives, sources and payloads that cases are made of, laid out for the workers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from s2vc_ray.fallback import encode_av1
from tests.archives import archive_bytes
from tests.fuzz.sources import make_sources
from tests.golden.record import SETS
from tests.media import pictures


def lay_out(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of archives, of sources and of AV1 payloads, made in ``folder``.

    The archives are a set of golden ones, and one with lost GOPs and a codec that nobody knows.
    """
    archives, sources, payloads = folder / "archives", folder / "sources", folder / "payloads"
    archives.mkdir()
    payloads.mkdir()
    for path in max(SETS.iterdir()).glob("*.s2vc"):
        shutil.copyfile(path, archives / path.name)
    (archives / "gaps.s2vc").write_bytes(archive_bytes(passthrough=()))
    make_sources(sources)
    noise = np.random.default_rng(0).integers(0, 256, (6, 70, 90, 3), np.uint8)
    for name, frames, crf in (
        ("moving", pictures(12, 64, 48), 20),
        ("coarse", pictures(16, 176, 144), 50),
        ("odd", pictures(9, 53, 37), 5),
        ("noise", noise, 30),
        ("still", pictures(1, 33, 200), 10),
        ("long", pictures(40, 130, 66), 40),
    ):
        (payloads / f"{name}.av1").write_bytes(encode_av1(frames, crf).to_payload())
    return archives, sources, payloads
