"""The semantic teacher is the published network, its absence an error that says what to do, and tokens follow it."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from s2vc_model.errors import TrainingError
from s2vc_model.train import teacher
from s2vc_model.train.teacher import (
    BLOCKS,
    HALVING,
    PACKAGE,
    EfficientNetLite2,
    SemanticLoss,
    installed_weights,
)

CPU = torch.device("cpu")
SEEN, SPREAD = [-1.1121, 2.3859, -1.0462, 3.6031], 2.4400
"""Of efficientnet_lite_pytorch 0.1.0, with the same file, at the size it pads for."""
INSTALLED = find_spec(PACKAGE) is not None


def small_tensors(width: int = 4) -> dict[str, Tensor]:
    """The file's layout in few channels: every block but the first expands."""
    torch.manual_seed(3)
    found: dict[str, Tensor] = {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        found[f"{conv}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
        found[f"{norm}.weight"], found[f"{norm}.running_var"] = torch.rand(2, outputs) + 0.5
        found[f"{norm}.bias"], found[f"{norm}.running_mean"] = 0.3 * torch.randn(2, outputs)

    add("_conv_stem", "_bn0", width, 3, 3)
    for index in range(BLOCKS):
        name = f"_blocks.{index}."
        inner = width if index == 0 else 2 * width
        if index:
            add(f"{name}_expand_conv", f"{name}_bn0", inner, width, 1)
        add(f"{name}_depthwise_conv", f"{name}_bn1", inner, 1, 5 if index % 3 else 3)
        add(f"{name}_project_conv", f"{name}_bn2", width, inner, 1)
    return found


def plainly(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same network without folding, for sides that stay even while they are halved."""

    def layer(x: Tensor, conv: str, norm: str, halve: bool = False) -> Tensor:
        weight = tensors[f"{conv}.weight"]
        kernel, groups = weight.shape[2], x.shape[1] // weight.shape[1]
        around = kernel - (2 if halve else 1)
        x = F.pad(x, (around // 2, around - around // 2) * 2)
        x = F.conv2d(x, weight, stride=2 if halve else 1, groups=groups)
        of = [tensors[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *of, eps=1e-3)

    x = layer(x, "_conv_stem", "_bn0", halve=True).clamp(0, 6)
    for index in range(BLOCKS):
        name, before = f"_blocks.{index}.", x
        if index:
            x = layer(x, f"{name}_expand_conv", f"{name}_bn0").clamp(0, 6)
        x = layer(x, f"{name}_depthwise_conv", f"{name}_bn1", halve=index in HALVING).clamp(0, 6)
        x = layer(x, f"{name}_project_conv", f"{name}_bn2")
        x = x + before if x.shape == before.shape else x
    return x


def test_folding_and_padding_change_nothing() -> None:
    tensors = small_tensors()
    x = torch.rand(2, 3, 64, 128) * 2 - 1
    got = EfficientNetLite2(tensors)(x)
    assert got.shape == (2, 4, 2, 4)
    torch.testing.assert_close(got, plainly(tensors, x), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not INSTALLED, reason="the teacher's package is not installed")
def test_the_installed_teacher_sees_what_its_authors_code_sees() -> None:
    r = torch.arange(260.0)
    waves = torch.sin(r / 9)[:, None] * torch.cos(r / 7)
    x = torch.stack((waves, torch.cos(r / 5).expand(260, 260), torch.sin(r / 31)[:, None].expand(260, 260)))
    got = EfficientNetLite2(installed_weights())(x[None])
    assert got.shape == (1, 352, 9, 9)
    assert got[0, :4, 4, 4].tolist() == pytest.approx(SEEN, rel=1e-3, abs=1e-3)
    assert float(got.std()) == pytest.approx(SPREAD, rel=1e-3)


def test_its_absence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(teacher, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"pip install efficientnet-lite2.*semantic=0"):
        SemanticLoss(16, CPU)
    (tmp_path / "models").mkdir()
    (tmp_path / teacher.FILE).write_bytes(b"another")
    there = ModuleSpec(PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(teacher, "find_spec", lambda name: there)
    with pytest.raises(TrainingError, match="not the pinned teacher"):
        SemanticLoss(16, CPU)


def test_tokens_learn_what_the_teacher_sees() -> None:
    loss = SemanticLoss(6, CPU, EfficientNetLite2(small_tensors()))
    torch.manual_seed(0)
    x = (torch.rand(4, 3, 1, 1) * 2 - 1).expand(4, 3, 128, 64)
    tokens = torch.randn(4, 2, 6, requires_grad=True)
    frozen = loss.trunk.stem.weight.clone()
    start = float(loss(tokens, x).detach())
    adam = torch.optim.Adam([tokens, *loss.reading.parameters()], 0.05)
    for _ in range(60):
        adam.zero_grad()
        loss(tokens, x).backward()
        adam.step()
    end = float(loss(tokens, x).detach())
    assert 0.6 < start < 1.5
    assert end < 0.3
    assert float(loss(tokens.detach().flip(1), x).detach()) > end + 0.3
    assert torch.equal(loss.trunk.stem.weight, frozen)
    assert not any(p.requires_grad for p in loss.trunk.parameters())
