"""``sd15``'s generator: Stable Diffusion's U-Net for one step and its VAE decoder, diffusers' own classes.

    f ── conv ─ f_pix ─┬─ head ──────────────── x_T ──┐
    f ── semantic head │ tokens ─┐                    ├─ x̂0 = (x_T − σ ε) / α ─ VAE decoder ─ x̂
                       └───── U-Net, TCG ─────── ε ───┘

Same seam as ``small``'s (:class:`s2vc_model.generator.Generator`). Weights come from local diffusers folders,
or are random with the same architecture; nothing here reaches for a network.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn

from s2vc_model.config import CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.generator import SemanticHead, align, one_step_alphas
from s2vc_model.layers import conv
from s2vc_model.sd_guidance import GuidedUNet
from s2vc_model.state import DiffusionBuffer, FeatureBuffer
from s2vc_model.vae_attention import WindowAttention
from s2vc_model.vae_tiles import decode, share_norms


@dataclass(frozen=True, slots=True)
class _Scale:
    layers: int
    groups: int
    vae: tuple[int, int, int, int]


_HEADS, _SCALING = 8, 0.18215
_SCALES = {
    "full": _Scale(layers=2, groups=32, vae=(128, 256, 512, 512)),
    "tiny": _Scale(layers=1, groups=8, vae=(16, 16, 32, 32)),
}


class SdGenerator(nn.Module):
    """One-step Stable Diffusion behind the generator seam.

    Args:
        config: its ``sample``, ``tokens`` and ``pixel_features`` must fit ``unet`` and ``vae``.
        unet: predicts ε from f_pix and tokens.
        vae: only its decoder is kept.
    """

    def __init__(self, config: CodecConfig, unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
        super().__init__()
        pixels = _pixel_features(config)
        self.semantic = SemanticHead(config.feature, config.tokens)
        self.pixels = conv(config.feature, pixels, 3)
        self.head = conv(pixels, config.sample, 3)
        self.guided = GuidedUNet(unet, config.lora_rank)
        self.vae = _decoder_only(vae)
        self.native: torch.dtype | None = None
        self.scaling: float = dict(vae.config)["scaling_factor"]
        self.alpha, self.sigma = one_step_alphas(config.timestep)
        self.timestep: Tensor
        # A tensor, so that a call copies nothing from the host and can be captured as a CUDA graph.
        self.register_buffer("timestep", torch.tensor([config.timestep]), persistent=False)

    @classmethod
    def from_scratch(cls, config: CodecConfig) -> SdGenerator:
        """Random weights; widths from ``config.unet``, the rest from ``config.sd_scale``."""
        return cls(config, scratch_unet(config), scratch_vae(config))

    @classmethod
    def from_diffusers(cls, config: CodecConfig, unet_dir: Path, vae_dir: Path) -> SdGenerator:
        """Pretrained U-Net and VAE from local diffusers folders (``config.json`` and safetensors).

        The U-Net's first convolution is replaced by a fresh one that reads f_pix; the rest is kept.

        Raises:
            WeightsError: a folder is missing, damaged, of another class, or does not fit ``config``.
        """
        unet, vae = _load(UNet2DConditionModel, unet_dir), _load(AutoencoderKL, vae_dir)
        _require(unet_dir, unet, "cross_attention_dim", config.tokens)
        _require(unet_dir, unet, "out_channels", config.sample)
        _require(unet_dir, unet, "block_out_channels", list(_unet_widths(config)))
        _require(unet_dir, unet, "down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
        scale = _SCALES[config.sd_scale]
        for folder, model in ((unet_dir, unet), (vae_dir, vae)):
            _require(folder, model, "layers_per_block", scale.layers)
            _require(folder, model, "norm_num_groups", scale.groups)
        _require(unet_dir, unet, "attention_head_dim", _HEADS)
        _require(vae_dir, vae, "latent_channels", config.sample)
        _require(vae_dir, vae, "block_out_channels", list(scale.vae))
        _require(vae_dir, vae, "scaling_factor", _SCALING)
        pixels = _pixel_features(config)
        unet.conv_in = conv(pixels, config.unet[0], 3)
        unet.register_to_config(in_channels=pixels)
        return cls(config, unet, vae)

    def forward(
        self, buffer: FeatureBuffer, before: DiffusionBuffer | None
    ) -> tuple[Tensor, DiffusionBuffer]:
        """See :class:`s2vc_model.generator.Generator`."""
        feature = buffer.feature
        if self.native is not None:
            feature = feature.to(self.native)
        # Weights that are half already need no casts; others leave the choice to the caller's autocast.
        with torch.autocast(feature.device.type, enabled=False) if self.native else nullcontext():
            f = self.pixels(feature)
            features = None if before is None else align(before, buffer.flow)[0]
            epsilon, kept = self.guided(f, self.timestep, self.semantic(feature), features)
            latent = self.x0(self.head(f), epsilon) / self.scaling
            picture = decode(self.vae, latent.to(epsilon.dtype))
        return picture, DiffusionBuffer(kept, picture)

    def x0(self, x_t: Tensor, epsilon: Tensor) -> Tensor:
        """x̂0 = (x_T − σ ε) / α, in float32 because 1/α, large at late timesteps, multiplies any rounding."""
        return (x_t.float() - self.sigma * epsilon.float()) / self.alpha

    def for_inference(self, dtype: torch.dtype | None = None) -> None:
        """Fold the adapters into the weights, and keep all weights in ``dtype``; ``None``: float32, for autocast.

        What results is for decoding: it cannot be trained or saved.
        """
        if self.guided.adapted:
            self.guided.fuse()
        if dtype is not None:
            self.to(dtype)
            self.native = dtype

    def freeze_adapted(self) -> None:
        """Leave what is trained beside adapters: them, the first convolution, heads, fusions and the VAE."""
        if self.guided.adapted:
            self.guided.freeze_adapted()


def scratch_unet(config: CodecConfig) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's U-Net, reading f_pix, with random weights."""
    scale = _SCALES[config.sd_scale]
    unet: UNet2DConditionModel = UNet2DConditionModel(
        in_channels=_pixel_features(config),
        out_channels=config.sample,
        block_out_channels=_unet_widths(config),
        layers_per_block=scale.layers,
        norm_num_groups=scale.groups,
        cross_attention_dim=config.tokens,
        attention_head_dim=_HEADS,
    )
    return unet


