"""Training checkpoints: float masters in half precision, safetensors, resumable by any later run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from s2vc_model.config import CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.network import S2vcNetwork

_SMALL = 8192
_COMPANION = "companion."


def save_checkpoint(
    path: Path,
    config: CodecConfig,
    tensors: dict[str, Tensor],
    note: dict[str, object],
    companions: dict[str, Tensor] | None = None,
) -> None:
    """Write averaged tensors: fp16, but fp32 for small ones (biases, quality scales), with the config inside.

    ``companions`` are tensors that only training needs; weights made of the checkpoint lack them.

    A file that is there stays whole until the new one is on the disk.
    """
    tensors = tensors | {_COMPANION + k: v for k, v in (companions or {}).items()}
    kept = {
        k: v.detach().to("cpu", torch.float32 if v.numel() <= _SMALL else torch.float16).contiguous()
        for k, v in tensors.items()
    }
    meta = {"config": json.dumps(config.to_dict()), "note": json.dumps(note)}
    temporary = path.with_suffix(".tmp")
    save_file(kept, str(temporary), metadata=meta)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> S2vcNetwork:
    """A float network on the CPU from a checkpoint.

    Raises:
        WeightsError: not a checkpoint, or not of this code's networks.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            config = CodecConfig.from_dict(json.loads(file.metadata()["config"]))
            names = [k for k in file.keys() if not k.startswith(_COMPANION)]  # noqa: SIM118
            tensors = {k: file.get_tensor(k).float() for k in names}
        net = S2vcNetwork(config)
        missing, unexpected = net.load_state_dict(tensors, strict=False)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        # torch reports tensors of another shape as a RuntimeError.
        raise WeightsError(f"{path} is not a training checkpoint: {error}") from error
    if missing or unexpected:
        raise WeightsError(f"{path} does not fit these networks: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return net


def checkpoint_note(path: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` was told about a checkpoint that :func:`load_checkpoint` has read."""
    with safe_open(str(path), framework="pt") as file:
        note: dict[str, Any] = json.loads(file.metadata()["note"])
    return note


def checkpoint_companions(path: Path) -> dict[str, Tensor]:
    """The companions' tensors in a checkpoint that :func:`load_checkpoint` has read."""
    with safe_open(str(path), framework="pt") as file:
        names = [k for k in file.keys() if k.startswith(_COMPANION)]  # noqa: SIM118
        return {k.removeprefix(_COMPANION): file.get_tensor(k).float() for k in names}
