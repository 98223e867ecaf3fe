"""Training parts: the rate it minimises is the rate that is paid, data is what it claims, steps stay finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2vc_model.codec import S2vcCodec
from s2vc_model.errors import TrainingError, WeightsError
from s2vc_model.motion import BLOCK
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.average import Average
from s2vc_model.train.checkpoint import load_checkpoint, save_checkpoint
from s2vc_model.train.data import Bank, BankConfig, Batch, with_motion
from s2vc_model.train.loop import RunConfig, Trainer
from s2vc_model.train.losses import Perceptual, motion_loss, rate_weights
from s2vc_model.train.profile import profile_stage
from s2vc_model.train.rate import inter_step, intra_step, laplace_bits, uncoded_step
from s2vc_model.train.recipe import LAMBDA_HIGH, LAMBDA_LOW, RECIPE, Stage, Weights
from s2vc_model.train.step import ChunkStep, Dials, Optimiser
from tests.media import make_clip, pictures
from tests.s2vc_model.networks import TINY, tiny_network, tiny_weights

CPU = torch.device("cpu")
SMALL_BANK = BankConfig(min_side=64)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "a.mp4", frames=12, size=(128, 96))
    make_clip(folder / "b.mp4", frames=4, size=(96, 80), seed=3)
    make_clip(folder / "small.mp4", frames=4, size=(48, 48))
    (folder / "broken.mp4").write_bytes(b"not a clip")
    return Bank(folder.iterdir(), CPU, SMALL_BANK)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 7.0, 60.0])
def test_laplace_bits_are_the_bins_own(scale: float) -> None:
    distance = torch.linspace(0, min(12 * scale + 1, 400), 60, dtype=torch.float64)
    bits = laplace_bits(distance, torch.tensor(scale, dtype=torch.float64))

    def cdf(x: float) -> float:
        return 0.5 * math.exp(x / scale) if x < 0 else 1 - 0.5 * math.exp(-x / scale)

    for d, got in zip(distance.tolist(), bits.tolist(), strict=True):
        mass = cdf(0.5 - d) - cdf(-0.5 - d)
        assert got == pytest.approx(-math.log2(mass), abs=1e-4)


def test_laplace_bits_keep_their_gradient_far_out() -> None:
    distance = torch.tensor([0.0, 0.5, 100.0, 1e4], requires_grad=True)
    scale = torch.tensor([0.05, 0.05, 0.1, 0.05], requires_grad=True)
    bits = laplace_bits(distance, scale)
    bits.sum().backward()
    assert distance.grad is not None
    assert scale.grad is not None
    assert bool(torch.isfinite(bits).all())
    assert bool(torch.isfinite(distance.grad).all() and torch.isfinite(scale.grad).all())
    assert float(distance.grad[3]) > 0


@pytest.mark.parametrize("q", [0, 32, 63])
def test_estimated_bits_are_the_bits_of_the_stream(q: int) -> None:
    clip = pictures(2, 128, 128)
    (gop,) = S2vcCodec(tiny_weights(), CPU).encode_gops([clip], q)
    network = tiny_network()
    torch.manual_seed(0)
    x = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
    quality = torch.tensor([q])
    batch = with_motion(x[None])
    with torch.no_grad():
        _, state, first = intra_step(network, x[:1], quality)
        _, _, second, _ = inter_step(network, x[1:], quality, state, batch.motion[:, 1])
    assert float(first) == pytest.approx(8 * len(gop.intra), rel=0.15, abs=80)
    assert float(second) == pytest.approx(8 * len(gop.inter), rel=0.15, abs=80)


def test_every_parameter_learns() -> None:
    network = tiny_network()
    torch.manual_seed(0)
    x = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    batch = with_motion(x)
    q = torch.tensor([3, 60])
    a, state, first = intra_step(network, x[:, 0], q)
    b, _, second, moved = inter_step(network, x[:, 1], q, state, batch.motion[:, 1])
    loss = (
        (a - x[:, 0]).abs().mean()
        + (b - x[:, 1]).abs().mean()
        + 1e-3 * (first + second).mean()
        + moved.mean()
    )
    loss.backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    allowed = ("inter_prior.t_", "generator.unet.", "generator.semantic.", "inter.picture", "intra.picture")
    assert all(name.startswith(allowed) for name in idle), idle
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)


def test_bank_keeps_what_it_can_and_says_what_it_cannot(bank: Bank) -> None:
    assert len(bank) == 2
    assert sorted(reason.split(":")[0] for reason in bank.skipped) == ["broken.mp4", "small.mp4"]
    with pytest.raises(TrainingError, match="no usable training file"):
        Bank([], CPU)


def test_a_bank_says_what_its_clips_are_too_short_or_small_for(bank: Bank) -> None:
    bank.draw(2, 12, 64)
    with pytest.raises(TrainingError, match="13 frames of 64 x 64"):
        bank.draw(2, 13, 64)
    with pytest.raises(TrainingError, match="1 frames of 128 x 128"):
        bank.draw(2, 1, 128)


@pytest.mark.parametrize(("frames", "size"), [(1, 64), (3, 64), (2, 64)])
def test_draws_have_their_shape_and_range(bank: Bank, frames: int, size: int) -> None:
    torch.manual_seed(1)
    batch = bank.draw(6, frames, size)
    assert batch.frames.shape == (6, frames, 3, size, size)
    assert batch.motion.shape == (6, frames, 2, size // BLOCK, size // BLOCK)
    assert batch.trust.shape == (6, frames, 1, size // BLOCK, size // BLOCK)
    assert float(batch.frames.abs().max()) <= 1
    assert float(batch.frames.std()) > 0.05
    assert not batch.motion[:, 0].any()
    if frames > 1:
        assert 0.05 <= float(batch.trust[:, 1:].min()) <= float(batch.trust.max()) <= 1


def test_draws_are_real_crops(tmp_path: Path) -> None:
    """A still, unmirrored source gives back its own pixels."""
    still = np.broadcast_to(np.full((96, 96, 3), (200, 90, 30), np.uint8), (6, 96, 96, 3))
    make_clip(tmp_path / "still.mkv", codec="ffv1", pix_fmt="bgr0", size=(96, 96), rgb=still)
    torch.manual_seed(0)
    batch = Bank([tmp_path / "still.mkv"], CPU, SMALL_BANK).draw(8, 2, 64)
    colour = torch.tensor([200, 90, 30]) / 127.5 - 1
    ungained = (batch.frames - colour.view(3, 1, 1)).abs().amax((1, 2, 3, 4)) < 0.01
    assert int(ungained.sum()) >= 3
    assert not batch.motion.any()


def test_motion_loss_trusts_what_it_is_told_to() -> None:
    flow, motion = torch.full((1, 2, 8, 8), 3.0), torch.full((1, 2, 4, 4), 1.0)
    assert float(motion_loss(flow, motion, torch.ones(1, 1, 4, 4))) == pytest.approx(2.0)
    assert float(motion_loss(flow, motion, torch.zeros(1, 1, 4, 4))) == 0


def test_rate_weights_fall_from_the_lowest_to_the_highest_quality() -> None:
    weights = rate_weights(CPU)
    assert weights.shape == (64,)
    assert float(weights[0]) == pytest.approx(LAMBDA_LOW, rel=1e-4)
    assert float(weights[63]) == pytest.approx(LAMBDA_HIGH, rel=1e-4)
    assert bool((weights[1:] < weights[:-1]).all())


def test_optimiser_skips_gradients_that_are_not_finite() -> None:
    network = tiny_network()
    opt = Optimiser(network, Dials(CPU, 1e-2))
    weight = network.intra.open.weight
    before, kept = [p.detach().clone() for p in opt.params], weight.detach().clone()
    opt.step((weight * float("inf")).sum())
    assert float(opt.skipped) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, opt.params, strict=True))
    opt.zero()
    opt.step(weight.square().sum())
    assert float(opt.skipped) == 1
    assert not torch.equal(weight, kept)


def test_average_follows_the_network() -> None:
    network = tiny_network()
    average = Average(network)
    name = "intra.open.weight"
    start = average.state()[name].clone()
    with torch.no_grad():
        network.intra.open.weight += 1
    for _ in range(400):
        average.update()
    assert torch.allclose(average.state()[name], start + 1, atol=1e-3)
    with torch.no_grad():
        network.intra.open.weight += 1
    average.restart()
    assert torch.equal(average.state()[name], network.intra.open.weight)


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    network = tiny_network()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TINY, network.state_dict(), {"seed": 1})
    loaded = load_checkpoint(path)
    assert loaded.config == TINY
    assert all(p.requires_grad for p in loaded.parameters())
    for name, value in network.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4), name


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(WeightsError):
        load_checkpoint(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError):
        load_checkpoint(path)
    tensors = tiny_network().state_dict()
    save_checkpoint(path, TINY, {k: v for k, v in tensors.items() if k != "intra.open.weight"}, {})
    with pytest.raises(WeightsError, match=r"intra\.open\.weight"):
        load_checkpoint(path)
    save_checkpoint(path, TINY, {**tensors, "intra.open.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(WeightsError):
        load_checkpoint(path)


def test_recipe_trains_streams_of_whole_blocks() -> None:
    assert list(RECIPE)[:2] == ["autoencoder", "intra"]
    for name, stage in RECIPE.items():
        assert stage.name == name
        assert stage.size % 64 == 0
        assert stage.frames * stage.chunks >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 72},
        {"coded": False, "frames": 2},
        {"coded": False, "chunks": 2},
        {"perceptual_crop": 65},
        {"perceptual_share": 0},
        {"perceptual_every": 0},
    ],
    ids=str,
)
def test_stages_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"multiple of 64|one frame|perceptual"):
        Stage("x", 1, **{"frames": 1, "chunks": 1, "size": 64, "batch": 1} | wrong)


def test_the_autoencoder_skips_the_priors_and_keeps_latents_within_them() -> None:
    network = tiny_network()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    calls = []
    for prior in network.priors().values():
        prior.f_a.register_forward_hook(lambda *_: calls.append(1))
    picture, _, bits, outside = uncoded_step(network, x)
    assert picture.shape == x.shape
    assert not bits.any()
    assert float(outside.detach()) == 0
    with torch.no_grad():
        network.intra.analysis.out.weight *= 100
    outside = uncoded_step(network, x)[3]
    latent = network.intra.analysis(x)
    assert outside.item() == pytest.approx((latent.abs() - 127 / 16).clamp_min(0).mean().item())
    assert outside.item() > 1
    outside.backward()
    assert network.intra.analysis.out.weight.grad is not None
    assert not calls
    intra_step(network, x, torch.tensor([1, 2]))
    assert calls


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    return Perceptual(CPU)


def test_perceptual_loss_is_zero_on_itself_and_rises_with_noise(perceptual: Perceptual) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    noise = torch.randn_like(x)
    near, far = (perceptual((x + s * noise).requires_grad_(), x) for s in (0.05, 0.5))
    assert float(perceptual(x, x).abs().max()) < 1e-5
    assert bool((far > near).all())
    assert not any(p.requires_grad for p in perceptual.parameters())


def chunk_step(network: S2vcNetwork, perceptual: Perceptual, **fields: Any) -> ChunkStep:
    stage = Stage("x", 1, **{"frames": 2, "chunks": 1, "size": 64, "batch": 3} | fields)
    torch.manual_seed(0)
    step = ChunkStep(stage, Weights(), network, Optimiser(network, Dials(CPU, 0.0)), perceptual)
    step.load(with_motion(torch.rand(3, 2, 3, 64, 64) * 2 - 1), 0)
    return step


def test_lpips_sees_the_crop_it_was_told_of(perceptual: Perceptual) -> None:
    step = chunk_step(tiny_network(), perceptual, perceptual_crop=16, perceptual_share=1.0)
    ramp = torch.arange(64.0)
    frames = torch.zeros(3, 2, 3, 64, 64)
    frames[:, :, 0], frames[:, :, 1] = ramp[:, None], ramp[None]
    frames[:, :, 2] = torch.arange(6.0).view(3, 2, 1, 1)
    places = set()
    for _ in range(150):
        step.load(Batch(frames, step.motion, step.trust), 0)
        seen = step._seen_of(frames)
        assert seen.shape == (3, 3, 16, 16)
        top, left = int(seen[0, 0, 0, 0]), int(seen[0, 1, 0, 0])
        assert torch.equal(seen[:, 0], (top + torch.arange(16.0))[:, None].expand(3, 16, 16))
        assert torch.equal(seen[:, 1], (left + torch.arange(16.0)).expand(3, 16, 16))
        assert sorted(int(v) // 2 for v in seen[:, 2, 0, 0]) == [0, 1, 2]
        places.add((top, left))
    assert places == {(top, left) for top in range(0, 64, 16) for left in range(0, 64, 16)}


def test_lpips_of_crops_is_near_that_of_the_whole_in_the_mean(perceptual: Perceptual) -> None:
    clip = torch.from_numpy(pictures(3, 128, 128)).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.manual_seed(0)
    noisy = clip + 0.15 * torch.randn_like(clip)
    whole = float(perceptual(noisy, clip).mean())
    tiles = [(..., slice(y, y + 64), slice(x, x + 64)) for y in (0, 64) for x in (0, 64)]
    means = [float(perceptual(noisy[tile], clip[tile]).mean()) for tile in tiles]
    assert 0.75 * whole < float(np.mean(means)) < 1.1 * whole


def test_rarer_lpips_weighs_more(perceptual: Perceptual) -> None:
    """In the mean over steps its gradient is the same."""
    network, losses = tiny_network(), {}
    for every in (1, 4):
        step = chunk_step(network, perceptual, perceptual_every=every)
        with torch.no_grad():
            frames, bits, *_ = step.forward(True)
            for on in (False, True):
                losses[every, on] = float(step._loss(frames, bits, True, on)[0])
    often, rarely = (losses[every, True] - losses[every, False] for every in (1, 4))
    assert often > 0.1
    assert rarely == pytest.approx(4 * often, rel=1e-3)


def test_rare_lpips_is_taken_that_rarely_and_the_last_is_logged(
    bank: Bank, perceptual: Perceptual, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    real = ChunkStep.__call__

    def spy(self: ChunkStep, first: bool, perceptual: bool) -> dict[str, torch.Tensor]:
        asked.append(perceptual)
        return real(self, first, False) | ({"lpips": torch.full((2,), 0.5)} if perceptual else {})

    monkeypatch.setattr(ChunkStep, "__call__", spy)
    lines: list[dict[str, Any]] = []
    stage = Stage("x", 60, frames=1, chunks=1, size=64, batch=1, perceptual_every=3, perceptual_after=10)
    Trainer(tiny_network(), bank, RunConfig(600, log_every=1), lines.append).run([stage])
    assert not any(asked[:10])
    assert 8 <= sum(asked) <= 27
    first = asked.index(True)
    assert [line["lpips"] for line in lines] == [0.0] * first + [0.5] * (60 - first)


@pytest.mark.parametrize(("frames", "chunks"), [(1, 1), (2, 2)])
def test_a_profile_accounts_for_a_step(
    bank: Bank, perceptual: Perceptual, frames: int, chunks: int
) -> None:
    stage = Stage("x", 1, frames=frames, chunks=chunks, size=64, batch=2)
    found = profile_stage(stage, tiny_network(), bank, perceptual, repeats=3)
    assert set(found.crops) == {64, 32}
    # Differences of times: on a busy machine they may be nothing, and which is longer is the benchmark's to say.
    assert all(seconds >= 0 for seconds in (*found.crops.values(), *found.parts.values()))
    assert {"LPIPS", "optimiser", "generator, forward"} <= set(found.parts)
    assert found.pixels == 2 * frames * 64 * 64
    assert "Mpixel/s" in str(found)
    assert str(found).count("%") == len(found.parts)


def test_streams_carry_state_and_one_process_keeps_its_numbers(tmp_path: Path) -> None:
    """The figures are those of the trainer before it knew of ranks."""
    make_clip(tmp_path / "a.mkv", frames=8, size=(160, 128), codec="ffv1", pix_fmt="bgr0")
    bank = Bank([tmp_path / "a.mkv"], CPU, SMALL_BANK)
    stage = Stage("pairs", 3, frames=2, chunks=2, size=64, batch=2, warmup=1, copy_intra=True)
    lines: list[dict[str, Any]] = []
    network = tiny_network()
    trainer = Trainer(network, bank, RunConfig(600, log_every=1), lines.append)
    averaged = trainer.run([stage])
    assert trainer.step == 3
    assert [line["l1"] for line in lines] == pytest.approx([0.5168, 0.4406, 0.4870], rel=5e-3)
    assert [line["bpp_last"] for line in lines] == pytest.approx([0.1269, 0.1218, 0.0787], rel=5e-3)
    assert [line["norm"] for line in lines] == pytest.approx([4.486, 3.736, 2.895], rel=5e-3)
    assert set(averaged) == {k for k, v in network.state_dict().items() if v.is_floating_point()}
