"""The same stream gives the same symbols however it is computed: threads, kernels, layouts, batches, devices.

Decoding itself refuses a frame whose symbols differ from the encoder's; here every integer the priors give out is
compared as well, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.errors import BitstreamError, SymbolMismatch
from s2vc_model.prior import Prior
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from s2vc_model.weight_files import load_weights
from tests.media import pictures
from tests.s2vc_model.networks import AS_THEY_ARE

SIZES = ((64, 64), (96, 80), (80, 64))
PER_SIZE = 18
GOPS = PER_SIZE * len(SIZES)
Prints = dict[str, list[str]]


class NoPicture(nn.Module):
    """Stands for the generator, which no symbol depends on."""

    def forward(
        self, buffer: FeatureBuffer, before: DiffusionBuffer | None
    ) -> tuple[Tensor, DiffusionBuffer]:
        return buffer.picture, DiffusionBuffer((), buffer.picture)


def quick_codec(device: str = "cpu") -> S2vcCodec:
    """The packaged model without its generator, coding all pictures as they are: one batch for all qualities."""
    weights = replace(load_weights("small"), scales=AS_THEY_ARE)
    weights.network.generator = NoPicture()
    return S2vcCodec(weights, torch.device(device), lockstep=True)


@pytest.fixture(scope="module")
def codec() -> S2vcCodec:
    return quick_codec()


@pytest.fixture(scope="module")
def streams(codec: S2vcCodec) -> list[list[EncodedGop]]:
    """At least 50 GOPs of three frames over the whole quality range, in lockstep groups of one size."""
    assert GOPS >= 50
    out = []
    for size_index, (width, height) in enumerate(SIZES):
        clips = [pictures(3, width, height, seed=100 * size_index + n) for n in range(PER_SIZE)]
        qualities = (0, 13, 26, 39, 51, 63)
        share = PER_SIZE // len(qualities)
        out.append(
            [
                gop
                for i, q in enumerate(qualities)
                for gop in codec.encode_gops(clips[i * share : (i + 1) * share], q)
            ]
        )
    return out


def digest(x: Tensor) -> str:
    """Of one GOP's integers."""
    integers = x.detach().cpu().contiguous()
    assert torch.equal(integers, integers.round()), "not an integer"
    return hashlib.sha256(integers.to(torch.int32).numpy().tobytes()).hexdigest()


@contextlib.contextmanager
def watched(
    monkeypatch: pytest.MonkeyPatch, batch: Callable[[], list[str]], prints: Prints
) -> Iterator[None]:
    """Record every mean, scale index, activation and state of the priors, per GOP of the current batch."""

    def record(values: Any) -> None:
        for value in values if isinstance(values, tuple) else (values,):
            for name, own in zip(batch(), value, strict=False):
                prints.setdefault(name, []).append(digest(own))

    with monkeypatch.context() as patch:
        for name in ("distribution", "to_activation", "advance", "hyper"):
            original = getattr(Prior, name)

            def spy(self: Prior, *args: Any, _original: Callable[..., Any] = original) -> Any:
                values = _original(self, *args)
                record(values)
                return values

            patch.setattr(Prior, name, spy)
        yield


def decode_all(
    codec: S2vcCodec, streams: list[list[EncodedGop]], lockstep: int, monkeypatch: pytest.MonkeyPatch
) -> Prints:
    """Decode everything, ``lockstep`` GOPs at a time; the priors' integers of each GOP in order."""
    prints: Prints = {}
    current: list[str] = []
    with watched(monkeypatch, lambda: current, prints):
        for group, gops in enumerate(streams):
            for at in range(0, len(gops), lockstep):
                part = gops[at : at + lockstep]
                current[:] = [f"{group}/{at + n}" for n in range(len(part))]
                codec.decode_gops(part)
    return prints


@pytest.fixture(scope="module")
def reference(codec: S2vcCodec, streams: list[list[EncodedGop]]) -> Prints:
    """One thread, lockstep of six, as shipped."""
    with pytest.MonkeyPatch.context() as patch:
        prints = decode_all(codec, streams, 6, patch)
    assert len(prints) == GOPS
    assert all(len(p) == 3 * (2 * 2 + 2 + 1 + 1) for p in prints.values())
    assert len({p[0] for p in prints.values()}) > GOPS // 2, "the GOPs are all alike"
    return prints


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "mkldnn", "lockstep"), [(2, True, 9), (1, False, 6), (2, False, 1), (1, True, 1)]
)
def test_threads_kernels_and_batches_change_nothing(
    codec: S2vcCodec,
    streams: list[list[EncodedGop]],
    reference: Prints,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    mkldnn: bool,
    lockstep: int,
) -> None:
    with threads(count), torch.backends.mkldnn.flags(enabled=mkldnn):
        assert decode_all(codec, streams, lockstep, monkeypatch) == reference


