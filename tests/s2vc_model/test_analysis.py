"""The analysis of first pictures alone: decoders stay as they are, and it learns what is really coded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2vc_model.codec import S2vcCodec
from s2vc_model.train.data import Bank, BankConfig
from s2vc_model.train.finish import analysis_step, learning_alone
from s2vc_model.train.loop import RunConfig, Trainer
from s2vc_model.train.losses import Perceptual
from s2vc_model.train.recipe import RECIPE, Stage, Weights
from s2vc_model.train.step import ChunkStep, Dials, Optimiser
from s2vc_model.weight_files import load_weights, save_weights
from tests.media import make_clip, pictures
from tests.s2vc_model.networks import tiny_network, tiny_weights

CPU = torch.device("cpu")
ANALYSIS: dict[str, Any] = {
    "frames": 1,
    "chunks": 1,
    "size": 64,
    "batch": 2,
    "warmup": 1,
    "analysis_only": True,
}
LEARNING = ("intra.analysis.", "intra.hyper.")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4", frames=6, size=(128, 96))
    return Bank(folder.iterdir(), CPU, BankConfig(min_side=64))


def test_it_learns_from_what_a_decoder_shows_and_what_that_costs() -> None:
    clip = pictures(1, 64, 96)
    codec = S2vcCodec(tiny_weights(), CPU)
    coded = codec.encode_gops([clip], 40)[0]
    shown = codec.decode_gops([coded])[0][0]
    network = tiny_network().eval()
    x = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
    with learning_alone(network, RECIPE["analysis"]):
        picture, _, bits = analysis_step(network, x, torch.tensor([40]))
        (picture.mean() + bits.mean()).backward()  # type: ignore[no-untyped-call]
        reached = {n for n, p in network.named_parameters() if p.grad is not None}
        assert reached
        assert all(name.startswith(LEARNING) for name in reached)
    seen = ((picture.detach().clamp(-1, 1) + 1) * 127.5).round()[0].permute(1, 2, 0).numpy()
    # Means are in sixteenths of a step in the stream; here and there that rounds a latent another way.
    assert np.abs(seen - shown).mean() < 0.1 * shown.std()
    assert all(p.requires_grad for p in network.parameters())
    # Those bits are of latents that are not rounded yet: near what is written, not equal to it.
    assert float(bits.detach()) == pytest.approx(8 * len(coded.intra), rel=0.25)


def test_only_the_analysis_changes_and_old_streams_stay_readable(bank: Bank, tmp_path: Path) -> None:
    save_weights(tmp_path / "before", tiny_network(), {})
    network = load_weights(tmp_path / "before").network
    network.thaw()
    masters = {k: v.clone() for k, v in network.state_dict().items()}
    stage = Stage("analysis", 12, lr=3e-3, perceptual_after=99, enlarged=0.5, **ANALYSIS)
    averaged = Trainer(network, bank, RunConfig(600), lambda _: None).run([stage])
    changed = {k for k, v in averaged.items() if not torch.equal(v, masters[k])}
    assert changed
    assert all(name.startswith(LEARNING) for name in changed)
    network.load_state_dict(averaged, strict=False)
    save_weights(tmp_path / "after", network, {})
    before, after = (S2vcCodec(load_weights(tmp_path / name), CPU) for name in ("before", "after"))
    clip = pictures(3, 64, 64)
    old, new = before.encode_gops([clip], 50)[0], after.encode_gops([clip], 50)[0]
    assert old.to_payload() != new.to_payload()
    assert np.array_equal(before.decode_gops([old])[0], after.decode_gops([old])[0])
    assert np.array_equal(before.decode_gops([new])[0], after.decode_gops([new])[0])


def test_its_loss_falls(bank: Bank) -> None:
    network, lines = tiny_network(), list[dict[str, Any]]()
    stage = Stage("analysis", 60, lr=1e-2, perceptual_after=99, **ANALYSIS)
    Trainer(network, bank, RunConfig(600, log_every=1), lines.append).run([stage])
    first, last = (sum(line["l1"] for line in part) for part in (lines[:10], lines[-10:]))
    assert last < 0.95 * first


@pytest.mark.parametrize(
    "wrong", [{"generator_only": True}, {"frames": 2}, {"chunks": 2}, {"coded": False}], ids=str
)
def test_what_it_cannot_learn_by_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="analysis_only"):
        Stage("x", 1, **ANALYSIS | wrong)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_a_share_of_l1_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="l1_low"):
        Stage("x", 1, **ANALYSIS | {"l1_low": share})


def test_few_bits_can_be_asked_for_fewer_pixels(bank: Bank) -> None:
    """The weight of L1 falls towards quality 0, and LPIPS-alex of every picture counts as much as it is told to."""
    network = tiny_network()
    batch = bank.draw(2, 1, 64)
    far = Perceptual(CPU, "alex")

    def loss(q: int, **fields: float) -> float:
        stage = Stage("x", 1, **ANALYSIS | fields)
        with learning_alone(network, stage):
            step = ChunkStep(stage, Weights(), network, Optimiser(network, Dials(CPU, 0.0)), far)
            step.load(batch, 0)
            step.q.fill_(q)
            made = [torch.zeros_like(x) for x in step.x]
            return float(step._loss(made, [torch.zeros(2)], True, False)[0])

    assert loss(63, l1_low=0.25) == pytest.approx(loss(63))
    assert loss(0, l1_low=0.25) == pytest.approx(0.25 * loss(0))
    distance = float(far(torch.zeros_like(batch.frames[:, 0]), batch.frames[:, 0]).mean())
    assert loss(63, alex=2.0) == pytest.approx(loss(63) + 2 * distance, rel=1e-4)
