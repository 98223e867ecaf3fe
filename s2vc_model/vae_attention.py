"""Attention in the VAE's middle block that stays near: time and memory grow with the picture, not with its square.

At 1080p every one of 32,400 positions would look at all of them; at 4K the scores alone would fill 33 GB. Here a block
of positions looks at a window of ``WINDOW`` x ``WINDOW`` around it, 512 x 512 pixels, the size Stable Diffusion's
VAE was trained at. The window is kept inside the picture, so pictures up to that size see all of themselves, as ever,
and so do all crops that we train on: what is trained is what decodes.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

WINDOW = 64
"""Side of what a position sees, in latent cells of 8 pixels."""
BLOCK = 32
"""Side of the blocks of positions that share a window."""


def spans(length: int, window: int = WINDOW, block: int = BLOCK) -> list[tuple[slice, slice]]:
    """(positions, what they see) along one side; a side of at most ``window`` is one span that sees itself."""
    if length <= window:
        return [(slice(0, length), slice(0, length))]
    reach = (window - block) // 2
    starts = ((at, min(max(at - reach, 0), length - window)) for at in range(0, length, block))
    return [(slice(at, min(at + block, length)), slice(seen, seen + window)) for at, seen in starts]


class WindowAttention:
    """A diffusers attention processor for self-attention over pictures (B, C, H, W) with one head."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """See the module; as diffusers' own processor, adds its input at the end."""
        b, c, h, w = hidden_states.shape
        rows = hidden_states.flatten(2)
        if attn.group_norm is not None:
            rows = attn.group_norm(rows)
        rows = rows.transpose(1, 2)
        q, k, v = (layer(rows).view(b, h, w, -1) for layer in (attn.to_q, attn.to_k, attn.to_v))
        out = q.new_empty(q.shape)
        for down, seen_down in spans(h):
            for across, seen_across in spans(w):
                here = q[:, down, across]
                keys, values = (x[:, seen_down, seen_across].flatten(1, 2)[:, None] for x in (k, v))
                seen = F.scaled_dot_product_attention(here.flatten(1, 2)[:, None], keys, values)
                out[:, down, across] = seen.view(here.shape)
        drawn = attn.to_out[0](out.view(b, h * w, -1)).transpose(1, 2).view(b, c, h, w)
        result: Tensor = (hidden_states + drawn) / attn.rescale_output_factor
        return result
