"""The float transforms and their building blocks: shapes, inverses, motion, and the inter path's start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2vc_model.layers import CrossAttention, pad_to, pixel_shuffle, pixel_unshuffle, resize_flow, warp
from s2vc_model.state import FeatureBuffer
from s2vc_model.transforms import HyperAnalysis, start_inter_from_intra
from tests.s2vc_model.networks import TINY, tiny_network

SIZES = [(32, 32), (32, 96), (64, 160)]


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def buffer_of(height: int, width: int) -> FeatureBuffer:
    c = TINY.feature
    return FeatureBuffer(
        torch.randn(2, c, height // 8, width // 8),
        torch.rand(2, 3, height, width) * 2 - 1,
        torch.randn(2, 2, height // 8, width // 8),
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_shapes_of_both_paths(height: int, width: int) -> None:
    network = tiny_network()
    x = torch.rand(2, 3, height, width) * 2 - 1
    y = network.intra.analysis(x)
    assert y.shape == (2, TINY.latent, height // 16, width // 16)
    z = network.intra.hyper(y)
    assert z.shape == (2, TINY.hyper, -(-height // 64), -(-width // 64))
    first = network.intra.synthesis(y)
    feature = network.inter.extract(first.feature)
    motion = torch.zeros(2, 2, height // 16, width // 16)
    y = network.inter.encode(x, first, feature, motion)
    assert y.shape == (2, TINY.latent, height // 16, width // 16)
    second, moved = network.inter.synthesis(y, first, feature)
    assert moved.shape == x.shape
    for buffer in (first, second):
        assert buffer.feature.shape == (2, TINY.feature, height // 8, width // 8)
        assert buffer.picture.shape == x.shape
        assert buffer.flow.shape == (2, 2, height // 8, width // 8)
    assert not first.flow.any()


def test_hyper_analysis_repeats_edges_to_whole_cells() -> None:
    hyper = HyperAnalysis(TINY)
    y = torch.randn(1, TINY.latent, 6, 10)
    assert torch.equal(hyper(y), hyper(pad_to(y, 4)))
    assert hyper(y).shape == (1, TINY.hyper, 2, 3)


def test_inter_path_uses_its_context_and_its_motion() -> None:
    network = tiny_network()
    buffer, other = buffer_of(64, 64), buffer_of(64, 64)
    x, motion = torch.rand(2, 3, 64, 64), torch.zeros(2, 2, 4, 4)
    feature = network.inter.extract(buffer.feature)
    y = network.inter.encode(x, buffer, feature, motion)
    assert not torch.allclose(y, network.inter.encode(x, other, network.inter.extract(other.feature), motion))
    assert not torch.allclose(y, network.inter.encode(x, buffer, feature, motion + 5))


def test_context_without_motion_leaves_the_picture_where_it_is() -> None:
    network, buffer = tiny_network(), buffer_of(32, 64)
    _, moved = network.inter.context(buffer.feature, buffer.picture, torch.zeros_like(buffer.flow))
    assert torch.allclose(moved, buffer.picture, atol=1e-5)


def test_lockstep_rows_do_not_mix() -> None:
    network = tiny_network()
    x = torch.rand(2, 3, 64, 32)
    assert torch.allclose(network.intra.analysis(x)[1:], network.intra.analysis(x[1:]), atol=1e-5)


def test_building_blocks_leave_their_input_alone() -> None:
    network = tiny_network()
    x = torch.randn(1, TINY.feature, 4, 4)
    for block in (network.inter.extract, network.inter.extract[0], CrossAttention(TINY.feature, 16)):
        before = x.clone()
        block(x, torch.randn(1, 3, 16)) if isinstance(block, CrossAttention) else block(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize("factor", [2, 8])
def test_pixel_shuffle_and_unshuffle_are_inverses(factor: int) -> None:
    x = torch.randn(2, 3, 16, 24)
    small = pixel_unshuffle(x, factor)
    assert small.shape == (2, 3 * factor**2, 16 // factor, 24 // factor)
    assert torch.equal(pixel_shuffle(small, factor), x)
    assert torch.equal(small[0, :3, 0, 0], x[0, :, 0, 0])
    assert torch.equal(small[0, 3:6, 0, 0], x[0, :, 0, 1])


def test_pad_to_repeats_the_far_edges() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad_to(x, 4)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert pad_to(x[..., :2], 2).shape == (1, 1, 2, 2)


def flow(dx: float, dy: float, height: int, width: int) -> Tensor:
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, height, width)


def test_warp_samples_at_displaced_positions() -> None:
    x = torch.randn(1, 2, 8, 12)
    assert torch.allclose(warp(x, flow(0, 0, 8, 12)), x, atol=1e-5)
    moved = warp(x, flow(3, -2, 8, 12))
    assert torch.allclose(moved[:, :, 2:, :9], x[:, :, :6, 3:], atol=1e-5)
    assert torch.allclose(moved[:, :, 2:, 9:], x[:, :, :6, -1:].expand(-1, -1, -1, 3), atol=1e-5)
    half = warp(x, flow(0.5, 0, 8, 12))
    assert torch.allclose(half[..., :-1], (x[..., :-1] + x[..., 1:]) / 2, atol=1e-5)
    assert warp(x.bfloat16(), flow(1, 0, 8, 12)).dtype == torch.bfloat16


def test_resize_flow_keeps_its_unit() -> None:
    big = resize_flow(flow(3, -1, 2, 4), 8)
    assert big.shape == (1, 2, 16, 32)
    assert torch.allclose(big, flow(3, -1, 16, 32))


def test_cross_attention_starts_as_the_identity() -> None:
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(CrossAttention(16, 8)(x, torch.randn(1, 5, 8)), x)


def test_inter_starts_from_intra() -> None:
    network = tiny_network()
    copied = start_inter_from_intra(network.inter, network.intra)
    assert copied == len(network.intra.state_dict())
    own, theirs = network.inter.state_dict(), network.intra.state_dict()
    assert all(torch.equal(own[key], value) for key, value in theirs.items())
    before = network.inter_prior.t_a.weight.clone()
    start_inter_from_intra(network.inter_prior, network.intra_prior)
    after, source = network.inter_prior.t_a.weight, network.intra_prior.t_a.weight
    assert torch.equal(after[:, : TINY.latent], source)
    assert torch.allclose(after[:, TINY.latent :], before[:, TINY.latent :] * 0.1)
