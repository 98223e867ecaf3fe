"""One whole job on this machine's own Ray, whose actors are killed by what they code."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray import cloudpickle

import tests.fakes
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from tests import media
from tests.fakes import load_fake


@pytest.mark.slow
def test_actors_may_die_and_poison_is_quarantined(tmp_path: Path) -> None:
    """A GOP of 5 frames kills its actor once, a GOP of 3 frames always; all else is finished."""
    cloudpickle.register_pickle_by_value(tests.fakes)
    (tmp_path / "in").mkdir()
    for name, frames in (("dies-once", 13), ("fine", 24), ("poison", 11)):
        media.make_clip(tmp_path / "in" / f"{name}.mp4", frames=frames)
    marker = tmp_path / "died"
    config = JobConfig(
        model=f"fake:die=5:{marker}+crash=3",
        gop=8,
        allow_larger=True,
        workers=2,
        batch=2,
        attempts=2,
        metrics=MetricPolicy.parse("none"),
    )
    report = compress([str(tmp_path / "in")], str(tmp_path / "out"), config, load_codec=load_fake)
    assert not ray.is_initialized()
    assert marker.exists()
    assert (report.totals.ok, report.totals.failed) == (2, 1)
    rows = read_manifest(str(tmp_path / "out")).to_pylist()
    (failed,) = (row for row in rows if row["status"] == "failed")
    assert (failed["error_class"], failed["gop_index"]) == ("WorkerDied", 1)
    assert sum(row["frames_encoded"] for row in rows if row["status"] == "ok") == 13 + 24
