"""Every way of computing reads every stream; one wrong integer is seen in every one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console

from jobs.bench_exact import SIZES, ExactOptions, print_exact, run_exact, ways
from s2vc_model.weight_files import LoadedWeights
from s2vc_ray.errors import ConfigError
from tests.s2vc_model.networks import tiny_weights

GOPS = ExactOptions(gops=9)
"""Of each size one of 1, 2 and 3 frames."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def load(model: str) -> LoadedWeights:
    return tiny_weights()


def test_every_way_decodes_and_is_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_exact(GOPS, Console(), as_json=True, load=load)
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert len(outcomes) == len(ways()) >= 36
    assert all(o["decoded"] == 9 and o["wrong"] == 0 for o in outcomes)
    assert all(o["encoded"] == 3 and o["unread"] == 0 for o in outcomes)


def test_a_wrong_integer_is_seen_in_every_way() -> None:
    """Only the plain decoder, which is loaded first, keeps the right weights."""
    loaded: list[int] = []

    def differ(model: str) -> LoadedWeights:
        weights = tiny_weights()
        if loaded:
            weights.network.intra_prior.layers()["f_out"].b_int += 999
        loaded.append(1)
        return weights

    outcomes = list(run_exact(ExactOptions(gops=3), differ))
    right = {o.way for o in outcomes if not o.wrong and not o.unread}
    assert right == {w for w in ways() if w.lockstep and not w.half and w.device == "cpu"}
    assert all(o.wrong == o.decoded and o.unread == o.encoded for o in outcomes if o.way not in right)


def test_the_ways_are_all_there_are() -> None:
    found = ways()
    assert len(set(found)) == len(found)
    for name, values in {"batch": {1, 2, 3}, "mkldnn": {True, False}, "half": {True, False}}.items():
        for lockstep in (True, False):
            assert {getattr(w, name) for w in found if w.lockstep is lockstep} == values
    assert {w.threads for w in found} == {1, 2}


def test_too_few_gops_are_refused() -> None:
    with pytest.raises(ConfigError):
        ExactOptions(gops=len(SIZES) - 1)
