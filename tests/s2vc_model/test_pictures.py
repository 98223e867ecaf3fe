"""Pictures outside of the networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from s2vc_model.codec import S2vcCodec
from s2vc_model.pictures import padded, resized, sharpened
from tests.media import pictures
from tests.s2vc_model.networks import tiny_weights


def test_padding_repeats_edges_up_to_the_grid() -> None:
    x = torch.rand(2, 3, 33, 64)
    out = padded(x)
    assert out.shape == (2, 3, 64, 64)
    assert torch.equal(out[:, :, :33], x)
    assert torch.equal(out[:, :, 33:], x[:, :, 32:].expand(-1, -1, 31, -1))


@pytest.mark.parametrize("value", [-1.0, 0.25])
def test_flat_pictures_stay_what_they_are(value: float) -> None:
    flat = torch.full((1, 3, 20, 30), value)
    assert torch.allclose(sharpened(flat, 0.7), flat, atol=1e-6)
    assert torch.allclose(resized(flat, 30, 45), flat[:, :, :1, :1].expand(1, 3, 30, 45), atol=1e-5)


def test_a_point_is_raised_by_what_a_blur_takes_away() -> None:
    x = torch.zeros(1, 3, 9, 9)
    x[:, 1, 4, 4] = 1.0
    out = sharpened(x, 0.5)
    assert out[0, 1, 4, 4] == pytest.approx(1 + 0.5 * (1 - 36 / 256))
    assert out[0, 1, 4, 3] == pytest.approx(-0.5 * 24 / 256)
    assert not out[0, [0, 2]].any()
    assert torch.equal(sharpened(x, 0.0), x)


def test_larger_and_back_keeps_a_smooth_picture() -> None:
    x = torch.from_numpy(pictures(1, 48, 32)).permute(0, 3, 1, 2).float()
    smooth = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    assert (resized(resized(smooth, 64, 96), 32, 48) - smooth).abs().mean() < 1
    assert resized(x, 32, 48) is x


def test_frames_to_come_do_not_build_on_sharpened_ones() -> None:
    """Else every frame would be sharper than the one before."""
    weights = tiny_weights()
    plain = S2vcCodec(weights, torch.device("cpu"))
    (gop,) = plain.encode_gops([pictures(4, 48, 32)], 40)
    (before,) = plain.decode_gops([gop])
    network = weights.network
    network.config = dataclasses.replace(network.config, sharpen=0.6)
    (after,) = S2vcCodec(weights, torch.device("cpu")).decode_gops([gop])
    assert not np.array_equal(before, after)
    x = torch.from_numpy(before).permute(0, 3, 1, 2).float()
    clipped = torch.from_numpy((before == 0) | (before == 255)).permute(0, 3, 1, 2).float()
    free = torch.nn.functional.max_pool2d(clipped, 5, 1, 2).permute(0, 2, 3, 1).numpy() == 0
    expected = sharpened(x, 0.6).permute(0, 2, 3, 1).clamp(0, 255).numpy()
    assert free.mean() > 0.02
    assert np.abs(expected - after)[free].max() < 2
