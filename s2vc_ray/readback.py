"""Reading a finished file back and comparing what it carries with what was given, packet by packet.

Holds no more than lies between the two orders in which the file and the passthrough keep their packets.
It must not know how either was written.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from s2vc_ray.passthrough import codec_name, codec_parameters, copy_packet
from s2vc_ray.passthrough_head import PassChapter
from s2vc_ray.passthrough_packets import CORRUPT, DISCARD, DISPOSABLE, KEY, PassPacket
from s2vc_ray.portable_tags import container_tags, stream_tags, video_tags
from s2vc_ray.remux import TIMECODE_TAGS, Remux
from s2vc_ray.source_io import TAG_ERRORS, is_picture, read_packets

_FLAGS = {KEY: "keyframe", DISCARD: "discard", CORRUPT: "corrupt", DISPOSABLE: "disposable"}

_OF_THE_MULTIPLEX = {"mpegts_stream_id"}

_PARAMETERS = ("sample_rate", "layout", "width", "height")
"""What a container must say right; the rest of a stream's parameters is in its packets or its extradata."""

_UNSAID = {("language", "und"), ("vendor_id", "[0][0][0][0]")}
"""What FFmpeg shows of MP4 tracks that do not say it."""


class _Sum(NamedTuple):
    """One packet without its bytes; times in seconds."""

    time: Fraction | None
    duration: Fraction
    flags: int
    side: tuple[tuple[str, bytes], ...]
    size: int
    crc32: int

    @classmethod
    def of(cls, packet: PassPacket, unit: Fraction, shift: Fraction = Fraction(0)) -> _Sum:
        time = None if packet.pts is None else packet.pts * unit + shift
        crc = zlib.crc32(packet.data)
        return cls(time, packet.duration * unit, packet.flags, packet.side, len(packet.data), crc)


@dataclass(slots=True)
class _Compared:
    """How the packets of one stream in the file differ from those that were given."""

    given: int = 0
    found: int = 0
    other_bytes: int = 0
    other_durations: int = 0
    end_marks: int = 0
    flags: int = 0
    side: set[str] = field(default_factory=set)
    rounding: Fraction = Fraction(0)

    def add(self, want: _Sum, got: _Sum, unit: Fraction) -> None:
        """Count the differences of a pair; ``unit`` is as exactly as durations can agree."""
        self.other_bytes += (want.size, want.crc32) != (got.size, got.crc32)
        self.other_durations += bool(want.duration) and abs(want.duration - got.duration) > unit
        self.flags |= want.flags ^ got.flags
        self.side |= {name for name, _ in set(want.side) ^ set(got.side)} - _OF_THE_MULTIPLEX
        if want.time is not None and got.time is not None:
            self.rounding = max(self.rounding, abs(want.time - got.time))

    def notes(self, source: int) -> Iterator[str]:
        if self.end_marks:
            yield f"stream {source}: an empty packet more ends the subtitles"
        if self.given != self.found:
            yield f"stream {source}: {self.given} packets were given, the file shows {self.found}"
            return
        if self.other_bytes:
            yield f"stream {source}: the container stores its packets in another form"
        if self.other_durations:
            yield f"stream {source}: {self.other_durations} packets have another duration"
        flags = [name for bit, name in _FLAGS.items() if self.flags & bit]
        if flags or self.side:
            kept = ", ".join([*flags, *sorted(self.side)])
            yield f"stream {source}: the container does not keep of its packets: {kept}"


def check_carried(path: Path, remux: Remux, video: int) -> tuple[dict[int, Fraction], list[str]]:
    """Read the finished file back and compare it with what was given.

    Args:
        video: the pictures' stream in the file.

    Returns:
        source index to the largest difference in seconds of a packet's time, for streams that have one;
        and one sentence for everything that is not in the file as it was given.
    """
    head = remux.passthrough.head
    with av.open(str(path), metadata_errors=TAG_ERRORS) as file:
        container, pictures = dict(file.metadata), file.streams[video]
        notes = _missing("the container", container_tags(head, remux.container), container)
        notes += _missing("the video stream", video_tags(head), dict(pictures.metadata), head.metadata)
        notes += _other_disposition("the video stream", head.video_disposition, pictures)
        notes += _chapter_notes(file, remux)
        notes += _file_notes(file, remux)
        matched = _matched(file, remux, video)
        for number, stream in matched.items():
            notes += _stream_notes(remux, number, stream)
        results = _compared(file, remux, matched)
    for number in sorted(results):
        notes += results[number].notes(head.streams[number].index)
    absent = {*remux.tracks, *remux.covers, *remux.timecodes} - set(matched)
    notes += [f"stream {head.streams[number].index}: the file does not show it" for number in sorted(absent)]
    rounded = {
        head.streams[number].index: one.rounding
        for number, one in sorted(results.items())
        if one.rounding and one.given == one.found
    }
    return rounded, notes


