"""Which earlier weights' streams some weights read: all that decides symbols, and all they are decoded to, is the same.

Training the generator further, or an encoder, changes a model's identity and not one symbol of what was coded before.
Such weights name the earlier ones in ``config.json``, and archives of those can be decoded with them: with another
generator to other pictures than were measured when they were made, with another encoder alone to the same ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from s2vc_model.errors import WeightsError
from s2vc_model.weight_files import digest_of, find_weights, read_config

_FREE = (
    "float/generator.",
    "float/intra.analysis.", "float/intra.hyper.",
    "float/inter.analysis.", "float/inter.hyper.", "float/inter.hint.",
)  # fmt: skip
"""Tensors that no stream is bound to: the generator's, and those that only encoders use."""


def succeed(later: str | Path, earlier: str | Path) -> tuple[str, ...]:
    """Have weights say that they read the streams of ``earlier`` ones, and of all that those read.

    Returns:
        The digests that their ``config.json`` has now.

    Raises:
        WeightsError: one of them is no weights, or a tensor that streams are bound to is not the same.
    """
    mine, theirs = find_weights(later), find_weights(earlier)
    config = read_config(theirs.parent)
    read_config(mine.parent)
    here, there = _bound(mine), _bound(theirs)
    odd = sorted(here.keys() ^ there.keys()) or [k for k in here if not torch.equal(here[k], there[k])]
    if odd:
        raise WeightsError(
            f"{mine.parent} cannot read the streams of {theirs.parent}: they are bound to {len(odd)} tensors that are "
            f"not the same, {odd[0]} among them"
        )
    own, before = digest_of(mine), digest_of(theirs)
    path = mine.parent / "config.json"
    raw = json.loads(path.read_text())
    reads = dict.fromkeys((*raw.get("reads", ()), before, *config.reads))
    raw["reads"] = [digest for digest in reads if digest != own]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(raw, indent=2) + "\n")
    temporary.replace(path)
    return tuple(raw["reads"])


def _bound(path: Path) -> dict[str, Tensor]:
    return {name: value for name, value in load_file(str(path)).items() if not name.startswith(_FREE)}
