"""Frames to bytes and back with the packaged weights: any size, any length, any batch; damage is always an error."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import S2vcCodec, load_model
from s2vc_model.errors import BitstreamError, ModelError, SymbolMismatch, WeightsError
from s2vc_model.latents import digests
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from s2vc_model.weight_files import load_weights
from tests.media import pictures
from tests.s2vc_model.networks import tiny_codec, tiny_weights

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def codec() -> S2vcCodec:
    return load_model("small", "cpu")


@pytest.fixture(scope="module")
def lockstep() -> S2vcCodec:
    """Coding as on a GPU: the GOPs of a call are one batch."""
    return S2vcCodec(load_weights("small"), torch.device("cpu"), lockstep=True)


@pytest.fixture(scope="module")
def tiny() -> S2vcCodec:
    return tiny_codec()


def photo(frames: int, width: int, height: int, seed: int = 0) -> Frames:
    """Moving gradients under film-like noise of a coarse grain."""
    base = pictures(frames, width, height, seed).astype(np.float32)
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 14, (frames, -(-height // 2), -(-width // 2), 1))
    grain = grain.repeat(2, 1).repeat(2, 2)[:, :height, :width]
    return (base + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "frames"),
    [(16, 16, 1), (16, 16, 5), (17, 31, 2), (64, 64, 5), (65, 129, 2), (176, 144, 2), (1, 1, 2), (130, 2, 2)],
)
def test_round_trip(codec: S2vcCodec, width: int, height: int, frames: int) -> None:
    clip = pictures(frames, width, height)
    payload = codec.encode_gops([clip], 40)[0].to_payload()
    gop = EncodedGop.from_payload(payload)
    assert (gop.width, gop.height, gop.frames, gop.q) == (width, height, frames, 40)
    first, second = (codec.decode_gops([gop])[0] for _ in range(2))
    assert first.shape == clip.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    if min(width, height) >= 64:
        assert np.abs(first.astype(int) - clip).mean() < 30


FRESH = """
import sys
from collections.abc import Callable
import numpy as np
from s2vc_model.bitstream import EncodedGop
from s2vc_model.codec import load_model

