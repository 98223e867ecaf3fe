"""The archive's header: what a decoder and an auditor must know before the first GOP, as JSON.

Owns the fields, their ranges and their JSON form. Knows nothing of where in a file the JSON lies.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from s2vc_ray.values import ColourTags

MAX_HEADER_BYTES = 1 << 16
_MAX_TEXT = 4096
_INT64 = (1 << 63) - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ArchiveHeader:
    """What an archive says about its video as a whole.

    Attributes:
        model_id: name of the model that coded the GOPs.
        weights_sha256: SHA-256 of its weights, 64 lower-case hex digits.
        preset: the codec preset, e.g. ``small``.
        width, height: true picture size in pixels (1..65535) before rotation and without padding.
        time_base: seconds per unit of every pts and duration in the file.
        colour: FFmpeg colour codes of the source.
        rotation: degrees to rotate for display (-359..359), as the source's display matrix says.
        sample_aspect: width of a sample over its height; 0 when unknown.
        average_rate: the source's average frames per second, ``None`` when unknown.
        last_duration: duration of the last frame in ``time_base`` units, 0 when unknown.
        frames: frames the source should have; more than the records hold when some were lost.
        gop_length: the frames per GOP the splitter aimed at.
        q: the quality index asked for (0..63); each record holds the one it was coded with.
        source_name: last part of the source's URI. Bytes that were not UTF-8 appear as lone surrogates.
        source_size, source_sha256: fixity of the source file.
        creator: program and version that wrote the archive.

    Raises:
        ValueError: a field has the wrong type or lies outside its range.
    """

    model_id: str
    weights_sha256: str
    preset: str
    width: int
    height: int
    time_base: Fraction
    colour: ColourTags
    rotation: int
    sample_aspect: Fraction
    average_rate: Fraction | None
    last_duration: int
    frames: int
    gop_length: int
    q: int
    source_name: str
    source_size: int
    source_sha256: str
    creator: str

    def __post_init__(self) -> None:
        for name in ("model_id", "preset", "source_name", "creator"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
                raise ValueError(f"{name} must be a text of 1..{_MAX_TEXT} characters")
        for name in ("weights_sha256", "source_sha256"):
            digest = getattr(self, name)
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise ValueError(f"{name} must be 64 lower-case hex digits, not {str(digest)[:80]!r}")
        for name, (low, high) in _RANGES.items():
            _check_int(name, getattr(self, name), low, high)
        for field in dataclasses.fields(ColourTags):
            _check_int(f"colour.{field.name}", getattr(self.colour, field.name), 0, 255)
        _check_fraction("time_base", self.time_base, positive=True)
        _check_fraction("sample_aspect", self.sample_aspect, positive=False)
        if self.average_rate is not None:
            _check_fraction("average_rate", self.average_rate, positive=True)

    def to_json(self) -> bytes:
        """Canonical JSON: ASCII, keys sorted, no white space, fractions as ``[numerator, denominator]``."""
        values: dict[str, object] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Fraction):
                value = [value.numerator, value.denominator]
            elif isinstance(value, ColourTags):
                value = dataclasses.asdict(value)
            values[field.name] = value
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes) -> ArchiveHeader:
        """Parse what ``to_json`` wrote. Unknown keys are ignored, so fields can be added compatibly.

        Raises:
            ValueError: not such JSON, or a field is missing or implausible.
        """
        try:
            values = json.loads(text, object_pairs_hook=_no_duplicates)
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError("JSON is not an object")
        fields = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in fields if name not in values]:
            raise ValueError(f"fields are missing: {', '.join(missing)}")
        known = {name: values[name] for name in fields}
        for name in ("time_base", "sample_aspect", "average_rate"):
            known[name] = _fraction(name, known[name])
        known["colour"] = _colour(known["colour"])
        return cls(**known)


_RANGES = {
    "width": (1, 65535),
    "height": (1, 65535),
    "rotation": (-359, 359),
    "last_duration": (0, _INT64),
    "frames": (0, _INT64),
    "gop_length": (1, 1 << 16),
    "q": (0, 63),
    "source_size": (0, _INT64),
}


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be an integer in {low}..{high}, not {str(value)[:80]}")


def _check_fraction(name: str, value: object, *, positive: bool) -> None:
    limit = (1 << 31) - 1
    if (
        not isinstance(value, Fraction)
        or not (1 if positive else 0) <= value.numerator <= limit
        or value.denominator > limit
    ):
        raise ValueError(f"{name} must be a {'positive' if positive else 'non-negative'} 32-bit fraction")


def _fraction(name: str, value: Any) -> Fraction | None:
    if value is None and name == "average_rate":
        return None
    if not isinstance(value, list) or [type(part) for part in value] != [int, int] or value[1] <= 0:
        raise ValueError(f"{name} must be [numerator, denominator]")
    return Fraction(value[0], value[1])


def _colour(value: Any) -> ColourTags:
    fields = [field.name for field in dataclasses.fields(ColourTags)]
    if not isinstance(value, dict) or any(name not in value for name in fields):
        raise ValueError(f"colour must hold {', '.join(fields)}")
    return ColourTags(**{name: value[name] for name in fields})


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values