def _matched(file: InputContainer, remux: Remux, video: int) -> dict[int, Stream]:
    """The numbers of carried streams and the file's streams. Muxers put cover art and their own tracks last."""
    pictures = [stream for stream in file.streams if is_picture(stream)]
    others = [
        stream
        for stream in file.streams
        if stream.index != video and not is_picture(stream) and not isinstance(stream, AttachmentStream)
    ]
    tracks, own = others[: len(remux.tracks)], others[len(remux.tracks) :]
    codes = [stream for stream in own if "timecode" in stream.metadata]
    pairs = [*zip(remux.tracks, tracks), *zip(remux.covers, pictures), *zip(remux.timecodes, codes)]
    kinds = remux.passthrough.head.streams
    return {number: stream for number, stream in pairs if stream.type == kinds[number].kind}


def _compared(file: InputContainer, remux: Remux, matched: dict[int, Stream]) -> dict[int, _Compared]:
    head = remux.passthrough.head
    results = {number: _Compared(given=head.streams[number].packets) for number in matched}
    numbers = {stream.index: number for number, stream in matched.items()}
    ahead: dict[int, deque[_Sum]] = defaultdict(deque)
    given = remux.passthrough.packets()

    def wanted(number: int) -> _Sum | None:
        while not ahead[number]:
            packet = next(given, None)
            if packet is None:
                return None
            if packet.stream in results:
                unit = head.streams[packet.stream].time_base
                ahead[packet.stream].append(_Sum.of(packet, unit, remux.shift))
        return ahead[number].popleft()

    for packet in read_packets(file, list(matched.values())) if matched else ():
        number = numbers[packet.stream_index]
        want, got = wanted(number), _Sum.of(copy_packet(packet, number), packet.time_base)
        if want is not None:
            results[number].found += 1
            results[number].add(want, got, packet.time_base + head.streams[number].time_base)
        elif head.streams[number].codec == "mov_text" and got.duration == 0:
            results[number].end_marks += 1
        else:
            results[number].found += 1
    return results


def _stream_notes(remux: Remux, number: int, stream: Stream) -> list[str]:
    one = remux.passthrough.head.streams[number]
    where = f"stream {one.index}"
    if number in remux.timecodes:
        wanted = {key: one.metadata[key] for key in TIMECODE_TAGS if key in one.metadata}
        return _missing(where, wanted, dict(stream.metadata))
    notes = _missing(where, stream_tags(one), dict(stream.metadata), remux.passthrough.head.metadata)
    notes += _other_disposition(where, one.disposition, stream)
    if codec_name(stream) != one.codec:
        notes.append(f"{where}: it was {one.codec}, players will take it for {codec_name(stream)}")
    now = codec_parameters(stream)
    changed = [key for key in _PARAMETERS if now.get(key) != one.parameters.get(key)]
    if stream.codec_context is not None and (stream.codec_context.extradata or b"") != one.extradata:
        changed.append("extradata")
    if changed:
        notes.append(f"{where}: the container changes its {', '.join(changed)}")
    return notes


def _missing(
    where: str, wanted: dict[str, str], found: dict[str, str], above: dict[str, str] | None = None
) -> list[str]:
    """What is not ``found``, under another name either (MP4 calls a title a name), nor said of the file ``above``."""
    said = {*_UNSAID, *(above or {}).items()}
    kept = {(key.lower(), text) for key, text in found.items()}
    lost = sorted(
        key
        for key, text in wanted.items()
        if not ((key.lower(), text) in kept or text in found.values() or (key, text) in said)
    )
    return [f"{where} did not keep the tags {', '.join(lost)}"] if lost else []


def _other_disposition(where: str, wanted: int, stream: Stream) -> list[str]:
    """MP4 enables the first track of a kind when none is: a flag too many, not one lost."""
    now = int(stream.disposition)
    if now in (wanted, wanted | Disposition.default):
        return []
    return [f"{where}: its disposition is {_names(now)} where it was {_names(wanted)}"]


def _names(disposition: int) -> str:
    return Disposition(disposition).name or "none"


def _chapter_notes(file: InputContainer, remux: Remux) -> list[str]:
    given = remux.chapters
    got = [
        PassChapter(one["id"], one["start"], one["end"], one["time_base"] or Fraction(1), one["metadata"])
        for one in file.chapters()
    ]
    if len(given) != len(got):
        return [f"{len(given)} chapters were given, the file shows {len(got)}"]
    notes = []
    for number, (want, have) in enumerate(zip(given, got, strict=True)):
        notes += _missing(f"chapter {number}", want.metadata, have.metadata)
        before = [time * want.time_base + remux.shift for time in (want.start, want.end)]
        after = [time * have.time_base for time in (have.start, have.end)]
        moved = max(abs(a - b) for a, b in zip(before, after, strict=True))
        if moved > Fraction(1, 1000):
            notes.append(f"chapter {number} lies {float(moved):.3f} s beside where it was")
    return notes


def _file_notes(file: InputContainer, remux: Remux) -> list[str]:
    head = remux.passthrough.head
    got = [stream for stream in file.streams if isinstance(stream, AttachmentStream)]
    notes = []
    for number, stream in zip_longest(remux.files, got):
        if number is None:
            break
        one = head.attachments[number]
        if stream is None or (len(stream.data), zlib.crc32(stream.data)) != (one.size, one.crc32):
            notes.append(f"attachment {one.index} ({one.name}): the file does not show it")
        else:
            notes += _missing(f"attachment {one.index}", one.metadata, dict(stream.metadata))
    return notes
