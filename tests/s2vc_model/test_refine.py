"""First pictures refined before they are coded: fewer bytes or a better picture, and nothing else changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.config import QUALITIES
from s2vc_model.entropy import Coder, StreamWriter
from s2vc_model.errors import ModelError
from s2vc_model.latents import encode_frame
from s2vc_model.memory import NEEDS, gops_that_fit
from s2vc_model.metrics import lpips_vgg
from s2vc_model.pictures import padded
from s2vc_model.refine import Refiner
from s2vc_model.train.rate import estimate
from s2vc_model.train.recipe import LAMBDA_HIGH, LAMBDA_LOW
from s2vc_model.weight_files import LoadedWeights, load_weights
from tests.media import pictures
from tests.s2vc_model.live_bytes import live_bytes
from tests.s2vc_model.networks import tiny_network, tiny_weights

CPU = torch.device("cpu")
FRAMES = pictures(2, 96, 128, seed=4)
Q = 44


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return load_weights("small")


@pytest.fixture(scope="module")
def plain(weights: LoadedWeights) -> S2vcCodec:
    return S2vcCodec(weights, CPU)


@pytest.fixture(scope="module")
def refining(weights: LoadedWeights) -> S2vcCodec:
    return S2vcCodec(weights, CPU, refine=3)


def cost(codec: S2vcCodec, gop: EncodedGop, frames: np.ndarray) -> float:
    """What refining is to lower, of a first picture: its bytes, L1 and LPIPS-VGG, weighed as training weighs them."""
    decoded = codec.decode_gops([gop])[0][:1]
    rate = LAMBDA_LOW * (LAMBDA_HIGH / LAMBDA_LOW) ** (gop.quantiser / (QUALITIES - 1))
    height, width = gop.coded_size
    l1 = np.abs(decoded.astype(float) - frames[:1]).mean() / 127.5
    return float(
        1.5 * l1 + lpips_vgg(frames[:1], decoded).mean() + 0.5 * rate * 8 * len(gop.intra) / (height * width)
    )


def test_the_estimate_is_what_is_coded(weights: LoadedWeights) -> None:
    x = padded(torch.from_numpy(FRAMES[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    q = torch.tensor([Q])
    network, prior = weights.network, weights.network.intra_prior
    with torch.no_grad():
        y = network.intra.analysis(x)
        z = network.intra.hyper(y)
        (blocks,), coded = encode_frame(prior, y, z, q, None)
        latent, soft, bits = estimate(prior, y * prior.quantiser(q), prior.quantiser(q), z, q)
    stream = StreamWriter()
    for symbols, rows in blocks:
        stream.put(symbols, rows, Coder(weights.tables["intra"]))
    assert abs(float(bits) / 8 - len(stream.finish())) < 0.05 * float(bits) / 8 + 8
    assert 0.4 * bits < soft < bits
    # Means are in sixteenths of a step in the stream; here and there that rounds a latent another way.
    assert float(((latent - coded.values).abs() * prior.quantiser(q) > 0.1).float().mean()) < 0.02


def test_a_gop_costs_less_and_is_read_without_refining(plain: S2vcCodec, refining: S2vcCodec) -> None:
    (before,), (after,) = plain.encode_gops([FRAMES], Q), refining.encode_gops([FRAMES], Q)
    assert after.intra != before.intra
    assert cost(plain, after, FRAMES) < 0.99 * cost(plain, before, FRAMES)
    plain.check_symbols([after])
    np.testing.assert_array_equal(plain.decode_gops([after])[0], refining.decode_gops([after])[0])


def test_neighbours_and_repetition_change_nothing(weights: LoadedWeights, refining: S2vcCodec) -> None:
    other = pictures(1, 96, 128, seed=9)
    (alone,) = refining.encode_gops([FRAMES], Q)
    again, _ = refining.encode_gops([FRAMES, other], Q)
    assert again.to_payload() == alone.to_payload()
    (lockstep, _) = S2vcCodec(weights, CPU, lockstep=True, refine=3).encode_gops([FRAMES, other], Q)
    assert abs(len(lockstep.to_payload()) - len(alone.to_payload())) <= 0.05 * len(alone.to_payload())


def test_the_model_learns_nothing(weights: LoadedWeights, refining: S2vcCodec) -> None:
    refining.encode_gops([FRAMES[:1]], Q)
    assert not any(p.requires_grad or p.grad is not None for p in weights.network.parameters())


def test_what_is_too_large_stays_as_it_is(
    plain: S2vcCodec, weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vc_model.refine.MAX_PIXELS", 96 * 128 - 1)
    codec = S2vcCodec(dataclasses.replace(weights), CPU, enlarge=False, refine=1)
    as_they_are = S2vcCodec(weights, CPU, enlarge=False)
    payloads = [one.encode_gops([FRAMES], Q)[0].to_payload() for one in (codec, as_they_are)]
    assert payloads[0] == payloads[1]


def test_gradients_take_what_is_said(weights: LoadedWeights) -> None:
    """Counted in float32, whose tensors are twice as large."""
    codec = S2vcCodec(weights, CPU, lockstep=True, half=False, enlarge=False, refine=1)
    clip = pictures(1, 256, 256)
    with live_bytes() as live:
        codec.encode_gops([clip], Q)
    (phase,) = NEEDS["small", "refine"]
    assert 0.8 < live.peak / 2 / (256 * 256) / (phase.once + phase.gop) < 1.1


def test_the_codec_plans_with_that(weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr("s2vc_model.codec.free_bytes", lambda device: 4 * gib)
    codec = S2vcCodec(weights, CPU, lockstep=True, half=True, refine=1)
    fits = {stage: gops_that_fit("small", stage, 736 * 1280, 4 * gib) for stage in ("encode", "refine")}
    assert codec.fitting("encode", 720, 1280) == fits["refine"] < fits["encode"]
    assert codec.fitting("encode", 2160, 3840) == gops_that_fit("small", "encode", 2176 * 3840, 4 * gib)


def test_wrong_steps_and_models_are_refused(weights: LoadedWeights) -> None:
    with pytest.raises(ModelError, match="65 steps"):
        load_model("small", "cpu", refine=65)
    network = tiny_network()
    network.config = dataclasses.replace(network.config, generator="sd", preset="sd15")
    with pytest.raises(ModelError, match="sd15"):
        Refiner(network, 3, CPU)


def test_random_weights_are_never_made_worse() -> None:
    """Where no step helps, the encoder's own latents are taken."""
    own, better = (S2vcCodec(tiny_weights(), CPU, refine=steps) for steps in (0, 2))
    (a,), (b,) = (codec.encode_gops([FRAMES[:1]], 20) for codec in (own, better))
    assert cost(own, b, FRAMES) <= 1.02 * cost(own, a, FRAMES)
