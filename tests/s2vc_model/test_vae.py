"""The VAE decoder in bounded memory: tiles are the whole picture, windows all of it while it is small."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from s2vc_model import vae_tiles
from s2vc_model.config import PRESETS
from s2vc_model.sd import scratch_vae
from s2vc_model.vae_attention import BLOCK, WINDOW, WindowAttention, spans
from s2vc_model.vae_tiles import cut, decode, decoder_steps, in_tiles, reach, share_norms, tile_side
from tests.s2vc_model.live_bytes import live_bytes

GIB = 1 << 30


@pytest.fixture(scope="module")
def plain() -> AutoencoderKL:
    """diffusers' own, with weights that make every norm matter."""
    torch.manual_seed(3)
    vae = scratch_vae(PRESETS["sd-tiny"]).eval().requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return vae


@pytest.fixture(scope="module")
def vae(plain: AutoencoderKL) -> AutoencoderKL:
    return ours(plain)


def ours(plain: AutoencoderKL) -> AutoencoderKL:
    vae = copy.deepcopy(plain)
    vae.decoder.mid_block.attentions[0].set_processor(WindowAttention())
    share_norms(vae.decoder)
    return vae


def latents(height: int, width: int, pictures: int = 1, seed: int = 1) -> Tensor:
    """Corners that differ, so that a tile's own statistics would be wrong ones."""
    torch.manual_seed(seed)
    slope = torch.linspace(-1, 2, height)[:, None] + torch.linspace(-1, 1, width)
    return torch.randn(pictures, 4, height, width) + slope


def test_whole_pictures_are_diffusers_own(plain: AutoencoderKL, vae: AutoencoderKL) -> None:
    z = latents(10, 14, pictures=2)
    assert set(plain.state_dict()) == set(vae.state_dict())
    torch.testing.assert_close(decode(vae, z), plain.decode(z).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 5, 8, -1])
def test_tiles_are_the_whole_picture(vae: AutoencoderKL, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_tiles, "_USEFUL", 4)
    steps = decoder_steps(vae.decoder)
    channels = {0: 32, 5: 32, 8: 16, -1: 16}[first]
    side = 2 * reach(steps[first:]) + 4
    torch.manual_seed(2)
    h = torch.randn(1, channels, 10, 22 if first else 12) + torch.linspace(-1, 2, 22 if first else 12)
    whole = h
    for step in steps[first:]:
        whole = step.run(whole)
    tiled = in_tiles(steps[first:], h, side)
    assert len(cut(h.shape[3], side, reach(steps[first:]))) > 1
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=1e-4)


def test_margins_are_needed(vae: AutoencoderKL) -> None:
    """The proof that the test above can fail: one cell less is seen."""
    steps = decoder_steps(vae.decoder)[5:]
    torch.manual_seed(2)
    h = torch.randn(1, 32, 6, 22)
    whole = h
    for step in steps:
        whole = step.run(whole)
    margin = reach(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae_tiles, "reach", lambda steps: margin - 2)
        tiled = in_tiles(steps, h, 2 * margin)
    assert (tiled - whole).abs().max() > 1e-3


def test_little_memory_gives_the_same_picture_with_less(vae: AutoencoderKL) -> None:
    z = latents(10, 60)
    with live_bytes() as much:
        whole = decode(vae, z, GIB)
    with live_bytes() as little:
        tiled = decode(vae, z, much.peak // 3)
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=1e-4)
    assert little.peak < 0.7 * much.peak


def test_threads_gather_their_own_statistics(vae: AutoencoderKL) -> None:
    jobs = [(latents(6, 40, seed=n), GIB if n % 2 else 1_500_000) for n in range(4)]
    serial = [decode(vae, *job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: decode(vae, *job), jobs))
    assert all(torch.equal(a, b) for a, b in zip(serial, together, strict=True))


@pytest.mark.parametrize(
    ("height", "width", "gib", "cut_at"),
    [
        (1088, 1920, 24, None),
        (1088, 1920, 5, None),
        (1088, 1920, 3, 12),
        (2176, 3840, 24 - 2.4, None),
        (2176, 3840, 16, None),
        (2176, 3840, 10, 11),
        (2176, 3840, 6, 8),
    ],
)
def test_where_pictures_are_cut_at_full_scale(
    height: int, width: int, gib: float, cut_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        full = ours(scratch_vae(PRESETS["sd15"]).bfloat16())
        z = torch.empty(1, 4, height // 8, width // 8, dtype=torch.bfloat16)
    found: list[tuple[int, int]] = []

    def tiles(steps: list[vae_tiles.Step], h: Tensor, side: int) -> Tensor:
        found.append((16 - len(steps), side))
        return h

    monkeypatch.setattr(vae_tiles, "in_tiles", tiles)
    with live_bytes() as live:
        decode(full, z, int(gib * GIB))
    assert live.peak < gib * GIB
    assert [at for at, _ in found] == ([] if cut_at is None else [cut_at])
    for at, side in found:
        steps = decoder_steps(full.decoder)[at:]
        taken = max(step.bytes_per_pixel for step in steps) * 2 * (side * steps[0].scale) ** 2
        assert 0.7 * gib * GIB < taken < 0.8 * gib * GIB
        assert side > 4 * reach(steps)


def test_a_tile_keeps_a_useful_share_however_little_there_is() -> None:
    with torch.device("meta"):
        steps = decoder_steps(scratch_vae(PRESETS["sd15"]).decoder)
    assert reach(steps) == 13
    assert tile_side(steps, 1000, 2) == 2 * 13 + 16


@pytest.mark.parametrize("length", [1, 34, 35, 60, 270])
def test_tiles_share_a_side_without_gaps(length: int) -> None:
    tiles = cut(length, 34, 9)
    assert [n for own, _ in tiles for n in range(own.start, own.stop)] == list(range(length))
    assert all(seen.stop - seen.start <= 34 for _, seen in tiles)
    for own, seen in tiles:
        assert seen.start == max(0, own.start - 9)
        assert seen.stop == min(length, own.stop + 9)


@pytest.mark.parametrize("length", [1, WINDOW, WINDOW + 1, 135, 480])
def test_windows_cover_a_side_and_surround_their_blocks(length: int) -> None:
    found = spans(length)
    assert [n for own, _ in found for n in range(own.start, own.stop)] == list(range(length))
    for own, seen in found:
        assert 0 <= seen.start <= own.start < own.stop <= seen.stop <= length
        assert seen.stop - seen.start == min(WINDOW, length)
        if length > WINDOW and seen.start > 0 and seen.stop < length:
            assert own.start - seen.start == (WINDOW - BLOCK) // 2


def test_attention_is_global_up_to_a_window_and_local_beyond(
    plain: AutoencoderKL, vae: AutoencoderKL
) -> None:
    torch.manual_seed(4)
    small, wide = torch.randn(1, 32, 8, WINDOW), torch.randn(1, 32, 2, 3 * WINDOW)
    theirs, mine = (copy.deepcopy(v.decoder.mid_block.attentions[0]) for v in (plain, vae))
    torch.testing.assert_close(mine(small), theirs(small), atol=1e-5, rtol=1e-5)
    # The norm in front sees all, and is left out.
    theirs.group_norm = mine.group_norm = torch.nn.Identity()
    other = wide.clone()
    other[..., -1] *= -1
    changed = (mine(wide) - mine(other)).abs().amax((0, 1, 2)) > 1e-4
    assert changed[-BLOCK:].any()
    assert not changed[: -WINDOW - BLOCK].any()
    assert (theirs(wide) - theirs(other)).abs().amax((0, 1, 2))[: -WINDOW - BLOCK].max() > 1e-4
