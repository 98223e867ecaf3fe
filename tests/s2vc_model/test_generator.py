"""The small generator: the one-step formula, semantic tokens, temporal guidance, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from s2vc_model.generator import (
    SemanticHead,
    SmallGenerator,
    align,
    one_step_alphas,
)
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from tests.s2vc_model.networks import TINY

SIZES = [(32, 32), (64, 96), (96, 160)]


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture
def generator() -> SmallGenerator:
    return SmallGenerator(TINY).eval()


def buffer_of(height: int, width: int, batch: int = 2) -> FeatureBuffer:
    shape = (height // 8, width // 8)
    return FeatureBuffer(
        torch.randn(batch, TINY.feature, *shape),
        torch.zeros(batch, 3, height, width),
        torch.randn(batch, 2, *shape),
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_first_and_later_frames(generator: SmallGenerator, height: int, width: int) -> None:
    first, kept = generator(buffer_of(height, width), None)
    assert first.shape == (2, 3, height, width)
    assert torch.equal(kept.picture, first)
    assert [f.shape[1] for f in kept.features] == list(TINY.unet)
    assert [f.shape[-1] for f in kept.features] == [width // 8, width // 16, width // 32]
    second, again = generator(buffer_of(height, width), kept)
    assert second.shape == first.shape
    assert [f.shape for f in again.features] == [f.shape for f in kept.features]


def test_alphas_are_the_schedulers() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    for step in (0, 249, 999):
        alpha, sigma = one_step_alphas(step)
        assert alpha**2 + sigma**2 == pytest.approx(1)
        assert alpha**2 == pytest.approx(float(scheduler.alphas_cumprod[step]))


def test_one_step_follows_the_formula(generator: SmallGenerator) -> None:
    """x0 = (x_T - sigma * epsilon) / alpha is what the pixel decoder gets."""
    given: list[torch.Tensor] = []
    epsilons: list[torch.Tensor] = []
    generator.decoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    generator.unet.register_forward_hook(lambda _, __, out: epsilons.append(out[0]))
    buffer = buffer_of(64, 64)
    generator(buffer, None)
    noisy = generator.head(generator.refine(buffer.feature))
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    expected = scheduler.step(epsilons[0], TINY.timestep, noisy).pred_original_sample
    assert torch.allclose(given[0], expected, atol=1e-4)


def test_tokens_come_from_the_feature_and_reach_the_picture(generator: SmallGenerator) -> None:
    head = SemanticHead(TINY.feature, TINY.tokens)
    assert head(torch.randn(2, TINY.feature, 12, 20)).shape == (2, 2 * 3, TINY.tokens)
    for cross in (generator.unet.cross1, generator.unet.cross2, generator.unet.cross3):
        nn.init.normal_(cross.out.weight, 0, 0.3)
    buffer = buffer_of(64, 64)
    plain, _ = generator(buffer, None)
    generator.semantic.register_forward_hook(lambda _, __, out: out.roll(1, -1))
    assert not torch.allclose(plain, generator(buffer, None)[0], atol=1e-5)


def test_previous_frame_guides_the_next(generator: SmallGenerator) -> None:
    one, other = (generator(buffer_of(64, 64), None)[1] for _ in range(2))
    buffer = buffer_of(64, 64)
    guided = [generator(buffer, before)[0] for before in (None, one, other)]
    assert not torch.allclose(guided[0], guided[1], atol=1e-5)
    assert not torch.allclose(guided[1], guided[2], atol=1e-5)


def test_generator_keeps_no_state(generator: SmallGenerator) -> None:
    buffer, noise = buffer_of(64, 64), buffer_of(64, 64)
    first, kept = generator(buffer, None)
    generator(noise, generator(noise, None)[1])
    assert torch.equal(generator(buffer, None)[0], first)
    assert torch.equal(kept.picture, first)


def test_lockstep_rows_do_not_mix(generator: SmallGenerator) -> None:
    buffer = buffer_of(64, 64)
    whole, kept = generator(buffer, None)
    both, _ = generator(buffer, kept)
    part = FeatureBuffer(buffer.feature[1:], buffer.picture[1:], buffer.flow[1:])
    before = DiffusionBuffer(tuple(f[1:] for f in kept.features), kept.picture[1:])
    assert torch.allclose(generator(part, None)[0], whole[1:], atol=1e-4)
    assert torch.allclose(generator(part, before)[0], both[1:], atol=1e-4)


def test_align_moves_every_scale_by_the_same_pixels() -> None:
    picture = torch.randn(1, 3, 64, 128)
    features = tuple(torch.randn(1, 4, 8 // s, 16 // s) for s in (1, 2, 4))
    rest = torch.zeros(1, 2, 8, 16)
    same, moved = align(DiffusionBuffer(features, picture), rest)
    assert torch.allclose(moved, picture, atol=1e-4)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(same, features, strict=True))
    shift = rest.clone()
    shift[:, 0] = 32.0
    there, moved = align(DiffusionBuffer(features, picture), shift)
    assert torch.allclose(moved[..., :-32], picture[..., 32:], atol=1e-3)
    for after, before, cells in zip(there, features, (4, 2, 1), strict=True):
        assert torch.allclose(after[..., :-cells], before[..., cells:], atol=1e-4)


def test_loading_and_coding_with_small_imports_no_diffusers() -> None:
    """195 MB of every worker, and half of its start."""
    code = (
        "import sys, numpy as np; from s2vc_model.codec import load_model; codec = load_model('small', 'cpu');"
        "codec.decode_gops(codec.encode_gops([np.zeros((1, 32, 32, 3), np.uint8)], 30));"
        "print([name for name in ('diffusers', 'transformers', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
