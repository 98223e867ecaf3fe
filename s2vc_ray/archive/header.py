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

from s2vc_ray.values import FIELD_ORDERS, MOST_DURATIONS, UNTAGGED, ColourTags, Durations, PictureTags

MAX_HEADER_BYTES = 1 << 16
_MAX_TEXT = 4096
_INT64 = (1 << 63) - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{16}")


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
        q: the quality index asked for (0..63), with a ``target`` the highest that was allowed; each record holds the
            one it was coded with.
        source_name: last part of the source's URI. Bytes that were not UTF-8 appear as lone surrogates.
        source_size, source_sha256: fixity of the source file.
        creator: program and version that wrote the archive.
        source_codec, source_container, source_pix_fmt: FFmpeg's names; empty when unknown.
        source_bit_depth: bits of the source's deepest component, 0 when unknown.
        source_stream: index of the coded stream in the source.
        tags: field order, display matrix and HDR10's static metadata.
        decisions: what coding these pictures as 8-bit RGB changes or leaves undone, one sentence each.
        shots: GOPs with scene cuts were to be coded shot by shot.
        deinterlace: pictures that the source's decoder flags as interlaced were asked to be made progressive.
        own_size: no pictures were to be coded larger than they are, where the model would have gained by it.
        refine: steps by which first pictures were improved before they were coded, 0..64.
        target: what each GOP's q was searched for, in the job's words; empty where it was given.
        policy: the policy that its GOPs were coded under, as canonical JSON; empty without.
        durations: (pts, duration) of frames that are shown for less than the time to the next one.
        archive_version: counts from 1, in which no GOP replaces another.
        replaces, revision: of later versions, SHA-256 of the archive that most GOPs were copied from, and 16 hex
            digits that stand for what was asked; empty in the first.

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
    source_codec: str = ""
    source_container: str = ""
    source_pix_fmt: str = ""
    source_bit_depth: int = 0
    source_stream: int = 0
    tags: PictureTags = UNTAGGED
    decisions: tuple[str, ...] = ()
    shots: bool = False
    deinterlace: bool = False
    own_size: bool = False
    refine: int = 0
    archive_version: int = 1
    replaces: str = ""
    revision: str = ""
    target: str = ""
    policy: str = ""
    durations: Durations = ()

    def __post_init__(self) -> None:
        for name in ("model_id", "preset", "source_name", "creator"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT:
                raise ValueError(f"{name} must be a text of 1..{_MAX_TEXT} characters")
        for name in ("source_codec", "source_container", "source_pix_fmt", "target", "policy"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > _MAX_TEXT:
                raise ValueError(f"{name} must be a text of at most {_MAX_TEXT} characters")
        _check_decisions(self.decisions)
        _check_tags(self.tags)
        for name in _OPTIONS:
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, not {str(getattr(self, name))[:80]}")
        for name in ("weights_sha256", "source_sha256"):
            digest = getattr(self, name)
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise ValueError(f"{name} must be 64 lower-case hex digits, not {str(digest)[:80]!r}")
        _check_version(self)
        _check_durations(self.durations)
        for name, (low, high) in _RANGES.items():
            _check_int(name, getattr(self, name), low, high)
        for field in dataclasses.fields(ColourTags):
            _check_int(f"colour.{field.name}", getattr(self.colour, field.name), 0, 255)
        _check_fraction("time_base", self.time_base, positive=True)
        _check_fraction("sample_aspect", self.sample_aspect, positive=False)
        if self.average_rate is not None:
            _check_fraction("average_rate", self.average_rate, positive=True)

    def to_json(self) -> bytes:
        """Canonical JSON: ASCII, keys sorted, no white space, fractions as ``[numerator, denominator]``, options only
        where they were asked for, and no word on versions in the first."""
        names = [field.name for field in dataclasses.fields(self)]
        absent = {name for name in (*_OPTIONS, "refine", "target", "policy", "durations") if not getattr(self, name)}
        if self.archive_version == 1:
            absent.update(_VERSION)
        values = {name: _plain(getattr(self, name)) for name in names if name not in absent}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes) -> ArchiveHeader:
        """Parse what ``to_json`` wrote. Unknown keys are ignored and fields with a default may be missing, so that
        fields can be added compatibly.

        Raises:
            ValueError: not such JSON, or a field is missing or implausible.
        """
        try:
            values = json.loads(text, object_pairs_hook=_no_duplicates)
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError("JSON is not an object")
        fields = dataclasses.fields(cls)
        needed = [field.name for field in fields if field.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"fields are missing: {', '.join(missing)}")
        known = {field.name: values[field.name] for field in fields if field.name in values}
        for name in ("time_base", "sample_aspect", "average_rate"):
            known[name] = _fraction(name, known[name])
        known["colour"] = _colour(known["colour"])
        if "tags" in known:
            known["tags"] = _tags(known["tags"])
        if "decisions" in known:
            known["decisions"] = _tuple("decisions", known["decisions"])
        if "durations" in known:
            known["durations"] = tuple(
                _tuple("durations", pair) for pair in _tuple("durations", known["durations"])
            )
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
    "source_bit_depth": (0, 64),
    "source_stream": (0, 1 << 16),
    "archive_version": (1, _INT64),
    "refine": (0, 64),
}
_MAX_DECISIONS = 32
_MAX_TIME = (1 << 61) - 1
_OPTIONS = ("shots", "deinterlace", "own_size")
_VERSION = ("archive_version", "replaces", "revision")


