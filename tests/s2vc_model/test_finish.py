"""The generator alone: it is given what a decoder gives it, only it changes, and no stream does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2vc_model.codec import S2vcCodec
from s2vc_model.motion import block_motion, luma
from s2vc_model.state import GopState
from s2vc_model.train.average import QUICK, STEADY, Average
from s2vc_model.train.data import Bank, BankConfig
from s2vc_model.train.finish import finish_step, learning_alone
from s2vc_model.train.loop import RunConfig, Trainer, qualities
from s2vc_model.train.recipe import RECIPE, Stage, Weights
from s2vc_model.train.step import ChunkStep, Dials, Optimiser
from s2vc_model.weight_files import load_weights, save_weights
from tests.media import make_clip, pictures
from tests.s2vc_model.networks import tiny_network, tiny_weights

CPU = torch.device("cpu")
FINISH: dict[str, Any] = {
    "frames": 2,
    "chunks": 2,
    "size": 64,
    "batch": 2,
    "warmup": 1,
    "generator_only": True,
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4", frames=6, size=(128, 96))
    return Bank(folder.iterdir(), CPU, BankConfig(min_side=64))


def test_the_generator_learns_from_what_a_decoder_shows() -> None:
    clip = pictures(4, 64, 96)
    codec = S2vcCodec(tiny_weights(), CPU)
    shown = codec.decode_gops(codec.encode_gops([clip], 40))[0]
    network = tiny_network().eval()
    q, state = torch.tensor([40]), None
    frames = (torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1).split(1)
    with learning_alone(network, RECIPE["finish"]):
        for t, x in enumerate(frames):
            motion = block_motion(luma(x), luma(frames[t - 1]))
            picture, state = finish_step(network, x, q, state, motion)
            learning = {n for n, p in network.named_parameters() if p.requires_grad}
            assert learning == {n for n, _ in network.named_parameters() if n.startswith("generator.")}
            seen = ((picture.detach().clamp(-1, 1) + 1) * 127.5).round()[0].permute(1, 2, 0).numpy()
            assert np.abs(seen - shown[t]).max() <= 1
            assert (seen != shown[t]).mean() < 0.01
    assert isinstance(state, GopState)
    assert all(p.requires_grad for p in network.parameters())


def test_only_the_generator_changes_and_no_stream_does(bank: Bank, tmp_path: Path) -> None:
    before = tiny_network()
    save_weights(tmp_path / "before", before, {})
    network = load_weights(tmp_path / "before").network
    network.thaw()
    lines: list[dict[str, Any]] = []
    stage = Stage("finish", 12, lr=3e-3, perceptual_after=99, enlarged=0.5, **FINISH)
    averaged = Trainer(network, bank, RunConfig(600, log_every=1), lines.append).run([stage])
    assert {line["bpp_last"] for line in lines} == {0}
    changed = {k for k, v in averaged.items() if not torch.equal(v, load_masters(tmp_path / "before")[k])}
    assert changed
    assert all(name.startswith("generator.") for name in changed)
    assert {name.split(".")[1] for name in changed} >= {"unet", "decoder", "head", "refine"}
    network.load_state_dict(averaged, strict=False)
    save_weights(tmp_path / "after", network, {})
    clip = pictures(3, 64, 64)
    codecs = [S2vcCodec(load_weights(tmp_path / name), CPU) for name in ("before", "after")]
    gops = [codec.encode_gops([clip], 50)[0] for codec in codecs]
    assert gops[0].to_payload() == gops[1].to_payload()
    shown = [codec.decode_gops(gops[:1])[0].astype(int) for codec in codecs]
    errors = [np.abs(s - clip).mean() for s in shown]
    assert errors[1] < 0.95 * errors[0]


def load_masters(folder: Path) -> dict[str, torch.Tensor]:
    network = load_weights(folder).network
    network.thaw()
    return network.state_dict()


def test_after_other_stages_it_goes_on_from_their_average(bank: Bank) -> None:
    network = tiny_network()
    first = Stage("pairs", 2, frames=2, chunks=1, size=64, batch=2, warmup=1, perceptual_after=9)
    trainer = Trainer(network, bank, RunConfig(600), lambda _: None)
    averaged = {k: v.clone() for k, v in trainer.run([first]).items()}
    live = network.intra.open.weight.detach().clone()
    assert not torch.equal(averaged["intra.open.weight"], live)
    after = trainer.run([Stage("finish", 1, perceptual_after=9, **FINISH)])
    assert trainer.average.warm_up == STEADY
    assert torch.equal(after["intra.open.weight"], averaged["intra.open.weight"])


@pytest.mark.parametrize(("warm_up", "left"), [(QUICK, 0.29), (STEADY, 0.024)])
def test_a_steady_average_forgets_the_noise_of_a_short_run(warm_up: int, left: float) -> None:
    network = tiny_network()
    average, weight = Average(network), network.intra.open.weight
    average.restart(warm_up)
    for step in range(60):
        with torch.no_grad():
            weight.fill_((-1) ** step)
        average.update()
    assert float(average.state()["intra.open.weight"].abs().max()) == pytest.approx(left, rel=0.1)


def test_enlarged_draws_are_smooth_and_small_sources_are_not_reduced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = np.broadcast_to(rng.integers(0, 256, (448, 448, 3), np.uint8), (2, 448, 448, 3))
    for name, side in (("large", 448), ("small", 128)):
        rgb = noise[:, :side, :side]
        make_clip(tmp_path / f"{name}.mkv", codec="ffv1", pix_fmt="bgr0", size=(side, side), rgb=rgb)
    spread = {}
    for name in ("large", "small"):
        bank = Bank([tmp_path / f"{name}.mkv"], CPU, BankConfig(min_side=64))
        torch.manual_seed(0)
        x = bank.draw(8, 2, 64, enlarged=True).frames
        assert x.shape == (8, 2, 3, 64, 64)
        assert float(x.abs().max()) <= 1
        steps = (x[..., 1:] - x[..., :-1]).abs().mean()
        spread[name] = float(x.std())
        assert float(steps) < 0.85 * spread[name]
    assert spread["large"] < 0.7 * spread["small"]


@pytest.mark.parametrize(("crop", "sides"), [(0, (64, 42)), (32, (32, 21))])
def test_lpips_sees_enlarged_frames_at_the_size_they_had(
    bank: Bank, crop: int, sides: tuple[int, int]
) -> None:
    seen: list[torch.Size] = []

    def distance(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert decoded.shape == target.shape
        seen.append(decoded.shape)
        return (decoded - target).square().mean((1, 2, 3))

    network = tiny_network()
    fields = FINISH | {"perceptual_share": 1.0, "perceptual_crop": crop}
    stage = Stage("x", 1, **fields)
    with learning_alone(network, stage):
        opt = Optimiser(network, Dials(CPU, 1e-3))
        step = ChunkStep(stage, Weights(), network, opt, distance)  # type: ignore[arg-type]
        for enlarged in (False, True):
            step.load(bank.draw(2, 2, 64, enlarged=enlarged), 0)
            step(True, True)
    assert seen == [(2, 3, side, side) for side in sides]


def test_high_qualities_are_drawn_more_often() -> None:
    torch.manual_seed(0)
    even = qualities(RECIPE["streams"], 20000, CPU)
    weighted = qualities(RECIPE["finish"], 20000, CPU)
    low = RECIPE["finish"].rare_below
    assert set(even.tolist()) == set(weighted.tolist()) == set(range(64))
    assert float((even < low).float().mean()) == pytest.approx(low / 64, abs=0.02)
    assert float((weighted < low).float().mean()) == pytest.approx(0.25 * low / 64, abs=0.02)


@pytest.mark.parametrize("wrong", [{"coded": False}, {"intra_share": 0.2}, {"semantic": 0.1}], ids=str)
def test_what_needs_the_codec_to_learn_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="generator_only"):
        Stage("x", 1, **FINISH | {"frames": 1, "chunks": 1} | wrong)


def test_losses_are_of_the_sharpened_pictures_that_people_see(bank: Bank) -> None:
    """Else a model that sharpens would be trained to be sharp before that, and shown sharper than its sources."""
    told: dict[float, float] = {}
    for amount in (0.0, 0.6):
        network, lines = tiny_network(), list[dict[str, Any]]()
        network.config = replace(network.config, sharpen=amount)
        torch.manual_seed(0)
        stage = Stage("finish", 1, perceptual_after=99, **FINISH)
        Trainer(network, bank, RunConfig(600, log_every=1), lines.append).run([stage])
        told[amount] = lines[0]["l1"]
    # Pictures of random weights are noise, and sharpened noise is farther from anything.
    assert told[0.6] > 1.1 * told[0.0]