def scratch_vae(config: CodecConfig) -> AutoencoderKL:
    """Stable Diffusion 2.1's VAE with random weights."""
    scale = _SCALES[config.sd_scale]
    levels = len(scale.vae)
    vae: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=scale.vae,
        layers_per_block=scale.layers,
        latent_channels=config.sample,
        norm_num_groups=scale.groups,
        scaling_factor=_SCALING,
    )
    return vae


def _unet_widths(config: CodecConfig) -> tuple[int, ...]:
    return (*config.unet, config.unet[-1])


def _pixel_features(config: CodecConfig) -> int:
    return config.pixel_features or config.feature


def _decoder_only(vae: AutoencoderKL) -> AutoencoderKL:
    """Drop the encoder's 34 million weights, and let the decoder bound its memory."""
    del vae.encoder
    vae.quant_conv = None
    middle: Any = vae.decoder.mid_block
    middle.attentions[0].set_processor(WindowAttention())
    share_norms(vae.decoder)
    return vae


def _require(folder: Path, model: ModelMixin, name: str, wanted: Any) -> None:
    found = dict(model.config)[name]
    found = list(found) if isinstance(found, tuple) else found
    if found != wanted:
        raise WeightsError(f"{folder} has {name} {found}, but the codec's configuration wants {wanted}")


def _load(kind: Any, folder: Path) -> Any:
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
        if name != kind.__name__:
            raise WeightsError(f"{folder} holds a {name}, not a {kind.__name__}")
        half = not list(folder.glob("diffusion_pytorch_model.safetensors*"))
        model, report = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            variant="fp16" if half and list(folder.glob("*.fp16.*safetensors*")) else None,
        )
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise WeightsError(f"{folder} is no usable diffusers folder of a {kind.__name__}: {error}") from error
    # diffusers itself would go on with random values for these.
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise WeightsError(f"{folder} lacks {len(lacking)} weights of a {kind.__name__}: {lacking[:3]}")
    return model.float()