def _plain(value: object) -> object:
    """``value`` as JSON has it."""
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, (ColourTags, PictureTags)):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


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


def _check_decisions(decisions: object) -> None:
    if not isinstance(decisions, tuple) or len(decisions) > _MAX_DECISIONS:
        raise ValueError(f"decisions must be at most {_MAX_DECISIONS} texts")
    if any(not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT for text in decisions):
        raise ValueError(f"decisions must each be a text of 1..{_MAX_TEXT} characters")


def _check_durations(durations: object) -> None:
    if not isinstance(durations, tuple) or len(durations) > MOST_DURATIONS:
        raise ValueError(f"durations must be at most {MOST_DURATIONS} pairs")
    before = None
    for pair in durations:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError("durations must be pairs of a pts and a duration")
        _check_int("durations", pair[0], -_MAX_TIME if before is None else before + 1, _MAX_TIME)
        _check_int("durations", pair[1], 1, _MAX_TIME)
        before = pair[0]


def _check_version(header: ArchiveHeader) -> None:
    later = type(header.archive_version) is int and header.archive_version > 1
    for name, shape in (("replaces", _SHA256), ("revision", _REVISION)):
        text = getattr(header, name)
        if not isinstance(text, str) or not (shape.fullmatch(text) if later else not text):
            raise ValueError(f"{name} does not fit archive_version {str(header.archive_version)[:80]}")


def _check_tags(tags: PictureTags) -> None:
    if tags.field_order not in FIELD_ORDERS:
        raise ValueError(f"tags.field_order must be one of {', '.join(FIELD_ORDERS)}")
    for name, count, low, high in (
        ("display_matrix", 9, -(1 << 31), (1 << 31) - 1),
        ("content_light", 2, 0, (1 << 32) - 1),
    ):
        numbers = getattr(tags, name)
        if numbers is not None:
            _check_count(name, numbers, count)
            for number in numbers:
                _check_int(f"tags.{name}", number, low, high)
    if tags.mastering_display is not None:
        _check_count("mastering_display", tags.mastering_display, 10)
        for part in tags.mastering_display:
            _check_fraction("tags.mastering_display", part, positive=False)


def _check_count(name: str, numbers: object, count: int) -> None:
    if not isinstance(numbers, tuple) or len(numbers) != count:
        raise ValueError(f"tags.{name} must be {count} numbers")


def _tags(value: Any) -> PictureTags:
    """Parse ``tags``; what is missing of it is unknown."""
    if not isinstance(value, dict):
        raise ValueError("tags must be an object")
    names = [field.name for field in dataclasses.fields(PictureTags)]
    known = {name: value[name] for name in names if value.get(name) is not None}
    for name in ("display_matrix", "content_light", "mastering_display"):
        if name in known:
            known[name] = _tuple(name, known[name])
    if "mastering_display" in known:
        known["mastering_display"] = tuple(
            _fraction("mastering_display", part) for part in known["mastering_display"]
        )
    return PictureTags(**known)


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list")
    return tuple(value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values
