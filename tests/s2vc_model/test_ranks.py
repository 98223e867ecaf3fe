"""Two ranks are one with twice the batch: same weights, one log, one end; and a rank left alone says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from s2vc_model.errors import TrainingError
from s2vc_model.train import rate
from s2vc_model.train.checkpoint import checkpoint_note, load_checkpoint
from s2vc_model.train.ranks import Ranks, join
from s2vc_model.weight_files import load_weights
from tests.s2vc_model import rank_runs
from tests.s2vc_model.networks import tiny_network

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks ran."""
    folder = tmp_path_factory.mktemp("ranks")
    rank_runs.write_inputs(folder)
    torch.multiprocessing.spawn(rank_runs.run_rank, (folder, rank_runs.free_ports(6)), nprocs=rank_runs.WORLD)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """What each rank saved."""
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(rank_runs.WORLD)]


def test_two_ranks_of_one_crop_are_one_rank_of_two(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_noisy", rate._noisy)
    rank_runs.without_noise()
    alone, start = rank_runs.three_steps(Ranks()), tiny_network().state_dict()
    together = results[0]["three steps"]
    moved = {name: float((alone[name] - start[name]).norm()) for name in alone}
    for name, distance in moved.items():
        assert float((together[name] - alone[name]).norm()) <= 0.01 * distance, name
    assert sum(distance > 0 for distance in moved.values()) > len(moved) / 2


@pytest.mark.parametrize("run", ["stages", "later", "sd"])
@pytest.mark.parametrize("kind", ["weights", "averaged"])
def test_ranks_stay_the_same(results: Results, run: str, kind: str) -> None:
    a, b = (r[run][kind] for r in results)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_each_rank_draws_its_own_crops_of_the_same_kind(results: Results) -> None:
    a, b = (r["stages"]["crops"] for r in results)
    assert [frames for frames, _ in a] == [frames for frames, _ in b]
    assert {frames for frames, _ in a} == {1, 2, 4}
    assert not {mark for _, mark in a} & {mark for _, mark in b}


def test_a_later_run_draws_what_the_longer_one_would_have(results: Results) -> None:
    for result in results:
        assert result["later"]["crops"][0] == result["stages"]["crops"][rank_runs.PAIRS.steps]


def test_the_log_speaks_for_all_ranks(results: Results) -> None:
    assert torch.equal(results[0]["gathered"], torch.tensor([[0, 5], [1, 5]]))
    varying = {"seconds", "ms", "mpx_s"}
    a, b = (
        [{k: v for k, v in line.items() if k not in varying} for line in r["stages"]["log"]] for r in results
    )
    assert a == b
    assert len(a) == rank_runs.PAIRS.steps + rank_runs.STREAM.steps


def test_the_first_ranks_clock_ends_all_at_one_step(results: Results) -> None:
    assert [r["stopped"] for r in results] == [rank_runs.STOP_AFTER] * rank_runs.WORLD


def test_every_stage_of_sd_takes_a_step(results: Results) -> None:
    for result in results:
        assert [line["stage"] for line in result["sd"]["log"]] == ["intra", "pairs", "streams"]
        assert not any(line["skipped"] for line in result["sd"]["log"])


def test_the_first_rank_writes_and_a_later_run_goes_on(folder: Path, results: Results) -> None:
    assert [(r["command"], r["later command"]) for r in results] == [(0, 0), (0, 0)]
    for name, steps in (("one", 2), ("two", 4)):
        assert len((folder / name / "log.jsonl").read_text().splitlines()) == 2
        note = checkpoint_note(folder / name / "checkpoint.safetensors")
        assert (note["ranks"], note["steps"]) == (2, steps)
    one, two = (load_checkpoint(folder / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert not torch.equal(one.intra.open.weight, two.intra.open.weight)
    weights = load_weights(folder / "weights")
    assert weights.notes["steps"] == 4
    torch.testing.assert_close(weights.network.intra.open.weight, two.intra.open.weight)


def test_a_rank_that_is_left_waiting_says_so(results: Results) -> None:
    assert "rank 0 of 2 lost the others" in results[0]["waiting"]


def test_a_rank_whose_other_died_ends_with_an_error(folder: Path, results: Results) -> None:
    code, said = results[0]["deserted"]
    assert code == 1
    assert "rank 0 of 2 lost the others" in said
    assert len((folder / "deserted" / "log.jsonl").read_text().splitlines()) == 1
    assert not (folder / "deserted" / "checkpoint.safetensors").exists()


def test_ranks_that_do_not_all_come_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="MASTER_ADDR"):
        join("cpu")


def test_one_process_alone_exchanges_nothing() -> None:
    ranks, device = join("cpu")
    value = torch.rand(3)
    before = torch.get_rng_state()
    ranks.seed(0, 1)
    ranks.average([value])
    ranks.spread(tiny_network())
    assert (ranks, device) == (Ranks(), torch.device("cpu"))
    assert ranks.gather(value) is value
    assert ranks.from_first(2.5) == 2.5
    assert torch.equal(torch.get_rng_state(), before)