def test_gops_on_cores_of_their_own_change_nothing(streams: list[list[EncodedGop]]) -> None:
    """Decoding checks every integer of a frame against the encoder's digest."""
    weights = load_weights("small")
    weights.network.generator = NoPicture()
    lanes = S2vcCodec(weights, torch.device("cpu"), lockstep=False)
    for gops in streams:
        assert len(lanes.decode_gops(gops)) == PER_SIZE


def test_memory_layout_changes_nothing(
    streams: list[list[EncodedGop]], reference: Prints, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = quick_codec()
    for prior in plain._net.priors().values():
        for layer in prior.layers().values():
            layer.w_int = layer.w_int.contiguous()
    hyper = Prior.hyper
    monkeypatch.setattr(Prior, "hyper", lambda self, *args: hyper(self, *args).contiguous())
    assert decode_all(plain, streams, 6, monkeypatch) == reference


def test_float_transforms_of_another_precision_change_nothing(
    streams: list[list[EncodedGop]], reference: Prints, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = quick_codec()
    half._half = True
    assert decode_all(half, streams[:1], 6, monkeypatch) == {
        k: v for k, v in reference.items() if k.startswith("0/")
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_gives_the_integers_of_the_cpu(
    streams: list[list[EncodedGop]], reference: Prints, monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    assert decode_all(quick_codec("cuda"), streams, 6, monkeypatch) == reference


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_streams_of_a_gpu_decode_on_the_cpu_to_near_equal_pictures() -> None:
    clip = pictures(4, 128, 96)
    for q in (10, 40, 60):
        (gop,) = load_model("small", "cuda").encode_gops([clip], q)
        gpu, cpu = (load_model("small", device).decode_gops([gop])[0] for device in ("cuda", "cpu"))
        error = np.square(gpu[-1].astype(float) - cpu[-1]).mean()
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 45


@pytest.mark.parametrize("q", [8, 56])
def test_decoders_of_two_precisions_stay_together_over_a_gop(q: int) -> None:
    """What a GPU's bf16 does to the pictures, on any machine: over 45 dB of fp32 at the last of 32 frames."""
    codec = load_model("small", "cpu")
    (gop,) = codec.encode_gops([pictures(32, 96, 64)], q)
    full = codec.decode_gops([gop])[0][-1].astype(float)
    codec._half = True
    half = codec.decode_gops([gop])[0][-1].astype(float)
    error = np.square(full - half).mean()
    assert error > 0, "both decoded in one precision"
    assert 10 * np.log10(255**2 / error) > 45


def perturbed(kind: str, layer: str, gop: EncodedGop) -> S2vcCodec:
    """The packaged model with one integer weight changed, of an input that ``gop`` uses."""
    wrong = quick_codec()
    module = wrong._net.priors()[kind].layers()[layer]
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().mean((0, 2, 3))))
    wrong.decode_gops([gop])
    hook.remove()
    row, column = int(module.scale.flatten().argmax()), int(torch.stack(seen).sum(0).argmax())
    centre = module.kernel // 2
    weight = module.w_int[row, column, centre, centre]
    weight += 512 if float(weight) < 0 else -512
    return wrong


@pytest.mark.parametrize(
    ("kind", "layer"), [("intra", "h_b2"), ("intra", "f_b"), ("inter", "t_a"), ("inter", "f_out")]
)
def test_one_wrong_integer_is_noticed(
    streams: list[list[EncodedGop]],
    reference: Prints,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    layer: str,
) -> None:
    """The proof that the tests above can fail."""
    last = PER_SIZE - 3
    wrong = perturbed(kind, layer, streams[0][last])
    with contextlib.suppress(SymbolMismatch, BitstreamError):
        prints = decode_all(wrong, [streams[0][last:]], 3, monkeypatch)
        assert all(prints[f"0/{n}"] != reference[f"0/{last + n}"] for n in range(3))


def test_a_decoder_with_one_wrong_integer_stops(streams: list[list[EncodedGop]]) -> None:
    tried = [gops[-1] for gops in streams]
    for gop in tried:
        with pytest.raises((SymbolMismatch, BitstreamError)):
            perturbed("intra", "h_b2", gop).decode_gops([gop])
