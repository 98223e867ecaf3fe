"""The integer prior: what every symbol's distribution is computed from.

    z ── hyper decoder ──┐
    state ───────────────┼─ fusion ─ (mean, scale) of pass 0 ─ y0 ─ spatial ─ (mean, scale) of pass 1
    q (table) ───────────┘     └──────────── hidden ──────────────────┘
    state' = advance(y, state)

Pass 0 holds the first half of the channels on the even squares of a checkerboard and the second half on the odd ones;
pass 1 the rest. The temporal prior is ``state``: integers carried from frame to frame, updated from each frame's
decoded integer latents only. Means are fixed-point, scales are indexes into 64 integer CDF tables, and the quality
index enters through integer tables, so no float value ever decides a probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from s2vc_model.config import QUALITIES, QUARTERS, CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.integer import ACTIVATION_MAX, STEPS, IntConv, rectify, requantise, round_through
from s2vc_model.layers import RELU_GAIN, pixel_shuffle

SCALES = 64
"""Number of scale indexes. Index i is a Laplace of scale 2**(i/6 - 4.5) quantiser steps."""
PER_OCTAVE = 6
OCTAVE_ZERO = 4.5
SKIP_BELOW = 5
"""Symbols whose scale index is below this are certain zeros and are not coded."""
FINE = 4
"""Extra bits of the prior's outputs: means and log2 scales come in 1/256."""
RESIDUAL_MAX = 1000
"""Largest coded residual in quantiser steps."""
_MEAN_MAX = 2047
_LATENT_MAX = 16383
_UNIT = 64 * 512
"""A scale times its reciprocal, both as the tables have them."""


@dataclass(frozen=True, slots=True)
class QualityTables:
    """Integers per quality and latent channel, all (255, Y) or (255, 2P) float32 holding integers.

    Rows 0..63 are those of the quality indexes, as weights store them. Row 64 f + q lies f quarters of the way from q
    to q + 1, for q up to 62. ``scale`` is the quantiser scale in 1/64, ``inverse`` its reciprocal in 1/512, ``offset``
    its place on the scale grid in 1/256 of an index, ``bias`` the quality's offset to the fusion's hidden units.
    """

    scale: Tensor
    inverse: Tensor
    offset: Tensor
    bias: Tensor


def checkerboard(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """(1, channels, height, width) bool: True where pass 0 codes."""
    even = (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)) % 2 == 0
    half = torch.arange(channels, device=device) < channels // 2
    return (even[None] == half[:, None, None])[None]


def quality_weights(knots: int) -> Tensor:
    """(64, knots) rows that interpolate linearly between ``knots`` points."""
    at = torch.arange(QUALITIES, dtype=torch.float64) / (QUALITIES - 1) * (knots - 1)
    return (1 - (at[:, None] - torch.arange(knots)).abs()).clamp_min(0).float()


