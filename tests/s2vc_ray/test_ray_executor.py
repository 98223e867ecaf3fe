"""Placement, and one real Ray job whose actors are killed under it."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray import cloudpickle

import tests.fakes
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.ray_executor import Placement, place
from tests import media
from tests.fakes import load_fake


@pytest.mark.parametrize(
    ("options", "gpus", "cpus", "placement"),
    [
        ({}, 0, 2, Placement(1, 0, 2)),
        ({}, 0, 1, Placement(1, 0, 1)),
        ({}, 0, 16, Placement(8, 0, 2)),
        ({"threads": 4}, 0, 6, Placement(1, 0, 4)),
        ({"threads": 4}, 0, 2, Placement(1, 0, 2)),
        ({"workers": 5}, 0, 2, Placement(5, 0, 1)),
        ({"workers": 2}, 0, 8, Placement(2, 0, 2)),
        ({}, 4, 16, Placement(4, 1, 4)),
        ({}, 1, 64, Placement(1, 1, 8)),
        ({"device": "cpu"}, 4, 16, Placement(8, 0, 2)),
        ({"device": "cuda", "workers": 3}, 0, 4, Placement(3, 1, 4)),
    ],
)
def test_placement(options: dict[str, int], gpus: int, cpus: int, placement: Placement) -> None:
    assert place(JobConfig(**options), gpus=gpus, cpus=cpus) == placement  # type: ignore[arg-type]


def test_cuda_without_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        place(JobConfig(device="cuda"), gpus=0, cpus=4)


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
        workers=2,
        batch=2,
        attempts=2,
        metrics=MetricPolicy.parse("none"),
    )
    report = compress([str(tmp_path / "in")], str(tmp_path / "out"), config, load_codec=load_fake)
    assert not ray.is_initialized()
    assert marker.exists()
    assert {video.name: video.status for video in report.videos} == {
        "dies-once.mp4": "ok",
        "fine.mp4": "ok",
        "poison.mp4": "failed",
    }
    rows = read_manifest(str(tmp_path / "out")).to_pylist()
    (failed,) = (row for row in rows if row["status"] == "failed")
    assert (failed["error_class"], failed["gop_index"]) == ("WorkerDied", 1)
    assert sum(row["frames_encoded"] for row in rows if row["status"] == "ok") == 13 + 24
