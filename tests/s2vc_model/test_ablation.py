"""What an ablated part would have said never reaches a picture or a symbol, before training and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from s2vc_model.config import PRESETS
from s2vc_model.errors import TrainingError
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.ablation import PARTS, ablate
from s2vc_model.train.data import Bank, BankConfig
from s2vc_model.train.loop import RunConfig, Trainer
from s2vc_model.train.rate import inter_step, intra_step
from s2vc_model.train.recipe import Stage
from s2vc_model.weight_files import load_weights, save_weights
from tests.media import make_clip
from tests.s2vc_model.networks import tiny_network

CPU = torch.device("cpu")
VOICES = {
    "csg": lambda n: n.generator.semantic.steps[4],
    "tcg": lambda n: n.generator.unet.guide[1],
    "unet": lambda n: n.generator.unet.leave,
    "temporal-prior": lambda n: n.intra_prior.t_b,
}


@torch.no_grad()
def heard(network: S2vcNetwork, part: str) -> bool:
    """Whether a change of what enters the part's last layer changes the second frame's picture or bits."""
    torch.manual_seed(3)
    x, q = torch.rand(1, 2, 3, 64, 64) * 2 - 1, torch.tensor([50])

    def second() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(4)
        _, state, _ = intra_step(network, x[:, 0], q)
        picture, _, bits, _ = inter_step(network, x[:, 1], q, state, torch.zeros(1, 2, 4, 4))
        return picture, bits

    before = second()
    hook = VOICES[part](network).register_forward_pre_hook(lambda _m, inputs: inputs[0] + 5)
    after = second()
    hook.remove()
    return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def loud_network() -> S2vcNetwork:
    """One whose cross-attention, which starts as the identity, has a say."""
    network = tiny_network()
    for level in ("cross1", "cross2", "cross3"):
        torch.nn.init.normal_(getattr(network.generator.unet, level).out.weight, 0, 0.1)
    return network


@pytest.mark.parametrize("part", PARTS)
def test_an_ablated_part_is_not_heard_and_all_others_are(part: str) -> None:
    network = loud_network()
    assert all(heard(network, other) for other in PARTS)
    ablate(network, [part])
    silent = {"unet", "csg", "tcg"} if part == "unet" else {part}
    # Tokens and features of the frame before are read by the U-Net alone.
    assert {other for other in PARTS if not heard(network, other)} == silent


def test_training_and_export_leave_it_silent(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=4, size=(96, 80))
    bank = Bank([tmp_path / "a.mp4"], CPU, BankConfig(min_side=64))
    network = loud_network()
    ablate(network, PARTS)
    fields: dict[str, Any] = {
        "frames": 2,
        "chunks": 2,
        "size": 64,
        "batch": 1,
        "perceptual_after": 9,
        "warmup": 1,
    }
    pairs = Stage("pairs", 3, lr=1e-2, copy_intra=True, **fields)
    finish = Stage("finish", 3, lr=1e-2, generator_only=True, **fields)
    network.load_state_dict(
        Trainer(network, bank, RunConfig(600), lambda _: None).run([finish, pairs]), strict=False
    )
    assert not any(heard(network, part) for part in PARTS)
    save_weights(tmp_path / "w", network, {})
    exported = load_weights(tmp_path / "w").network
    exported.thaw()
    assert not any(heard(exported, part) for part in PARTS)


def test_a_shut_mask_shows_the_fresh_picture_only() -> None:
    network = tiny_network()
    ablate(network, ["tcg"])
    x0, moved = torch.randn(1, 16, 8, 8), torch.full((1, 3, 64, 64), 100.0)
    decoder = network.generator.decoder
    assert torch.allclose(decoder(x0, moved), decoder(x0, None), atol=1e-4)


def test_unknown_parts_and_generators_are_refused() -> None:
    with pytest.raises(TrainingError, match="csg, tcg, unet, temporal-prior"):
        ablate(tiny_network(), ["sdg"])
    with pytest.raises(TrainingError, match="sd-tiny"):
        ablate(S2vcNetwork(PRESETS["sd-tiny"]), ["csg"])