def _with_quarters(rows: Tensor) -> Tensor:
    """(64, N) integers -> (255, N): those of the quarters between them too, rounded down after a half is added."""
    low, high = rows[:-1].long(), rows[1:].long()
    parts = [(low * (QUARTERS - f) + high * f + QUARTERS // 2) // QUARTERS for f in range(1, QUARTERS)]
    # Quarters of each f begin at a multiple of 64; the row between two of them belongs to no quality.
    gap = rows[-1:].long()
    return torch.cat([rows.long(), *(part for p in parts for part in (p, gap))][:-1])


class Prior(nn.Module):
    """The integer networks of one frame type, and the quality scales of its latents.

    Args:
        config: widths.
        temporal: whether a state from the previous frame exists (inter) or not (intra).
    """

    quality_rows: Tensor

    def __init__(self, config: CodecConfig, temporal: bool) -> None:
        super().__init__()
        y, z, p = config.latent, config.hyper, config.prior
        self.latent, self.temporal = y, temporal
        self.h_in = IntConv(z, p, gain=RELU_GAIN)
        self.h_up1, self.h_up2 = IntConv(p, 4 * p), IntConv(p, 4 * p)
        self.h_a1, self.h_b1 = IntConv(p, p, 3, RELU_GAIN), IntConv(p, p, gain=0.3)
        self.h_a2, self.h_b2 = IntConv(p, p, 3, RELU_GAIN), IntConv(p, p, gain=0.3)
        self.t_a = IntConv(y + (p if temporal else 0), p, 3, RELU_GAIN)
        self.t_b = IntConv(p, p, gain=RELU_GAIN)
        self.f_a = IntConv(2 * p if temporal else p, 2 * p, gain=RELU_GAIN)
        self.f_b = IntConv(2 * p, 2 * p, gain=RELU_GAIN)
        self.f_out = IntConv(2 * p, 2 * y, gain=0.1, fine=FINE)
        self.s_a = IntConv(y, p, 3, RELU_GAIN)
        self.s_b = IntConv(3 * p, 2 * p, gain=RELU_GAIN)
        self.s_out = IntConv(2 * p, 2 * y, gain=0.1, fine=FINE)
        start = torch.linspace(math.log(1.0), math.log(10.0), config.quality_knots)
        self.log_scale = nn.Parameter(start[:, None].repeat(1, y))
        self.quality_bias = nn.Parameter(torch.zeros(config.quality_knots, 2 * p))
        self.z_mean = nn.Parameter(torch.zeros(z))
        self.z_log_scale = nn.Parameter(torch.zeros(z))
        self.register_buffer("quality_rows", quality_weights(config.quality_knots), persistent=False)
        self.tables: QualityTables | None = None

    def scales(self, q: Tensor) -> Tensor:
        """Learned quantiser scale of q (B,) as (B, Y, 1, 1) floats, for training."""
        return torch.exp(self._between_knots(self.log_scale, q))[:, :, None, None]

    def _between_knots(self, knots: Tensor, q: Tensor) -> Tensor:
        # Not a matrix product: autocast would round it to bf16.
        return (self.quality_rows[q][:, :, None] * knots).sum(1)

    def bias_of(self, q: Tensor) -> Tensor:
        """The quality's offset to the hidden units, (B, 2P, 1, 1) in activation steps."""
        if self.tables is not None:
            return self.tables.bias[q][:, :, None, None]
        return self._between_knots(self.quality_bias, q)[:, :, None, None] * STEPS

    def hyper(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Integer hyper-latents (B, Z, h, w) -> activations (B, P, *size), at most 4h x 4w."""
        h = rectify(self.h_in(requantise(z * STEPS)))
        h = requantise(pixel_shuffle(self.h_up1(h), 2))
        h = requantise(h + round_through(self.h_b1(rectify(self.h_a1(h)))))
        h = requantise(pixel_shuffle(self.h_up2(h), 2))
        h = h + round_through(self.h_b2(rectify(self.h_a2(h))))
        return requantise(h[:, :, : size[0], : size[1]])

    def first(self, hyper: Tensor, state: Tensor | None, q: Tensor) -> tuple[Tensor, Tensor]:
        """Pass 0: (hidden activations (B, 2P, ...), raw means and log2 scales (B, 2Y, ...) in 1/256)."""
        seen = hyper if state is None else torch.cat((hyper, state), 1)
        hidden = (round_through(self.f_a(seen)) + self.bias_of(q).to(seen.dtype)).clamp(0, ACTIVATION_MAX)
        hidden = rectify(self.f_b(hidden))
        return hidden, self.f_out(hidden)

    def second(self, half: Tensor, hidden: Tensor) -> Tensor:
        """Pass 1, given pass 0's latents as activations (zero elsewhere): raw means and log2 scales."""
        seen = torch.cat((rectify(self.s_a(half)), hidden), 1)
        raw: Tensor = self.s_out(rectify(self.s_b(seen)))
        return raw

    def advance(self, y: Tensor, state: Tensor | None) -> Tensor:
        """The temporal prior's next state (B, P, ...) from this frame's latents as activations."""
        seen = y if state is None else torch.cat((y, state), 1)
        return rectify(self.t_b(rectify(self.t_a(seen))))

    def distribution(self, raw: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen only. Raw outputs -> (means in 1/16 quantiser step, scale indexes 0..63), integers."""
        tables = self._frozen()
        mean = torch.round(raw[:, : self.latent]).clamp(-_MEAN_MAX, _MEAN_MAX)
        mean = torch.round(mean * tables.scale[q][:, :, None, None] * 2.0**-10)
        octaves = torch.round(raw[:, self.latent :]).clamp(-8191, 8191)
        index = octaves * PER_OCTAVE + tables.offset[q][:, :, None, None]
        return mean, torch.round(index * 2.0**-8).clamp(0, SCALES - 1)

    def to_activation(self, fixed: Tensor, q: Tensor) -> Tensor:
        """Frozen only. Latents in 1/16 quantiser step -> activations (1/16 of the latent's own unit)."""
        inverse = self._frozen().inverse[q][:, :, None, None]
        return torch.round(fixed.clamp(-_LATENT_MAX, _LATENT_MAX) * inverse * 2.0**-9).clamp(
            -ACTIVATION_MAX, ACTIVATION_MAX
        )

    def quantiser(self, q: Tensor) -> Tensor:
        """Frozen only. Quantiser scale (B, Y, 1, 1) as floats: latents are multiplied by it before rounding."""
        return self._frozen().scale[q][:, :, None, None] * (1 / 64)

    def _frozen(self) -> QualityTables:
        if self.tables is None:
            raise WeightsError("the prior has no integer tables yet: freeze it first")
        return self.tables

    def layers(self) -> dict[str, IntConv]:
        """The integer layers by name."""
        return {name: m for name, m in self.named_modules() if isinstance(m, IntConv)}

    @torch.no_grad()
    def quantise(self) -> dict[str, Tensor]:
        """All integers that define the prior, by name: what the weights file stores."""
        out = {f"{n}.{k}": v for n, m in self.layers().items() for k, v in m.quantise().items()}
        rows = self.quality_rows.double().cpu()
        scale = torch.exp(rows @ self.log_scale.double().cpu())
        scale = torch.round(scale * 64).clamp(32, 4095)
        out["table.scale"] = scale.to(torch.int32)
        out["table.inverse"] = torch.round(_UNIT / scale).to(torch.int32)
        grid = 256 * PER_OCTAVE * (torch.log2(scale / 64) + OCTAVE_ZERO)
        out["table.offset"] = torch.round(grid).to(torch.int32)
        bias = torch.round(rows @ self.quality_bias.double().cpu() * STEPS)
        out["table.bias"] = bias.clamp(-1024, 1024).to(torch.int32)
        return out

    @torch.no_grad()
    def load_integers(self, values: dict[str, Tensor]) -> None:
        """Freeze to stored integers; every overflow bound is proved here.

        Raises:
            WeightsError: a tensor is missing, has another shape, or fails its proof.
        """
        device = self.log_scale.device
        try:
            for name, layer in self.layers().items():
                layer.load_integers({k: values[f"{name}.{k}"] for k in ("weight", "bias", "shift")})
            raw = {k: values[f"table.{k}"] for k in ("scale", "inverse", "offset", "bias")}
        except KeyError as error:
            raise WeightsError(f"the weights lack the integer tensor {error}") from error
        bounds = {"scale": (32, 4095), "inverse": (1, 1024), "offset": (-(2**16), 2**16), "bias": (-1024, 1024)}
        for name, (low, high) in bounds.items():
            width = self.quality_bias.shape[1] if name == "bias" else self.latent
            if raw[name].shape != (QUALITIES, width) or raw[name].is_floating_point():
                raise WeightsError(f"quality table {name!r} is not {QUALITIES} x {width} integers")
            if bool((raw[name] < low).any()) or bool((raw[name] > high).any()):
                raise WeightsError(f"quality table {name!r} leaves {low}..{high}")
        scale = _with_quarters(raw["scale"])
        between = (2 * _UNIT + scale[QUALITIES:]) // (2 * scale[QUALITIES:])
        inverse = torch.cat((raw["inverse"].long(), between))
        rows = {"scale": scale, "inverse": inverse} | {k: _with_quarters(raw[k]) for k in ("offset", "bias")}
        self.tables = QualityTables(**{k: v.float().to(device) for k, v in rows.items()})

    def thaw(self) -> None:
        """Back to trainable float masters, which equal the integers divided by their scales."""
        self.tables = None
        for layer in self.layers().values():
            layer.frozen = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        module: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.tables is not None:
            t = self.tables
            self.tables = QualityTables(fn(t.scale), fn(t.inverse), fn(t.offset), fn(t.bias))
        return module
