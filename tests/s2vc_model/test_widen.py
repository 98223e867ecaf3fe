"""A wider decoder starts with the pictures of the narrow one, costs more, and learns; configs of before still load."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s2vc_model.config import PRESETS, CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.cost import frame_cost
from s2vc_model.train.rate import inter_step, intra_step
from s2vc_model.train.widen import widen
from tests.s2vc_model.networks import TINY, tiny_network

WIDE = replace(TINY, preset="wide", decoder=(80, 40), decoder_blocks=(3, 3))


def pictures(network: S2vcNetwork) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    q = torch.tensor([5, 60])
    first, state, _ = intra_step(network, x[:, 0], q)
    later, *_ = inter_step(network, x[:, 1], q, state, torch.zeros(2, 2, 4, 4))
    return torch.stack((first, later))


def test_a_widened_network_decodes_the_same_and_learns_everywhere() -> None:
    network = tiny_network()
    wide = widen(network, WIDE)
    assert wide.config == WIDE
    torch.testing.assert_close(pictures(wide), pictures(network), rtol=1e-4, atol=1e-5)
    before = {k: v.clone() for k, v in wide.named_parameters()}
    adam = torch.optim.Adam(wide.parameters(), 1e-2)
    for _ in range(3):
        adam.zero_grad()
        pictures(wide).square().mean().backward()
        adam.step()
    decoder = [(k, p) for k, p in wide.named_parameters() if k.startswith("generator.decoder.rest")]
    assert all(bool((p != before[k]).flatten(1).any(1).all()) for k, p in decoder if p.dim() == 4)


@pytest.mark.parametrize(
    "config",
    [replace(TINY, feature=24), replace(TINY, decoder=(32, 32)), replace(TINY, decoder_blocks=(1, 1))],
    ids=["another width", "narrower", "fewer blocks"],
)
def test_what_cannot_be_widened_is_refused(config: CodecConfig) -> None:
    with pytest.raises(WeightsError, match="only decoder"):
        widen(tiny_network(), config)


def test_configs_without_the_decoder_mean_what_they_meant() -> None:
    values = PRESETS["small"].to_dict()
    del values["decoder"], values["decoder_blocks"]
    assert CodecConfig.from_dict(values) == PRESETS["small"]
    wide = PRESETS["small-wide"]
    assert CodecConfig.from_dict(wide.to_dict()) == wide


def test_cost_counts_parameters_and_operations() -> None:
    narrow, wide = (frame_cost(config, 128, 64, inter=False) for config in (TINY, WIDE))
    assert narrow.parameters == sum(p.numel() for p in tiny_network().parameters())
    extra = sum(wide.gflop.values()) - sum(narrow.gflop.values())
    assert extra == pytest.approx(wide.gflop["pixel decoder"] - narrow.gflop["pixel decoder"])
    twice = frame_cost(TINY, 128, 128, inter=False)
    assert sum(twice.gflop.values()) == pytest.approx(2 * sum(narrow.gflop.values()), rel=0.05)
    later = frame_cost(TINY, 128, 64, inter=True)
    assert later.gflop["codec"] > narrow.gflop["codec"]
    assert "GFLOP" in str(later)
