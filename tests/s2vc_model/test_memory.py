"""What a GOP is said to take is what its tensors take, and as many go together as that allows."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from s2vc_model import codec as codec_module
from s2vc_model import vae_tiles
from s2vc_model.codec import S2vcCodec
from s2vc_model.config import PRESETS
from s2vc_model.memory import NEEDS, SHARE, gops_that_fit
from s2vc_model.network import S2vcNetwork
from s2vc_model.sd import SdGenerator
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from tests.media import pictures
from tests.s2vc_model.live_bytes import live_bytes
from tests.s2vc_model.networks import small_codec, tiny_codec

GIB = 1 << 30
UHD = 2176 * 3840


@pytest.fixture(scope="module")
def small() -> S2vcCodec:
    return small_codec(lockstep=True, half=True)


@pytest.mark.parametrize("gops", [1, 3])
def test_small_takes_what_is_said(small: S2vcCodec, gops: int) -> None:
    clips, pixels = [pictures(2, 192, 128, seed=n) for n in range(gops)], gops * 192 * 128
    with live_bytes() as encode:
        coded = small.encode_gops(clips, 30)
    with live_bytes() as decode:
        small.decode_gops(coded)
    for stage, live in (("encode", encode), ("decode", decode)):
        (phase,) = NEEDS["small", stage]
        # A lone GOP of this size shares the copies of weights that autocast makes with nobody.
        assert 0.9 < (live.peak / pixels) / phase.gop < (1.5 if gops == 1 else 1.2)


@pytest.fixture(scope="module")
def sd15() -> S2vcNetwork:
    """All of it, without a byte of weights."""
    with torch.device("meta"):
        network = S2vcNetwork(PRESETS["sd15"]).eval().requires_grad_(False).bfloat16()
        network.for_inference(None)
    return network


@pytest.mark.parametrize("gops", [1, 4])
def test_sd15_takes_what_is_said(sd15: S2vcNetwork, gops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_tiles, "free_bytes", lambda device: 1 << 50)
    height, width = 1088, 1920

    def empty(channels: int, cell: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(gops, channels, height // cell, width // cell, dtype=dtype, device="meta")

    unet, vae = NEEDS["sd", "decode"]
    with live_bytes() as live:
        buffer = FeatureBuffer(empty(384, 8), empty(3, 1), empty(2, 8, torch.float32))
        before = DiffusionBuffer((empty(320, 8), empty(640, 16)), empty(3, 1))
        assert isinstance(sd15.generator, SdGenerator)
        f, tokens = sd15.generator.pixels(buffer.feature), sd15.generator.semantic(buffer.feature)
        sd15.generator.guided(f, sd15.generator.timestep, tokens, before.features)
        assert live.peak / (height * width) == pytest.approx(unet.gop * gops, rel=0.02)
        del f, tokens
        live.peak = live.now
        sd15.generator(buffer, before)
    peak = live.peak / (height * width)
    assert peak == pytest.approx(vae.once + vae.gop * gops, rel=0.02)


def test_sd15_at_4k_stays_within_24_gb_with_its_weights(sd15: S2vcNetwork) -> None:
    weights = 2 * sum(p.numel() for p in sd15.parameters())
    assert 2.0e9 < weights < 2.4e9
    assert gops_that_fit("sd", "decode", UHD, int(24e9 - weights)) >= 1
    _, vae = NEEDS["sd", "decode"]
    assert (vae.once + vae.gop) * UHD < SHARE * (24e9 - weights)


@pytest.mark.parametrize(
    ("generator", "stage", "pixels", "free", "gops"),
    [
        ("small", "encode", 1088 * 1920, 2 * GIB, 8),
        ("small", "encode", UHD, 24 * GIB, 25),
        ("small", "decode", 1088 * 1920, 2 * GIB, 6),
        ("sd", "decode", 1088 * 1920, 16 * GIB, 20),
        ("sd", "decode", 1088 * 1920, 5 * GIB, 5),
        ("sd", "decode", UHD, 22 * GIB, 7),
        ("sd", "decode", UHD, GIB, 1),
    ],
)
def test_as_many_as_fit(generator: str, stage: str, pixels: int, free: int, gops: int) -> None:
    assert gops_that_fit(generator, stage, pixels, free) == gops
    assert gops_that_fit(generator, stage, pixels, 2 * free, itemsize=4) == gops


def test_the_codec_asks_its_device(small: S2vcCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "free_bytes", lambda device: GIB)
    assert small.fitting("encode", 720, 1280) == gops_that_fit("small", "encode", 736 * 1280, GIB) == 9
    assert small.fitting("decode", 4320, 7680) == 1


def test_side_by_side_takes_any_number() -> None:
    assert tiny_codec().fitting("encode", 4320, 7680) == sys.maxsize
