"""An adversary of the generator: judges pairs of consecutive frames, patch by patch, as real or decoded.

Hinge losses with spectral normalisation (Miyato et al., ICLR 2018). It sees a frame and its change, so texture that
flickers gives the decoder away as well as texture that lacks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from s2vc_model.layers import conv, pixel_unshuffle
from s2vc_model.train.ranks import Ranks

LR = 2e-4


class Adversary(nn.Module):
    """The judge and its optimiser. Costs about a fifth of what the generator does.

    Args:
        device: where it lives.
        widths: channels at 1/2, 1/4 and 1/8.
    """

    def __init__(self, device: torch.device, widths: tuple[int, int, int] = (48, 96, 128)) -> None:
        super().__init__()
        inputs = (6, *widths[:-1])
        self.scales = nn.ModuleList(
            spectral_norm(conv(4 * before, width, 3)) for before, width in zip(inputs, widths, strict=True)
        )
        self.verdict = spectral_norm(conv(widths[-1], 1, 3))
        self.to(device)
        self.adam = torch.optim.AdamW(self.parameters(), lr=LR, betas=(0.5, 0.99), weight_decay=0.0)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) in about [-1, 1], T >= 2 -> scores (B * (T - 1), 1, H/8, W/8), high for real."""
        later, change = frames[:, 1:], frames[:, 1:] - frames[:, :-1]
        h = torch.cat((later, change), 2).flatten(0, 1)
        for scale in self.scales:
            h = F.leaky_relu(scale(pixel_unshuffle(h, 2)), 0.1)
        scores: Tensor = self.verdict(h)
        return scores

    def deceived(self, decoded: Tensor) -> Tensor:
        """The generator's loss: falls as decoded frames (B, T, 3, H, W) look more real."""
        loss: Tensor = -self(decoded).mean()
        return loss

    def learn(self, decoded: Tensor, real: Tensor, ranks: Ranks) -> Tensor:
        """One step of its own on frames (B, T, 3, H, W) each; returns its loss, 2 where it knows nothing."""
        self.adam.zero_grad(set_to_none=True)
        loss = F.relu(1 - self(real)).mean() + F.relu(1 + self(decoded.detach())).mean()
        loss.backward()
        ranks.average([p.grad for p in self.parameters() if p.grad is not None])
        self.adam.step()
        return loss.detach()
