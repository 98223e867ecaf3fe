"""What a weights directory says about itself, from its config and the file's header: no network is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError, safe_open

from s2vc_model.errors import WeightsError
from s2vc_model.picture_scale import PictureScales
from s2vc_model.weight_files import digest_of, find_weights, read_config

_PARTS = {
    "float/intra.": "intra_transform",
    "float/inter.": "inter_transform",
    "intra/": "intra_prior",
    "inter/": "inter_prior",
    "float/intra_prior.": "intra_prior",
    "float/inter_prior.": "inter_prior",
    "float/generator.": "generator",
}


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """A model as it lies on disk.

    Attributes:
        parameters: numbers stored, by part; of a prior its tables too.
        bytes: size of the weights file.
        rates: bits per pixel that it was trained for, when recorded.
        scales: which pictures it codes larger than they are.
        reads: SHA-256 of the earlier weights whose streams it decodes.
        notes: what whoever saved it had to say.
    """

    directory: str
    preset: str
    model_id: str
    sha256: str
    bytes: int
    parameters: dict[str, int]
    rates: Any
    scales: PictureScales
    reads: tuple[str, ...]
    notes: dict[str, Any]


def weight_facts(model: str) -> WeightFacts:
    """Facts of a packaged preset or a weights directory.

    Raises:
        WeightsError: nothing there, or damaged.
    """
    path = find_weights(model)
    config = read_config(path.parent)
    parameters = dict.fromkeys(_PARTS.values(), 0)
    try:
        with safe_open(str(path), framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no dictionary
                part = next(part for prefix, part in _PARTS.items() if name.startswith(prefix))
                parameters[part] += math.prod(file.get_slice(name).get_shape())
    except (OSError, StopIteration, SafetensorError) as error:
        raise WeightsError(f"{path} does not hold usable weights: {error}") from error
    sha256 = digest_of(path)
    return WeightFacts(
        str(path.parent),
        config.codec.preset,
        f"{config.codec.preset}-{sha256[:12]}",
        sha256,
        path.stat().st_size,
        parameters,
        config.notes.get("rates"),
        config.scales,
        config.reads,
        config.notes,
    )
