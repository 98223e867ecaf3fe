"""Putting carried streams into an output file: which fit, in the source's order, packets in step with the pictures.

Takes a ``Passthrough`` and an open muxer. A stream that the container cannot hold is found by trying it
alone first, and reported; the pictures never fail because of it. It must not know how pictures are encoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.passthrough_head import Omitted, PassAttachment, PassChapter, PassStream
from s2vc_ray.passthrough_packets import PassPacket
from s2vc_ray.portable_tags import container_tags, video_tags
from s2vc_ray.tracks import REFUSALS, add_track, first_packets, restore_packet, why_refused

PICTURE_FILES = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "gif": ("cover.gif", "image/gif"),
    "tiff": ("cover.tiff", "image/tiff"),
    "bmp": ("cover.bmp", "image/bmp"),
    "webp": ("cover.webp", "image/webp"),
}
"""Cover art in Matroska is an attached file, which has a name and a type."""

_SUFFIXES = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}

TIMECODE_TAGS = ("timecode", "reel_name")
"""Of these tags of the pictures FFmpeg's MP4 muxer makes a time code track."""


@dataclass(slots=True)
class Remux:
    """The carried streams of one output file, in the making.

    Call ``add_streams`` for those before the pictures' stream, add that, ``add_streams`` again for the others,
    ``describe`` once, then ``write_until`` as the pictures are written.

    Attributes:
        shift: seconds by which everything moves.
        omitted: streams and attachments left out so far, with reasons.
        carried: source indices of the streams that are in.
        tracks: of ``carried``, the numbers in the passthrough of those that became tracks, in the file's order.
        covers: of ``carried``, the numbers of those that became cover art.
        timecodes: of ``carried``, the number of the one that the muxer writes itself, from a tag.
        files: the attachments' numbers that are in.
        refused: a stream's number to how many of its packets the muxer did not take.
        notes: what else could not be written, one sentence each.
    """

    out: OutputContainer
    passthrough: Passthrough
    shift: Fraction = Fraction(0)
    omitted: list[Omitted] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    covers: list[int] = field(default_factory=list)
    timecodes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _streams: dict[int, Stream] = field(default_factory=dict)
    _steps: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    _first: dict[int, PassPacket] = field(init=False)
    _to_add: Iterator[PassStream | PassAttachment] = field(init=False)
    _next: PassStream | PassAttachment | None = field(init=False)
    _packets: Iterator[PassPacket] = field(init=False)
    _waiting: PassPacket | None = None

    def __post_init__(self) -> None:
        head = self.passthrough.head
        self.omitted.extend(head.omitted)
        self._first = first_packets(self.passthrough)
        self._packets = self.passthrough.packets()
        every: list[PassStream | PassAttachment] = [*head.streams, *head.attachments]
        in_order = sorted(every, key=lambda one: one.index)
        self._to_add = iter(in_order)
        self._next = next(self._to_add, None)

    @property
    def container(self) -> str:
        """FFmpeg's name of the output format."""
        return self.out.format.name

    @property
    def chapters(self) -> list[PassChapter]:
        """The chapters that any container takes."""
        every = self.passthrough.head.chapters
        return [one for one in every if 0 <= self._moved(one.start, one) <= self._moved(one.end, one)]

    def add_streams(self, before: int | None = None) -> None:
        """Add what the container can hold of the streams that have a lower index than ``before``; None is all."""
        while self._next is not None and (before is None or self._next.index < before):
            if isinstance(self._next, PassStream):
                self._add_stream(self._next)
            else:
                self._add_attachment(self._next)
            self._next = next(self._to_add, None)

    def describe(self, video: VideoStream) -> None:
        """Write the tags of the container and of ``video``, and the chapters."""
        head = self.passthrough.head
        self.out.metadata.update(container_tags(head, self.container))
        video.metadata.update(video_tags(head))
        video.disposition = Disposition(head.video_disposition)
        for number in self.timecodes[:1]:  # the muxer makes the track of it
            code = head.streams[number].metadata
            video.metadata.update({key: code[key] for key in TIMECODE_TAGS if key in code})
        if len(self.chapters) < len(head.chapters):
            lost = len(head.chapters) - len(self.chapters)
            self.notes.append(f"{lost} chapters are left out: they begin before 0 or end before they begin")
        self.out.set_chapters(
            [
                {
                    "id": one.id,
                    "start": self._moved(one.start, one),
                    "end": self._moved(one.end, one),
                    "time_base": one.time_base,
                    "metadata": one.metadata,
                }
                for one in self.chapters
            ]
        )

    def write_until(self, time: Fraction | None) -> None:
        """Mux carried packets whose decode time in seconds is at most ``time``; None means all of them."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            stream = self._streams.get(packet.stream)
            if stream is None:
                continue
            unit = self.passthrough.head.streams[packet.stream].time_base
            clock = packet.dts if packet.dts is not None else packet.pts
            if time is not None and clock is not None and clock * unit + self.shift > time:
                self._waiting = packet
                return
            self._mux(packet, stream, unit)

    def refusals(self) -> list[str]:
        """One sentence for each stream of which the muxer did not take all packets."""
        head = self.passthrough.head
        return [
            f"stream {head.streams[n].index}: {count} packets were refused"
            for n, count in self.refused.items()
        ]

    def _add_stream(self, stream: PassStream) -> None:
        number = self.passthrough.head.streams.index(stream)
        first = self._first.get(number)
        if stream.kind == "video" and self.container == "matroska" and first is not None:
            self._add_cover_file(stream, first.data)
            self.covers.append(number)
        elif self.container != "matroska" and "timecode" in stream.metadata and not self.timecodes:
            self.timecodes.append(number)
        elif self.container != "matroska" and self._is_chapter_track(stream):
            pass  # the muxer makes one of the chapters
        elif reason := self._why_not(stream, first):
            self.omitted.append(Omitted(stream.index, stream.kind, stream.codec, reason))
            return
        else:
            self._streams[number] = add_track(self.out, stream)
            (self.covers if stream.kind == "video" else self.tracks).append(number)
        self.carried.append(stream.index)

    def _is_chapter_track(self, stream: PassStream) -> bool:
        """MP4 keeps chapters as a track too, which FFmpeg shows without its packets."""
        return stream.codec == "bin_data" and not stream.packets and bool(self.passthrough.head.chapters)

    def _why_not(self, stream: PassStream, first: PassPacket | None) -> str:
        reason = why_refused(self.container, stream, first)
        if not reason:
            return ""
        if "timecode" in stream.metadata:
            return f"{reason}; its time code is kept as a tag"
        if self._is_chapter_track(stream):
            return f"{reason}; its chapters are kept"
        able = [
            suffix
            for suffix, other in _SUFFIXES.items()
            if other != self.container and not why_refused(other, stream, first)
        ]
        return f"{reason}; {able[0]} can" if able else reason

    def _add_cover_file(self, stream: PassStream, data: bytes) -> None:
        name, mimetype = PICTURE_FILES.get(stream.codec, ("cover", "application/octet-stream"))
        self._add_file({"filename": name, "mimetype": mimetype, **stream.metadata}, data)

    def _add_attachment(self, attachment: PassAttachment) -> None:
        if self.container != "matroska":
            reason = f"{self.container} holds no attached files; .mkv does"
            self.omitted.append(Omitted(attachment.index, "attachment", attachment.name, reason))
            return
        number = self.passthrough.head.attachments.index(attachment)
        named = {"filename": f"attachment-{attachment.index}", "mimetype": "application/octet-stream"}
        self._add_file({**named, **attachment.metadata}, self.passthrough.attachment(number))
        self.files.append(number)

    def _add_file(self, tags: dict[str, str], data: bytes) -> None:
        stream = self.out.add_attachment("", "", data)
        stream.metadata.clear()
        stream.metadata.update(tags)

    def _moved(self, time: int, chapter: PassChapter) -> int:
        return time + round(self.shift / chapter.time_base)

    def _mux(self, packet: PassPacket, stream: Stream, unit: Fraction) -> None:
        try:
            made = restore_packet(packet, stream, unit)
            if self.container != "matroska":
                made.duration = self._duration(packet)
            if self.shift:
                made.pts, made.dts = (
                    _shifted(packet.pts, unit, self.shift),
                    _shifted(packet.dts, unit, self.shift),
                )
            self.out.mux(made)
        except (*REFUSALS, OverflowError):
            self.refused[packet.stream] += 1

    def _duration(self, packet: PassPacket) -> int:
        """The packet's duration, or the step before it: MP4 cuts a last packet of duration 0 off."""
        before, step = self._steps.get(packet.stream, (packet.pts, 0))
        if packet.pts is not None and before is not None and packet.pts > before:
            step = packet.pts - before
        self._steps[packet.stream] = (packet.pts, step)
        return packet.duration or step


def _shifted(time: int | None, unit: Fraction, shift: Fraction) -> int | None:
    return None if time is None else time + round(shift / unit)
