"""Codec presets as one frozen dataclass. Knows no networks and no files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

QUALITIES = 64
"""Quality indexes run 0 (smallest) .. 63 (best)."""
QUARTERS = 4
"""Steps from one quality index to the next that a GOP can be coded at."""


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """Widths and choices of one codec. Scales are relative to the frame: features 1/8, latents 1/16, hyper 1/64."""

    preset: str = "small"
    feature: int = 128
    """Channels of the 1/8-scale feature ``f``."""
    middle: int = 192
    """Channels of the transforms' 1/16-scale trunk."""
    latent: int = 128
    """Channels of the coded latent ``y``."""
    hyper: int = 32
    """Channels of the coded hyper-latent ``z``."""
    prior: int = 128
    """Channels of the integer prior networks and of the temporal prior's state."""
    quality_knots: int = 8
    """Learned points per channel of the quality scale; the 64 indexes interpolate between them."""
    generator: str = "small"
    """``small`` (our one-step U-Net and pixel decoder) or ``sd`` (diffusers' U-Net and VAE)."""
    tokens: int = 192
    """Width of the Contextual Semantic Guidance tokens (the U-Net's cross-attention width)."""
    unet: tuple[int, int, int] = (128, 192, 256)
    """Channels of the small U-Net at 1/8, 1/16 and 1/32."""
    sample: int = 128
    """Channels of the one-step diffusion sample x_T / x_0 at 1/8."""
    decoder: tuple[int, int] = (64, 32)
    """Channels of the small generator's pixel decoder at 1/4 and 1/2."""
    decoder_blocks: tuple[int, int] = (2, 1)
    """Its residual blocks at these scales."""
    timestep: int = 249
    """The one diffusion timestep, an index into the scheduler's 1000 alphas."""
    pixel_features: int = 0
    """Channels of ``f_pix`` that enter the U-Net; 0 means ``feature``."""
    sd_scale: str = "full"
    """Depth and VAE widths of the ``sd`` generator: ``full`` (Stable Diffusion's) or ``tiny`` (for tests)."""
    lora_rank: int = 0
    """Rank of the ``sd`` U-Net's two adapters, for intra and for inter frames; 0: none, all of the U-Net is trained."""
    sharpen: float = 0.0
    """How much decoded pictures are sharpened before anybody sees them (`pictures.sharpened`); frames to come do not
    build on it."""

    def __post_init__(self) -> None:
        if self.latent % 2:
            raise ValueError(f"latent channels must be even for the two-pass prior, got {self.latent}")
        if not 0 <= self.timestep < 1000:
            raise ValueError(f"timestep must be 0..999, got {self.timestep}")
        if self.generator not in ("small", "sd"):
            raise ValueError(f"generator must be 'small' or 'sd', got {self.generator!r}")
        if self.sd_scale not in ("full", "tiny"):
            raise ValueError(f"sd_scale must be 'full' or 'tiny', got {self.sd_scale!r}")
        if self.lora_rank < 0 or (self.lora_rank and self.generator != "sd"):
            raise ValueError(f"lora_rank must be 0 or, for the 'sd' generator, more; got {self.lora_rank}")
        if not 0 <= self.sharpen <= 2:
            raise ValueError(f"sharpen must be 0..2, got {self.sharpen}")
        if self.quality_knots < 2:
            raise ValueError("quality_knots must be at least 2")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Inverse of :meth:`to_dict`. Unknown keys raise ``TypeError``; absent ones have their defaults."""
        as_stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**as_stored)


PRESETS: dict[str, CodecConfig] = {
    "small": CodecConfig(),
    "small-wide": CodecConfig(preset="small-wide", decoder=(96, 48), decoder_blocks=(2, 2)),
    "sd15": CodecConfig(
        preset="sd15",
        feature=384,
        middle=384,
        latent=256,
        hyper=128,
        prior=256,
        generator="sd",
        tokens=768,
        unet=(320, 640, 1280),
        sample=4,
        timestep=999,
        pixel_features=320,
        lora_rank=64,
    ),
    "sd-tiny": CodecConfig(
        preset="sd-tiny",
        feature=16,
        middle=24,
        latent=16,
        hyper=8,
        prior=16,
        generator="sd",
        tokens=24,
        unet=(16, 24, 32),
        sample=4,
        timestep=999,
        pixel_features=20,
        sd_scale="tiny",
        lora_rank=4,
    ),
}
"""``small`` is ours and shipped; ``small-wide`` has more at 1/4 and 1/2 scale, and no weights yet; ``sd15`` is the
paper's scale; ``sd-tiny`` has its structure, for tests."""
