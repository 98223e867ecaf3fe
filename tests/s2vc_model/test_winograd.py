"""Winograd's convolution: the numbers of a direct one but for rounding, and only where nothing exact is at stake."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s2vc_model import winograd
from s2vc_model.codec import S2vcCodec
from s2vc_model.layers import SameConv3, conv
from s2vc_model.weight_files import load_weights
from tests.media import pictures

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 64, 16, 16), (2, 65, 17, 19), (3, 70, 1, 2), (1, 128, 36, 44)])
@pytest.mark.parametrize("outputs", [64, 75])
@pytest.mark.parametrize("band", [1, 1 << 16])
def test_direct_convolution_is_met_to_rounding(
    shape: tuple[int, int, int, int], outputs: int, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "_BAND", band)
    x, bias = torch.randn(shape), torch.randn(outputs)
    weight = torch.randn(outputs, shape[1], 3, 3) / (9 * shape[1]) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = winograd.convolve(x.contiguous(memory_format=layout), winograd.transformed(weight), bias)
        assert y.shape == exact.shape
        assert y.dtype == torch.float32
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert float((y - exact).square().mean().sqrt()) < 3e-6
        assert float((y - exact).abs().max()) < 1e-4


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that are convolved this way from now on."""
    shapes: list[tuple[int, ...]] = []
    convolve = winograd.convolve

    def counting(x: torch.Tensor, filters: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return convolve(x, filters, bias)

    monkeypatch.setattr(winograd, "convolve", counting)
    return shapes


def test_gradients_small_shapes_and_unprepared_layers_go_the_direct_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = counted(monkeypatch)
    layer, narrow = conv(64, 64, 3), conv(64, 32, 3)
    assert isinstance(layer, SameConv3)
    assert isinstance(narrow, SameConv3)
    x = torch.randn(1, 64, 16, 16)
    with torch.inference_mode():
        direct = layer(x)
    layer.quick = narrow.quick = True
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        narrow(x)
        layer(x[..., :15])
        assert not shapes
        assert torch.allclose(layer(x), direct, atol=1e-4)
    assert shapes == [(1, 64, 16, 16)]


def test_pictures_stay_within_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = counted(monkeypatch)
    quick, direct = (S2vcCodec(load_weights("small"), CPU) for _ in range(2))
    direct._net.for_inference(None)
    clip = pictures(4, 176, 144)
    gops = direct.encode_gops([clip], 50)
    expected = direct.decode_gops(gops)[0].astype(float)
    assert not shapes
    found = quick.decode_gops(gops)[0].astype(float)
    assert shapes
    worst = np.square(found - expected).mean((1, 2, 3)).max()
    assert 10 * np.log10(255**2 / max(float(worst), 1e-12)) > 60
    again = quick.encode_gops([clip], 50)
    assert abs(len(again[0].to_payload()) - len(gops[0].to_payload())) <= 8
    assert np.abs(direct.decode_gops(again)[0] - expected).mean() < 0.5


def test_bf16_transforms_go_the_direct_way(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = counted(monkeypatch)
    half = S2vcCodec(load_weights("small"), CPU, lockstep=True, half=True)
    half.encode_gops([pictures(1, 128, 128)], 50)
    assert not shapes
