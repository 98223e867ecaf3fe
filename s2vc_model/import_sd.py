"""Stable Diffusion's U-Net and VAE from local diffusers folders into a weights directory of ours. No network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from s2vc_model.config import PRESETS
from s2vc_model.errors import WeightsError
from s2vc_model.network import S2vcNetwork
from s2vc_model.sd import SdGenerator
from s2vc_model.weight_files import save_weights

WIDTHS = {"full": "sd15", "tiny": "sd-tiny"}
"""Presets by what a user calls them."""
UNTRAINED = (
    "codec, adapters, heads and the U-Net's first convolution are random: this model codes and decodes, but its "
    "pictures show nothing until it has been trained"
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written."""

    directory: str
    preset: str
    sha256: str
    warning: str = UNTRAINED


def import_sd(unet: Path, vae: Path, out: Path, *, seed: int = 0, width: str = "full") -> Imported:
    """Write a weights directory that `load_model` reads.

    The U-Net and the VAE decoder are kept, in half precision; everything else is drawn from ``seed``. At full width it
    takes 9 GB of memory and writes 2.1 GB.

    Args:
        unet: folder of a ``UNet2DConditionModel`` of Stable Diffusion 1.5.
        vae: folder of an ``AutoencoderKL`` of Stable Diffusion 2.1.
        out: a folder that does not exist yet, or is empty.
        width: ``full``, or ``tiny`` for folders of a test's size.

    Raises:
        WeightsError: a folder is wrong, or ``out`` holds something.
    """
    if width not in WIDTHS:
        raise WeightsError(f"width {width!r} is none of {', '.join(WIDTHS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WeightsError(f"{out} holds something already: name a new folder")
    config = PRESETS[WIDTHS[width]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = S2vcNetwork(config, SdGenerator.from_diffusers(config, unet, vae))
    notes = {
        "trained": False,
        "warning": UNTRAINED,
        "seed": seed,
        "unet_sha256": _digests(unet),
        "vae_sha256": _digests(vae),
    }
    return Imported(str(out), config.preset, save_weights(out, network, notes))


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