gop = EncodedGop.from_payload(sys.stdin.buffer.read())
np.save(sys.argv[1], load_model("small", "cpu").decode_gops([gop])[0])
"""


def test_another_process_decodes_the_same_frames_from_the_bytes_alone(
    codec: S2vcCodec, tmp_path: Path
) -> None:
    (gop,) = codec.encode_gops([pictures(3, 96, 80)], 50)
    out = tmp_path / "frames.npy"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, str(out)],
        input=gop.to_payload(),
        check=True,
        timeout=200,
    )
    assert np.array_equal(np.load(out), codec.decode_gops([gop])[0])


def test_lockstep_of_unequal_lengths_keeps_order_and_decodes_alone(lockstep: S2vcCodec) -> None:
    clips = [pictures(n, 80, 64, seed=n) for n in (2, 5, 1, 3)]
    gops = lockstep.encode_gops(clips, 45)
    assert [g.frames for g in gops] == [2, 5, 1, 3]
    together = lockstep.decode_gops(gops)
    for clip, gop, frames in zip(clips, gops, together, strict=True):
        (alone,) = lockstep.decode_gops([gop])
        assert frames.shape == clip.shape
        assert np.abs(frames.astype(int) - alone).max() <= 1


def test_bytes_on_a_cpu_hang_on_neither_neighbours_nor_threads(codec: S2vcCodec) -> None:
    clips = [photo(n, 80, 64, seed=n) for n in (3, 1, 2)]
    together = [gop.to_payload() for gop in codec.encode_gops(clips, 50)]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        alone = [codec.encode_gops([clip], 50)[0].to_payload() for clip in clips]
    finally:
        torch.set_num_threads(before)
    assert together == alone


def test_gops_side_by_side_decode_as_each_alone(codec: S2vcCodec) -> None:
    gops = codec.encode_gops([pictures(n, 80, 64, seed=n) for n in (2, 5, 1, 3)], 45)
    steps = list(codec.iter_decode(gops))
    assert [sorted(step) for step in steps] == [[0, 1, 2, 3], [0, 1, 3], [1, 3], [1], [1]]
    for number, gop in enumerate(gops):
        (alone,) = codec.decode_gops([gop])
        mine = np.stack([step[number] for step in steps if number in step])
        assert np.abs(mine.astype(int) - alone).max() <= 1


@pytest.mark.parametrize("q", [0, 30, 63])
def test_batched_encoding_gives_the_streams_of_one_by_one_encoding(lockstep: S2vcCodec, q: int) -> None:
    """Bits may differ where a float transform rounds another way; what decodes may not differ beyond that."""
    clips = [photo(2, 80, 64, seed=n) for n in range(3)]
    batched = lockstep.encode_gops(clips, q)
    single = [lockstep.encode_gops([clip], q)[0] for clip in clips]
    for mine, own in zip(batched, single, strict=True):
        assert abs(len(mine.to_payload()) - len(own.to_payload())) <= 0.02 * len(own.to_payload()) + 4
        a, b = (lockstep.decode_gops([g])[0].astype(int) for g in (mine, own))
        assert np.abs(a - b).mean() < 1


def test_mixed_qualities_decode_in_one_lockstep(lockstep: S2vcCodec) -> None:
    clip = pictures(2, 64, 64)
    gops = [lockstep.encode_gops([clip], q)[0] for q in (5, 60)]
    together = lockstep.decode_gops(gops)
    for gop, frames in zip(gops, together, strict=True):
        assert np.abs(frames.astype(int) - lockstep.decode_gops([gop])[0]).max() <= 1


def test_each_gop_of_a_call_can_have_its_own_quality(codec: S2vcCodec, lockstep: S2vcCodec) -> None:
    clips, qualities = [photo(n, 80, 64, seed=n) for n in (1, 3, 2)], [5, 60, 30]
    alone = [codec.encode_gops([clip], q)[0] for clip, q in zip(clips, qualities, strict=True)]
    assert codec.encode_gops(clips, qualities) == alone
    together = lockstep.encode_gops(clips, qualities)
    assert [gop.q for gop in together] == qualities
    for mine, own in zip(together, alone, strict=True):
        assert abs(len(mine.to_payload()) - len(own.to_payload())) <= 0.02 * len(own.to_payload()) + 4
    with pytest.raises(ModelError, match="2 qualities for 3 GOPs"):
        codec.encode_gops(clips, [5, 60])


def test_size_and_fidelity_rise_with_quality(codec: S2vcCodec) -> None:
    clip = photo(3, 128, 96)
    sizes, errors = [], []
    for q in (0, 20, 40, 63):
        gops = codec.encode_gops([clip], q)
        sizes.append(len(gops[0].to_payload()))
        errors.append(float(np.abs(codec.decode_gops(gops)[0].astype(int) - clip).mean()))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]
    assert errors == sorted(errors, reverse=True)


def test_quarters_of_a_quality_lie_between_its_neighbours(codec: S2vcCodec) -> None:
    clip = photo(3, 128, 96)
    rows = [50 + n / 4 for n in range(9)]
    gops = [codec.encode_gops([clip], q)[0] for q in rows]
    assert [(gop.q, gop.fine) for gop in gops] == [divmod(n, 4) for n in range(200, 209)]
    assert gops[0] == codec.encode_gops([clip], 50)[0]
    again = [EncodedGop.from_payload(gop.to_payload()) for gop in gops]
    assert again == gops
    codec.check_symbols(again)
    sizes = [len(gop.intra) + len(gop.inter) for gop in gops]
    # Streams are whole words, and one more bit here is a word there: rising, but for that.
    assert all(later >= earlier - 16 for earlier, later in pairwise(sizes))
    assert len(set(sizes)) > 5
    wrong = dataclasses.replace(gops[2], fine=0)
    with pytest.raises((SymbolMismatch, BitstreamError)):
        codec.check_symbols([wrong])


@pytest.mark.parametrize("q", [-0.25, 63.25, 20.1, float("nan")])
def test_other_parts_of_a_quality_are_refused(tiny: S2vcCodec, q: float) -> None:
    with pytest.raises(ModelError, match=r"steps of 0\.25"):
        tiny.encode_gops([pictures(1, 32, 32)], q)


def test_iter_decode_yields_the_frames_of_decode(tiny: S2vcCodec) -> None:
    gops = tiny.encode_gops([pictures(n, 40, 32) for n in (1, 3)], 20)
    steps = list(tiny.iter_decode(gops))
    assert [sorted(step) for step in steps] == [[0, 1], [1], [1]]
    whole = tiny.decode_gops(gops)
    assert np.array_equal(steps[0][0], whole[0][0])
    assert np.array_equal(steps[2][1], whole[1][2])
    assert list(tiny.iter_decode([])) == []
    assert tiny.decode_gops([]) == []


class Refusing(nn.Module):
    """Stands for the generator where it must not run."""

    def forward(
        self, buffer: FeatureBuffer, before: DiffusionBuffer | None
    ) -> tuple[Tensor, DiffusionBuffer]:
        raise AssertionError("the generator ran")


def test_encoding_does_not_run_the_generator(tiny: S2vcCodec) -> None:
    weights = tiny_weights()
    weights.network.generator = Refusing()
    blind = S2vcCodec(weights, torch.device("cpu"))
    clips = [pictures(3, 48, 48)]
    gops = blind.encode_gops(clips, 30)
    assert gops == tiny.encode_gops(clips, 30)
    with pytest.raises(AssertionError, match="generator ran"):
        blind.decode_gops(gops)


def test_calls_leave_no_trace(tiny: S2vcCodec) -> None:
    clips = [pictures(3, 48, 48, seed=1)]
    gops = tiny.encode_gops(clips, 30)
    frames = tiny.decode_gops(gops)
    tiny.encode_gops([pictures(4, 64, 32, seed=2)], 5)
    tiny.decode_gops(tiny.encode_gops([pictures(2, 48, 48, seed=3), pictures(1, 48, 48)], 60))
    unfinished = tiny.iter_decode(gops)
    next(unfinished)
    assert tiny.encode_gops(clips, 30) == gops
    assert np.array_equal(tiny.decode_gops(gops)[0], frames[0])
    assert np.array_equal(next(unfinished)[0], frames[0][1])


def test_source_frames_are_not_changed(tiny: S2vcCodec) -> None:
    clip = pictures(2, 40, 40)
    copy = clip.copy()
    clip.flags.writeable = False
    tiny.encode_gops([clip], 10)
    assert np.array_equal(clip, copy)


@pytest.mark.parametrize(
    ("gops", "q", "reason"),
    [
        ([], 10, "no GOP"),
        ([pictures(1, 16, 16)], 64, "quality"),
        ([pictures(1, 16, 16)], -1, "quality"),
        ([pictures(1, 16, 16), pictures(1, 16, 32)], 10, "one frame size"),
        ([pictures(1, 16, 16)[0]], 10, "uint8"),
        ([pictures(1, 16, 16)[:0]], 10, "uint8"),
        ([pictures(1, 16, 16).astype(np.float32)], 10, "uint8"),
        ([pictures(1, 16, 16)[..., :2]], 10, "uint8"),
        ([np.zeros((1, 1, 65536, 3), np.uint8)], 10, "larger than"),
    ],
)
def test_unusable_frames_are_refused(tiny: S2vcCodec, gops: list[Frames], q: int, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        tiny.encode_gops(gops, q)


def test_mixed_sizes_are_refused_when_decoding(tiny: S2vcCodec) -> None:
    gops = [tiny.encode_gops([pictures(1, w, 32)], 10)[0] for w in (32, 48)]
    with pytest.raises(ModelError, match="one frame size"):
        tiny.decode_gops(gops)


def test_other_weights_are_an_error(codec: S2vcCodec, tiny: S2vcCodec) -> None:
    (gop,) = codec.encode_gops([pictures(2, 64, 64)], 40)
    for stranger in (tiny, tiny_codec(seed=1)):
        with pytest.raises((SymbolMismatch, BitstreamError)):
            stranger.decode_gops([gop])
    (own,) = tiny.encode_gops([pictures(2, 64, 64)], 40)
    with pytest.raises((SymbolMismatch, BitstreamError)):
        tiny_codec(seed=1).decode_gops([own])


def refused(codec: S2vcCodec, payload: bytes, frames: Frames) -> bool:
    """Whether a damaged payload is an error; one that is not must give the very same frames."""
    try:
        decoded = codec.decode_gops([EncodedGop.from_payload(payload)])[0]
    except (BitstreamError, SymbolMismatch):
        return True
    assert np.array_equal(decoded, frames), "damage went unnoticed"
    return False


def flips(payload: bytes, step: int) -> list[bytes]:
    """Payloads with one bit flipped each, behind the frame size."""
    out = []
    for bit in range(32, 8 * len(payload), step):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        out.append(bytes(damaged))
    return out


def test_no_single_bit_flip_changes_a_picture(tiny: S2vcCodec) -> None:
    """A few bits at a stream's end carry nothing; the archive's own checksum guards those."""
    (gop,) = tiny.encode_gops([pictures(2, 33, 20)], 3)
    (frames,) = tiny.decode_gops([gop])
    damaged = flips(gop.to_payload(), 1)
    noticed = sum(refused(tiny, payload, frames) for payload in damaged)
    assert noticed >= len(damaged) - 2 * 48


def test_damaged_frame_sizes_are_errors_or_crops(tiny: S2vcCodec) -> None:
    (gop,) = tiny.encode_gops([pictures(2, 33, 20)], 3)
    (frames,) = tiny.decode_gops([gop])
    for bit in range(8):
        for change in ({"width": gop.width ^ 1 << bit}, {"height": gop.height ^ 1 << bit}):
            damaged = dataclasses.replace(gop, **change)
            padded = [(-(-g.width // 32), -(-g.height // 32)) for g in (gop, damaged)]
            if padded[0] == padded[1]:
                assert tiny.decode_gops([damaged])[0].shape[1:3] == (damaged.height, damaged.width)
            else:
                assert refused(tiny, damaged.to_payload(), frames), change


def test_flips_and_cuts_of_real_payloads_are_errors(codec: S2vcCodec) -> None:
    (gop,) = codec.encode_gops([pictures(3, 64, 64)], 40)
    (frames,) = codec.decode_gops([gop])
    payload = gop.to_payload()
    damaged = flips(payload, 19)
    noticed = sum(refused(codec, one, frames) for one in damaged)
    assert noticed >= 0.85 * len(damaged)
    assert all(refused(codec, payload[:-cut], frames) for cut in range(1, len(payload), 9))


def test_swapped_streams_and_forged_checks_are_errors(tiny: S2vcCodec) -> None:
    a, b = tiny.encode_gops([pictures(2, 64, 64, seed=n) for n in (1, 2)], 30)
    forged = (
        dataclasses.replace(a, inter=b.inter),
        dataclasses.replace(a, intra=b.intra),
        dataclasses.replace(a, q=31),
        dataclasses.replace(a, inter=b""),
        dataclasses.replace(a, frames=3, checks=a.checks + b"\0"),
        dataclasses.replace(a, frames=1, checks=a.checks[:1], inter=b""),
        dataclasses.replace(a, symbol_crc=a.symbol_crc ^ 0x100),
    )
    for n, gop in enumerate(forged):
        assert refused(tiny, gop.to_payload(), tiny.decode_gops([a])[0]), f"forgery {n}"


def test_one_damaged_gop_is_an_error_for_its_lockstep(tiny: S2vcCodec) -> None:
    a, b = tiny.encode_gops([pictures(2, 64, 64, seed=n) for n in (1, 2)], 30)
    damaged = dataclasses.replace(b, checks=bytes([b.checks[0] ^ 1, b.checks[1]]))
    with pytest.raises(SymbolMismatch, match="frame 0"):
        tiny.decode_gops([a, damaged])


class Absent(nn.Module):
    """Stands for every network that makes pictures or features."""

    def forward(self, *arguments: object) -> object:
        raise AssertionError("a transform ran")


@pytest.mark.parametrize("lockstep", [False, True])
def test_symbols_are_checked_by_the_integer_networks_alone(lockstep: bool) -> None:
    weights = tiny_weights()
    codec = S2vcCodec(weights, torch.device("cpu"), lockstep=lockstep)
    gops = codec.encode_gops([pictures(n, 48, 32, seed=n) for n in (1, 4, 2)], 30)
    net = weights.network
    net.generator = net.intra = net.inter = Absent()
    codec.check_symbols(gops)
    codec.check_symbols([])
    for t in range(4):
        checks = bytes(value ^ (at == t) for at, value in enumerate(gops[1].checks))
        with pytest.raises(SymbolMismatch, match=f"frame {t}"):
            codec.check_symbols([gops[0], dataclasses.replace(gops[1], checks=checks), gops[2]])
    with pytest.raises(SymbolMismatch, match="frame 3"):
        codec.check_symbols([dataclasses.replace(gops[1], symbol_crc=gops[1].symbol_crc ^ 0x100)])


def test_checking_symbols_refuses_what_decoding_refuses(tiny: S2vcCodec) -> None:
    (gop,) = tiny.encode_gops([pictures(2, 33, 20)], 3)

    def passes(payload: bytes, work: Callable[[list[EncodedGop]], object]) -> bool:
        try:
            work([EncodedGop.from_payload(payload)])
        except (BitstreamError, SymbolMismatch):
            return False
        return True

    damaged = flips(gop.to_payload(), 3)
    outcomes = [(passes(one, tiny.check_symbols), passes(one, tiny.decode_gops)) for one in damaged]
    assert all(mine == full for mine, full in outcomes)
    assert sum(mine for mine, _ in outcomes) < len(damaged) // 2
    with pytest.raises(ModelError, match="one frame size"):
        tiny.check_symbols([gop, tiny.encode_gops([pictures(1, 64, 64)], 3)[0]])


def test_load_model_names_what_it_loaded(codec: S2vcCodec) -> None:
    assert codec.preset == "small"
    assert codec.device.type == "cpu"
    assert codec.model_id == f"small-{codec.weights_sha256[:12]}"
    assert len(codec.weights_sha256) == 64


def test_load_model_refuses_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="no model 'nothing'"):
        load_model("nothing", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="no GPU"):
        load_model("small", "cuda")
    assert load_model("small", "auto").device.type == "cpu"


@pytest.mark.parametrize("kind", ["intra", "inter"])
def test_a_wrong_mean_is_noticed_though_it_changes_no_symbol(tiny: S2vcCodec, kind: str) -> None:
    (gop,) = tiny.encode_gops([pictures(2, 64, 64)], 30)
    weights = tiny_weights()
    conv = weights.network.priors()[kind].s_out
    conv.b_int[: weights.network.config.latent] += 64 / conv.scale.flatten()[: weights.network.config.latent]
    with pytest.raises(SymbolMismatch, match=f"frame {int(kind == 'inter')}"):
        S2vcCodec(weights, torch.device("cpu")).decode_gops([gop])


def test_digests_see_every_integer_and_its_place() -> None:
    generator = torch.Generator().manual_seed(0)
    hyper = torch.randint(-9, 10, (2, 3, 2, 2), generator=generator).float()
    fixed = torch.randint(-24000, 24000, (2, 4, 8, 8), generator=generator).float()
    plain = digests(hyper, fixed)
    assert plain == digests(hyper, fixed.contiguous(memory_format=torch.channels_last))
    seen = set(plain)
    for tensor in (hyper, fixed):
        for at in range(tensor[0].numel()):
            changed = [t.clone() for t in (hyper, fixed)]
            changed[tensor is fixed].view(2, -1)[0, at] += 1
            first, second = digests(changed[0], changed[1])
            assert second == plain[1]
            seen.add(first)
    assert len(seen) == 2 + hyper[0].numel() + fixed[0].numel()
