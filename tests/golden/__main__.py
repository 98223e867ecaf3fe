"""``python -m tests.golden``: make the golden archives of the shipped weights, and record what is in them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.targets import Floor
from tests.golden.clips import CLIPS
from tests.golden.record import RECORD, SETS, describe


def main() -> None:
    """Compress every clip with the packaged model into the folder that is named after its weights."""
    made: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (draw, q, gop, floor) in CLIPS.items():
            folder = Path(scratch, name)
            folder.mkdir()
            config = JobConfig(
                quality=q,
                gop=gop,
                target=Floor.parse(floor) if floor else None,
                metrics=MetricPolicy.parse("full" if floor else "none"),
                executor="local",
                allow_larger=True,
                device="cpu",
            )
            source = draw(folder)
            report = compress([str(source)], str(folder / "out"), config)
            (archive,) = (folder / "out").glob("*.s2vc")
            print(f"{name}: {archive.stat().st_size} bytes, {report.totals}")
            made[name] = archive.read_bytes()
    (weights,) = {ArchiveReader(data).header.weights_sha256 for data in made.values()}
    target = SETS / weights[:12]
    if target.exists():
        raise SystemExit(
            f"{target} is there: golden archives are kept, not made again; delete it if it was never released"
        )
    target.mkdir()
    for name, data in made.items():
        (target / f"{name}.s2vc").write_bytes(data)
    found = {name: describe(data) for name, data in made.items()}
    (target / RECORD).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
