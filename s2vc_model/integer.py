"""Convolutions in exact integer arithmetic, with a float master for training.

Every activation is an integer in [-127, 127] that stands for a sixteenth. Trained in float with rounded activations
(straight-through gradients), a layer is then frozen: weights become integers of at most ten bits with one power-of-two
scale per output channel, chosen as fine as the proof allows that no partial sum can reach 2**24. Integer-valued
float32 convolutions below that bound are exact in any order of summation, hence equal on every device; scaling by a
power of two and rounding half to even are exact too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.errors import WeightsError

ACTIVATION_MAX = 127
"""Largest magnitude of an activation."""
STEPS = 16
"""Activation steps per unit."""
WEIGHT_MAX = 1023
"""Largest magnitude of an integer weight: exact in TF32 as well."""
EXACT_SUM = 1 << 24
"""Integers below this magnitude are exact in float32."""
MAX_SHIFT = 20


def round_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes unchanged."""
    if not torch.is_grad_enabled():
        return x.round()
    return x + (torch.round(x) - x).detach()


def requantise(x: Tensor, low: int = -ACTIVATION_MAX) -> Tensor:
    """Round to an activation in [low, 127]. May reuse ``x``'s memory when no gradient is wanted."""
    if not torch.is_grad_enabled():
        return x.round_().clamp_(low, ACTIVATION_MAX)
    return round_through(x).clamp(low, ACTIVATION_MAX)


def rectify(x: Tensor) -> Tensor:
    """Round to an activation in [0, 127]: ReLU and requantisation in one."""
    return requantise(x, 0)


class IntConv(nn.Module):
    """A same-size convolution over integer activations.

    Its output is in activation steps times ``2**fine``, not yet rounded.
    """

    w_int: Tensor
    b_int: Tensor
    scale: Tensor

    def __init__(self, cin: int, cout: int, kernel: int = 1, gain: float = 1.0, fine: int = 0) -> None:
        super().__init__()
        self.kernel, self.fine = kernel, fine
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) * gain / math.sqrt(cin * kernel**2))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        """Integer-valued (B, cin, H, W) -> (B, cout, H, W)."""
        pad = self.kernel // 2
        if not self.frozen:
            return F.conv2d(x, self.weight, self.bias * STEPS, padding=pad) * (1 << self.fine)
        return F.conv2d(x, self.w_int, self.b_int, padding=pad).mul_(self.scale)

    @torch.no_grad()
    def quantise(self) -> dict[str, Tensor]:
        """The layer as integers: ``weight`` int16, ``bias`` int32, ``shift`` int8 per output channel.

        Raises:
            WeightsError: no scale satisfies the overflow bound (weights not finite, or absurdly large).
        """
        w = self.weight.detach().double().cpu() * 2.0**self.fine
        b = self.bias.detach().double().cpu() * STEPS * 2.0**self.fine
        if not (torch.isfinite(w).all() and torch.isfinite(b).all()):
            raise WeightsError("integer layer: weights are not finite")
        shift = torch.full((w.shape[0],), MAX_SHIFT, dtype=torch.int64)
        for _ in range(2 * MAX_SHIFT):
            step = torch.pow(2.0, shift.double())
            wi = torch.round(w * step[:, None, None, None])
            bi = torch.round(b * step)
            bad = (wi.abs().amax((1, 2, 3)) > WEIGHT_MAX) | (worst_sums(wi, bi) >= EXACT_SUM)
            if not bad.any():
                return {"weight": wi.to(torch.int16), "bias": bi.to(torch.int32), "shift": shift.to(torch.int8)}
            shift = shift - bad.long()
        raise WeightsError("integer layer: weights too large for exact sums")

    @torch.no_grad()
    def load_integers(self, values: dict[str, Tensor]) -> None:
        """Freeze the layer to given integers, after proving that no sum can overflow.

        Raises:
            WeightsError: not integers, shapes differ from the layer's, or the overflow proof fails.
        """
        if any(v.is_floating_point() for v in values.values()):
            raise WeightsError("integer layer: stored values are not integers")
        wi, bi, shift = values["weight"].double(), values["bias"].double(), values["shift"].long()
        if wi.shape != self.weight.shape or bi.shape != self.bias.shape or shift.shape != bi.shape:
            raise WeightsError(f"integer layer: shape {tuple(wi.shape)}, expected {tuple(self.weight.shape)}")
        if bool((worst_sums(wi, bi) >= EXACT_SUM).any()) or bool((wi.abs() > WEIGHT_MAX).any()):
            raise WeightsError("integer layer: a sum could reach 2**24, decoding would not be exact")
        if bool((shift.abs() > MAX_SHIFT).any()):
            raise WeightsError("integer layer: shift out of range")
        step = torch.pow(2.0, -shift.double())
        self.weight.copy_((wi * step[:, None, None, None] * 2.0**-self.fine).to(self.weight))
        self.bias.copy_((bi * step * 2.0**-self.fine / STEPS).to(self.bias))
        dev = self.weight.device
        layout = torch.channels_last
        self.register_buffer("w_int", wi.float().to(dev).contiguous(memory_format=layout), persistent=False)
        self.register_buffer("b_int", bi.float().to(dev), persistent=False)
        self.register_buffer("scale", step.float().to(dev).view(1, -1, 1, 1), persistent=False)
        self.frozen = True


def worst_sums(weight: Tensor, bias: Tensor) -> Tensor:
    """Per output channel, the largest magnitude any partial sum can take over all valid inputs."""
    return weight.double().abs().sum((1, 2, 3)) * ACTIVATION_MAX + bias.double().abs()
