"""Two LoRA adapters in one U-Net, one for a GOP's first frame and one for the others, by peft.

The choice must not be a switch on the module: calls in other threads would see it flipped, and a training step runs
both kinds before its backward pass. So each kind has a U-Net of its own that shares every tensor with the other: in
training all of them, each reading its own adapter; fused for inference all but the adapted projections. Choosing is
then choosing which to call. At Stable Diffusion 1.5's size the second set of projections is 93.5 million weights
beside 860, 187 MB in bf16; the two adapters themselves, unfused, are 25.5 million.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

KINDS = ("intra", "inter")
"""The adapters' names: a GOP's first frame, and all later ones."""
PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
"""The attention layers that are adapted."""


def add_adapters(unet: UNet2DConditionModel, rank: int) -> None:
    """Give ``unet`` both adapters, which change nothing until trained, and freeze what they adapt."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two adapters are meant
        for kind in KINDS:
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS)
            unet.add_adapter(config, adapter_name=kind)
    freeze_adapted(unet)


def freeze_adapted(unet: UNet2DConditionModel) -> None:
    """Leave both adapters and the first convolution, which reads f_pix, to be trained, and nothing else."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("conv_in."))


def reading(unet: UNet2DConditionModel, kind: str) -> UNet2DConditionModel:
    """The same U-Net, every tensor shared, whose projections read the adapter ``kind``."""
    twin = _twin(unet)
    for layer in _adapted(twin).values():
        # peft's own setter would freeze the other adapter, whose tensors are the same objects.
        layer._active_adapter = [kind]
    return twin


def fused(unet: UNet2DConditionModel, kind: str) -> UNet2DConditionModel:
    """A plain U-Net with the adapter ``kind`` in its weights; all but the adapted projections are shared."""
    twin: Any = _twin(unet)
    for name, layer in _adapted(twin).items():
        base: Any = layer.get_base_layer()
        plain: Any = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
        plain.weight = nn.Parameter(base.weight.detach() + layer.get_delta_weight(kind), requires_grad=False)
        plain.bias = base.bias
        twin.set_submodule(name, plain)
    twin.peft_config = {}
    twin._hf_peft_config_loaded = False
    plain_unet: UNet2DConditionModel = twin
    return plain_unet


def _adapted(unet: UNet2DConditionModel) -> dict[str, Any]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, LoraLinear)}


def _twin(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the modules around the very same tensors."""
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    return copy.deepcopy(unet, shared)
