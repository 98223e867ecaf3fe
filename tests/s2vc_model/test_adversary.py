"""The adversary tells real pairs of frames from others, and the generator learns from it what it is weighed for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from s2vc_model.train.adversary import Adversary
from s2vc_model.train.companions import Companions
from s2vc_model.train.data import Bank, BankConfig
from s2vc_model.train.loop import RunConfig, Trainer
from s2vc_model.train.ranks import Ranks
from s2vc_model.train.recipe import Stage
from tests.media import make_clip, pictures
from tests.s2vc_model.networks import TINY, tiny_network

CPU = torch.device("cpu")


def judge() -> Adversary:
    torch.manual_seed(0)
    return Adversary(CPU, widths=(8, 8, 8))


def real_and(flicker: float, blur: bool) -> tuple[torch.Tensor, torch.Tensor]:
    real = torch.from_numpy(pictures(4, 64, 64)).permute(0, 3, 1, 2).float() / 127.5 - 1
    fake = torch.nn.functional.avg_pool2d(real, 5, 1, 2) if blur else real
    fake = fake + flicker * torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1, 1)
    return real[None], fake[None]


@pytest.mark.parametrize(("flicker", "blur"), [(0.0, True), (0.1, False)])
def test_it_learns_what_decoded_frames_look_like(flicker: float, blur: bool) -> None:
    adversary = judge()
    real, fake = real_and(flicker, blur)
    losses = [float(adversary.learn(fake, real, Ranks())) for _ in range(120)]
    assert losses[0] == pytest.approx(2, abs=0.2)
    assert losses[-1] < 1.5
    assert float(adversary.deceived(real).detach()) < float(adversary.deceived(fake).detach())


def test_what_the_generator_asks_teaches_the_adversary_nothing() -> None:
    adversary = judge()
    real, fake = real_and(0.0, True)
    fake = fake.requires_grad_()
    adversary.deceived(fake).backward()
    assert fake.grad is not None
    assert fake.grad.any()
    twin = judge()
    twin.deceived(fake.detach())
    adversary.learn(fake, real, Ranks())
    twin.learn(fake, real, Ranks())
    assert all(torch.equal(p, q) for p, q in zip(adversary.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(adversary.scales[0].weight, judge().scales[0].weight)


def test_a_stage_weighs_it_and_logs_it(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=4, size=(96, 80))
    bank = Bank(tmp_path.iterdir(), CPU, BankConfig(min_side=64))
    fields: dict[str, Any] = {
        "frames": 2,
        "chunks": 2,
        "size": 64,
        "batch": 1,
        "perceptual_after": 9,
        "warmup": 1,
    }

    def run(weight: float) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], Companions]:
        lines: list[dict[str, Any]] = []
        stages = [Stage("finish", 3, generator_only=True, adversarial=weight, **fields)]
        torch.manual_seed(0)
        companions = Companions.for_stages(stages, TINY, CPU)
        config = RunConfig(600, log_every=1)
        averaged = Trainer(tiny_network(), bank, config, lines.append, companions=companions).run(stages)
        return averaged, lines, companions

    (without, plain, none), (with_it, judged, companions) = run(0.0), run(0.5)
    assert none.adversary is None
    assert not any("adversary" in line for line in plain)
    assert all(0 < line["adversary"] < 4 for line in judged)
    name = "generator.decoder.out.weight"
    assert not torch.equal(without[name], with_it[name])
    assert any(key.startswith("adversary.scales") for key in companions.learned())


def test_single_frames_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="adversar"):
        Stage("x", 1, frames=1, chunks=1, size=64, batch=1, adversarial=0.1)
