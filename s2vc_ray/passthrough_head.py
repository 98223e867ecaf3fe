"""What a passthrough says before its packets, as values and as JSON: streams, tags, chapters, attachments.

Everything read back is checked, since archives come from anywhere. It knows no media file and no muxer.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, TypeAlias

from s2vc_ray.errors import CorruptArchive

KINDS = ("audio", "subtitle", "data", "video")
TEMPLATE_FORMATS = ("matroska", "mov", "nut", "mpegts")

Natural: TypeAlias = int
"""0..2^31 - 1: what FFmpeg counts in a C int."""


@dataclass(frozen=True, slots=True)
class PassStream:
    """One carried stream.

    Attributes:
        index: its number in the source.
        id: the source format's own number for it (MPEG-TS PID, MP4 track), 0 when there is none.
        kind: "audio", "subtitle", "data" or "video" (cover art).
        codec: FFmpeg's codec name, empty when it has none.
        tag: the source's four-character code for the codec, empty when unknown.
        time_base: unit of its packets' times.
        extradata: the decoder's set-up bytes, exactly as stored.
        disposition: FFmpeg's disposition bits.
        metadata: its tags (language, title, ...).
        parameters: what else describes the codec (sample rate, channel layout, ...), for people.
        template: a tiny media file in format ``template_format`` that holds this stream, from which a muxer
            takes the codec parameters; empty when no format could hold it.
        template_format: one of ``TEMPLATE_FORMATS``, empty without a template.
        packets: how many there are; counted when the bytes are written.
    """

    index: Natural
    id: int
    kind: str
    codec: str
    tag: str
    time_base: Fraction
    extradata: bytes
    disposition: Natural
    metadata: dict[str, str]
    parameters: dict[str, int | str]
    template: bytes
    template_format: str
    packets: Natural = 0


@dataclass(frozen=True, slots=True)
class PassAttachment:
    """A file inside the source, such as a subtitle font; its bytes are read with ``Passthrough.attachment``.

    Attributes:
        index: its number in the source.
        metadata: its tags (filename, mimetype, title, ...). The file name is a tag, never a path.
        size: number of bytes; taken from them, as is ``crc32``, when they are written.
        crc32: CRC-32 of the bytes.
    """

    index: Natural
    metadata: dict[str, str]
    size: Natural = 0
    crc32: int = 0

    @property
    def name(self) -> str:
        """The file name that the source gives it, empty when it gives none."""
        return self.metadata.get("filename", "")


@dataclass(frozen=True, slots=True)
class PassChapter:
    """A chapter mark; times in ``time_base`` units."""

    id: int
    start: int
    end: int
    time_base: Fraction
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Omitted:
    """A stream of the source, or of a passthrough, that was not carried, and why."""

    index: Natural
    kind: str
    codec: str
    reason: str


_LISTED = (PassStream, PassAttachment, PassChapter, Omitted)


@dataclass(frozen=True, slots=True)
class PassHead:
    """Everything but the packets and the attached files' bytes.

    Attributes:
        format: FFmpeg's name of the source's container format.
        metadata: the container's tags.
        video_index: the compressed stream's number in the source, as are the other ``video_`` fields its own.
        video_disposition: FFmpeg's disposition bits.
        omitted: streams of the source that are not here, with reasons.
    """

    format: str
    metadata: dict[str, str]
    video_index: Natural
    video_disposition: Natural
    video_metadata: dict[str, str]
    streams: tuple[PassStream, ...]
    attachments: tuple[PassAttachment, ...]
    chapters: tuple[PassChapter, ...]
    omitted: tuple[Omitted, ...]


def head_to_json(head: PassHead) -> bytes:
    """ASCII JSON; equal values give equal bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return b64encode(value).decode("ascii")
        if isinstance(value, Fraction):
            return [value.numerator, value.denominator]
        raise TypeError(f"cannot write {type(value).__name__} into a passthrough header")

    return json.dumps(asdict(head), default=plain, separators=(",", ":")).encode("ascii")


def head_from_json(data: bytes) -> PassHead:
    """The head that ``data`` describes.

    Raises:
        CorruptArchive: it is not JSON, or a value in it is missing or impossible.
    """
    try:
        head: PassHead = _value(PassHead, json.loads(data))
        for stream in head.streams:
            _check_stream(stream)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Base64Error) as error:
        raise CorruptArchive(f"passthrough header is not usable ({error})") from error
    return head


def _check_stream(stream: PassStream) -> None:
    if stream.kind not in KINDS:
        raise ValueError(f"stream {stream.index} is of unknown kind {stream.kind!r}")
    # Opened by FFmpeg under this name: any other demuxer might be one that opens further files.
    if stream.template_format not in (TEMPLATE_FORMATS if stream.template else ("",)):
        raise ValueError(f"stream {stream.index} has a template of format {stream.template_format!r}")


def _value(kind: type, item: dict[str, Any]) -> Any:
    """One of this module's values from its JSON, each field checked against its declared type."""
    readers: dict[str, Callable[[Any], Any]] = {
        "int": _int,
        "Natural": _natural,
        "str": _text,
        "bytes": lambda text: b64decode(_text(text), validate=True),
        "Fraction": _fraction,
        "dict[str, str]": _tags,
        "dict[str, int | str]": _parameters,
        **{f"tuple[{one.__name__}, ...]": _values(one) for one in _LISTED},
    }
    return kind(**{field.name: readers[str(field.type)](item[field.name]) for field in fields(kind)})


def _values(kind: type) -> Callable[[Any], Any]:
    def read(items: Any) -> tuple[Any, ...]:
        if not isinstance(items, list):
            raise TypeError(f"expected a list, found {type(items).__name__}")
        return tuple(_value(kind, item) for item in items)

    return read


def _natural(value: Any) -> int:
    if not 0 <= _int(value) < 1 << 31:
        raise ValueError(f"{value} is not in 0..2^31-1")
    return int(value)


def _int(value: Any) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"expected a whole number of 64 bits, found {str(value)[:40]}")
    return value


def _fraction(pair: Any) -> Fraction:
    numerator, denominator = map(_int, pair)
    if not (0 < numerator < 1 << 31 and 0 < denominator < 1 << 31):
        raise ValueError(f"implausible time base {numerator}/{denominator}")
    return Fraction(numerator, denominator)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    value.encode("utf-8", "surrogateescape")
    return value


def _tags(value: Any) -> dict[str, str]:
    return {_text(key): _text(text) for key, text in value.items()}


def _parameters(value: Any) -> dict[str, int | str]:
    return {_text(key): _text(one) if isinstance(one, str) else _int(one) for key, one in value.items()}
