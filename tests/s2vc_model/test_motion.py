"""Block motion search finds the shift a picture was moved by, and rests where there is nothing to see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from s2vc_model.motion import BLOCK, block_motion, luma


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth noise in [-1, 1], (1, 1, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.rand(1, 1, height // 4, width // 4, generator=generator)
    coarse = torch.rand(1, 1, height // 16, width // 16, generator=generator)
    size = (height, width)
    both = [F.interpolate(t, size, mode="bicubic", align_corners=False) for t in (fine, coarse)]
    return (both[0] * 0.7 + both[1] * 1.3 - 1).clamp(-1, 1)


def shifted(dx: int, dy: int, height: int = 128, width: int = 192) -> tuple[Tensor, Tensor]:
    """(current, previous) with current[p] = previous[p + (dx, dy)]."""
    room = 64
    whole = texture(height + 2 * room, width + 2 * room)
    previous = whole[:, :, room : room + height, room : room + width]
    current = whole[:, :, room + dy : room + dy + height, room + dx : room + dx + width]
    return current, previous


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (-6, 4), (0, -14), (12, 12), (-30, 8), (26, -22)])
def test_finds_a_global_shift(dx: int, dy: int) -> None:
    field = block_motion(*shifted(dx, dy))
    assert field.shape == (1, 2, 128 // BLOCK, 192 // BLOCK)
    inner = field[:, :, 3:-3, 3:-3]
    error = (inner - torch.tensor([dx, dy]).view(1, 2, 1, 1)).abs()
    assert float(error.median()) < 0.5
    assert float((error < 1).float().mean()) > 0.75


def test_odd_shifts_are_found_below_a_cell() -> None:
    field = block_motion(*shifted(5, -3))[:, :, 2:-2, 2:-2]
    assert (field.mean((0, 2, 3)) - torch.tensor([5.0, -3.0])).abs().max() < 0.6


def test_flat_pictures_rest() -> None:
    flat = torch.full((2, 1, 64, 96), 0.3)
    assert torch.equal(block_motion(flat, flat), torch.zeros(2, 2, 4, 6))


def test_field_is_bounded_and_finite_for_unrelated_pictures() -> None:
    torch.manual_seed(0)
    for height, width in ((32, 32), (32, 160), (96, 64)):
        field = block_motion(torch.rand(2, 1, height, width) * 2 - 1, torch.rand(2, 1, height, width) * 2 - 1)
        assert field.shape == (2, 2, height // BLOCK, width // BLOCK)
        assert bool(torch.isfinite(field).all())
        assert float(field.abs().max()) <= 43


def test_batches_do_not_mix() -> None:
    pairs = [shifted(dx, dy, 64, 96) for dx, dy in ((4, 0), (-8, 6))]
    together = block_motion(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    for n, pair in enumerate(pairs):
        assert torch.equal(together[n : n + 1], block_motion(*pair))


def test_luma_weighs_green_most_and_keeps_grey() -> None:
    grey = torch.full((1, 3, 2, 2), 0.4)
    assert torch.allclose(luma(grey), torch.full((1, 1, 2, 2), 0.4))
    each = [float(luma(torch.eye(3)[c].view(1, 3, 1, 1))) for c in range(3)]
    assert each == pytest.approx([0.299, 0.587, 0.114])
