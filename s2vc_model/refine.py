"""A GOP's first picture, coded better than one pass of the encoder does: its latents, moved by gradient descent.

Every later frame builds on the first, so what it keeps is worth more than its own bits, and an archive can wait. The
loss is training's (rate, L1, LPIPS-VGG of the decoded picture at the size that people see), through the decoder as it
is; rounding passes gradients straight through. Steps are Adam's with a large epsilon: latents whose gradients are small
beside the others' stay where they are, where plain Adam would move all alike and pay for it in bits. Of all steps the
one of least loss, with rounded latents' bits, is taken, which may be none.

What comes out is latents for `s2vc_model.latents.encode_frame`: nothing here reaches a probability, and no decoder
knows of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2vc_model.config import QUALITIES
from s2vc_model.errors import ModelError
from s2vc_model.network import S2vcNetwork
from s2vc_model.pictures import resized, sharpened
from s2vc_model.train.losses import Perceptual, rate_weights
from s2vc_model.train.rate import estimate
from s2vc_model.train.recipe import Weights

MAX_STEPS = 64
MAX_PIXELS = 1920 * 1088
"""Pictures of more pixels, as they are coded and padded, are left as they are: gradients take memory."""
STEP = 0.1
"""First step, in quantiser steps, of a latent whose gradient outweighs the others'; it falls to a tenth."""
_HYPER = 0.5
"""Steps of hyper-latents, as a share of that."""
_EPSILON = 3.0
"""What Adam's steps are held small by, in root mean squares of the first gradient."""
_BETAS = (0.9, 0.95)


class Refiner:
    """Moves first pictures' latents.

    Args:
        network: frozen, for inference, with ``small``'s generator.
        steps: 1..64.
        device: where the network is.

    Attributes:
        most_pixels: pictures of more are left as they are.

    Raises:
        ModelError: another generator, whose gradients would take too much memory; or ``steps`` out of range.
        MetricWeightsMissing: the weights of LPIPS-VGG were never fetched.
    """

    def __init__(self, network: S2vcNetwork, steps: int, device: torch.device) -> None:
        if network.config.generator != "small":
            raise ModelError(
                f"first pictures of {network.config.preset} cannot be refined: only those of small"
            )
        if not 1 <= steps <= MAX_STEPS:
            raise ModelError(f"{steps} steps of refining: give 0 for none, or 1 to {MAX_STEPS}")
        self.steps, self.most_pixels = steps, MAX_PIXELS
        self._net, self._weights = network, Weights()
        self._perceptual, self._rates = Perceptual(device), rate_weights(device)

    @torch.inference_mode(False)
    def __call__(
        self, x: Tensor, source: Tensor, size: tuple[int, int], q: Tensor, y: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Better latents for one picture.

        Args:
            x: (1, 3, H, W) in [-1, 1], as it is coded: enlarged, padded.
            source: (1, 3, h, w) in [-1, 1], as it is seen.
            size: height and width of ``x`` without padding.
            q: row of the quality tables (1,).
            y, z: what the encoder makes of ``x``, float32.

        Returns:
            Latents and hyper-latents of the same shapes.
        """
        if x.shape[2] * x.shape[3] > self.most_pixels:
            return y, z
        # Tensors made in inference mode cannot take part in gradients; copies can.
        x, source, q = x.clone(), source.clone(), q.clone()
        scale = self._net.intra_prior.quantiser(q)
        places = [(y.clone() * scale).requires_grad_(), z.clone().requires_grad_()]
        adam = _Adam(places, [STEP, STEP * _HYPER], self.steps)
        least, best = float("inf"), (y, z)
        wanted = self._perceptual.wanted(source)
        worth = self._weights.intra_rate * self._rates[q[0] % QUALITIES] / (size[0] * size[1])
        for step in range(self.steps + 1):
            with torch.set_grad_enabled(step < self.steps):
                latent, soft, bits = self._coded(places[0], scale, places[1], q)
                distortion = self._distortion(latent, x, source, wanted, size)
            loss = float((distortion + worth * bits.sum()).detach())
            if loss < least:
                least, best = loss, (places[0].detach() / scale, places[1].detach().clone())
            if step < self.steps:
                adam.step(torch.autograd.grad(distortion + worth * soft.sum(), places))
        return best

    def _coded(self, target: Tensor, scale: Tensor, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(target.device.type, enabled=False):
            return estimate(self._net.intra_prior, target, scale, z, q)

    def _distortion(
        self, latent: Tensor, x: Tensor, source: Tensor, wanted: list[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Training's loss of the picture that a decoder makes of a latent; ``wanted`` is the source's."""
        w, buffer = self._weights, self._net.intra.synthesis(latent)
        picture, _ = self._net.generator(buffer, None)
        seen = sharpened(picture[:, :, : size[0], : size[1]].float(), self._net.config.sharpen)
        seen = resized(seen, source.shape[2], source.shape[3])
        light = (buffer.picture.float() - x).abs().mean()
        perceptual = self._perceptual.distance(seen, wanted).mean()
        return w.l1 * (seen - source).abs().mean() + w.perceptual * perceptual + w.light * light


class _Adam:
    """Adam with an epsilon that is measured by the first gradients, and steps that fall to a tenth."""

    def __init__(self, values: list[Tensor], rates: list[float], steps: int) -> None:
        self._values, self._rates, self._steps = values, rates, steps
        self._mean = [torch.zeros_like(value) for value in values]
        self._square = [torch.zeros_like(value) for value in values]
        self._least: list[Tensor] = []
        self._taken = 0

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        """Move the values against ``gradients``."""
        if not self._least:
            self._least = [_EPSILON * gradient.square().mean().sqrt() for gradient in gradients]
        falling = 1 - 0.9 * self._taken / self._steps
        self._taken += 1
        slow, fast = (1 - beta**self._taken for beta in _BETAS)
        parts = zip(self._values, gradients, self._mean, self._square, self._rates, self._least, strict=True)
        for value, gradient, mean, square, rate, least in parts:
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.lerp_(gradient.square(), 1 - _BETAS[1])
            value -= rate * falling * (mean / slow) / ((square / fast).sqrt() + least)
