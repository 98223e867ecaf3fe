"""The weights file: float transforms in half precision, priors and tables as integers, config beside them.

    DIR/config.json           the CodecConfig, the format, where the weights come from, which pictures they had
                              better code larger than they are, and which earlier weights' streams they read
    DIR/model.safetensors     float/<name>, intra/<name>, inter/<name>

The integers are authoritative: whoever loads the file computes the same probabilities. Training resumes from the same
file, since each integer layer's float master is its integers divided by their power-of-two scale.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from s2vc_model.config import CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.network import S2vcNetwork
from s2vc_model.picture_scale import PictureScales
from s2vc_model.prior import SCALES
from s2vc_model.tables import CdfTables, build_tables

FORMAT = 1
PACKAGED = Path(__file__).parent / "weights"
"""Weights shipped with the package, one folder per preset."""
_FLOAT32_BELOW = 8192
_CODEC_KEY = "codec_sha256"
"""Metadata that ties the config to the tensors: another config with the same tensors is another model."""


@dataclass(frozen=True, slots=True)
class WeightsConfig:
    """What ``config.json`` says beside a weights file.

    Attributes:
        codec: the networks.
        notes: what whoever saved it had to say.
        scales: which pictures are coded larger. The encoder's business alone: changing it leaves the model, and what
            decodes, as they are.
        reads: SHA-256 of the earlier weights whose streams these decode; see `s2vc_model.succession`.
    """

    codec: CodecConfig
    notes: dict[str, Any]
    scales: PictureScales
    reads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A frozen network with its tables and identity; the rest as in `WeightsConfig`."""

    network: S2vcNetwork
    tables: dict[str, CdfTables]
    sha256: str
    notes: dict[str, Any]
    scales: PictureScales
    reads: tuple[str, ...] = ()

    @property
    def model_id(self) -> str:
        """Preset and the first digits of the weights' digest."""
        return f"{self.network.config.preset}-{self.sha256[:12]}"


def save_weights(directory: Path, network: S2vcNetwork, notes: dict[str, Any]) -> str:
    """Freeze a trained network into ``directory``; returns the weights' SHA-256.

    Raises:
        WeightsError: a prior cannot be made exact, or the network was prepared for inference.
    """
    if network.folded:
        raise WeightsError("a network prepared for inference cannot be saved: load its weights afresh")
    tensors: dict[str, Tensor] = {}
    integer = set[str]()
    for kind, prior in network.priors().items():
        values = {**prior.quantise(), **build_tables(prior).to_tensors()}
        tensors |= {f"{kind}/{k}": v.contiguous() for k, v in values.items()}
        integer |= {f"{kind}_prior.{n}.{k}" for n in prior.layers() for k in ("weight", "bias")}
    for name, value in network.state_dict().items():
        if name not in integer:
            dtype = torch.float32 if value.numel() <= _FLOAT32_BELOW else torch.float16
            tensors[f"float/{name}"] = value.detach().to("cpu", dtype).contiguous()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.safetensors"
    codec = network.config.to_dict()
    save_file(tensors, str(path.with_suffix(".tmp")), metadata={_CODEC_KEY: _codec_digest(codec)})
    path.with_suffix(".tmp").replace(path)
    config = {"format": FORMAT, "codec": codec, "notes": notes}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return digest_of(path)


def load_weights(model: str | Path) -> LoadedWeights:
    """Load a packaged preset by name, or a directory written by :func:`save_weights`, frozen, on the CPU.

    Raises:
        WeightsError: nothing there, damaged, of another format, or failing the overflow proof.
    """
    path = find_weights(model)
    directory = path.parent
    config = read_config(directory)
    try:
        tensors = load_file(str(path))
        network = S2vcNetwork(config.codec)
        floats = {k.removeprefix("float/"): v for k, v in tensors.items() if k.startswith("float/")}
        missing, unexpected = network.load_state_dict(floats, strict=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        # torch reports tensors of another shape as a RuntimeError.
        raise WeightsError(f"{directory} does not hold usable weights: {error}") from error
    layers = {f"{kind}_prior.{n}" for kind, p in network.priors().items() for n in p.layers()}
    absent = [k for k in missing if k.rpartition(".")[0] not in layers]
    if absent or unexpected:
        raise WeightsError(
            f"{directory} does not fit its config: missing {absent[:3]}, unexpected {unexpected[:3]}"
        )
    tables = {}
    for kind, prior in network.priors().items():
        values = {k.removeprefix(f"{kind}/"): v for k, v in tensors.items() if k.startswith(f"{kind}/")}
        prior.load_integers(values)
        tables[kind] = CdfTables.from_tensors(values, SCALES + config.codec.hyper)
    network.eval().requires_grad_(False)
    return LoadedWeights(network, tables, digest_of(path), config.notes, config.scales, config.reads)


def find_weights(model: str | Path) -> Path:
    """The weights file of a packaged preset or a directory.

    Raises:
        WeightsError: there is none.
    """
    directory = PACKAGED / str(model) if (PACKAGED / str(model)).is_dir() else Path(model)
    path = directory / "model.safetensors"
    if not path.is_file():
        names = (
            ", ".join(sorted(p.name for p in PACKAGED.iterdir() if p.is_dir()))
            if PACKAGED.is_dir()
            else "none"
        )
        raise WeightsError(
            f"no model {str(model)!r}: give a packaged preset ({names}) or a directory with weights"
        )
    return path


def read_config(directory: Path) -> WeightsConfig:
    """What lies beside a weights file.

    Raises:
        WeightsError: damaged, of another format, or not those of the weights.
    """
    try:
        raw = json.loads((directory / "config.json").read_text())
        if raw["format"] != FORMAT:
            raise WeightsError(f"{directory}: weights format {raw['format']}, this version reads {FORMAT}")
        found = WeightsConfig(
            CodecConfig.from_dict(raw["codec"]),
            dict(raw["notes"]),
            PictureScales.from_json(raw.get("enlarging", ())),
            tuple(_digest(one) for one in raw.get("reads", ())),
        )
        with safe_open(str(directory / "model.safetensors"), framework="np") as file:
            bound = (file.metadata() or {}).get(_CODEC_KEY)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{directory} does not hold usable weights: {error}") from error
    if bound != _codec_digest(raw["codec"]):
        raise WeightsError(f"{directory}: config.json is not the one these weights were saved with")
    return found


def _digest(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no SHA-256")
    return text


def _codec_digest(codec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(codec, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a weights file: a model's identity."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
