"""The carried streams of a stretch of a video: packets of that time, moved to its beginning.

Works on passthrough values alone; it must not know archives, pictures or muxers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from s2vc_ray.passthrough_format import Passthrough, write_passthrough
from s2vc_ray.passthrough_head import PassChapter, PassHead, PassStream
from s2vc_ray.passthrough_packets import PassPacket

_TIMECODE = "timecode"


@dataclass(slots=True)
class Excerpt:
    """What is taken of a passthrough, and what was not: give it to `take`, then read ``notes``.

    Audio and data packets are taken whole, when they begin in the stretch. Subtitles that are on screen at its
    beginning begin with it. Cover art is always taken. Chapters that overlap are clipped.

    Attributes:
        begin: seconds, on the source's clock, where it begins; None: with whatever comes first.
        end: where it ends, exclusive; None: with the last packet.
        notes: what differs from the source, one sentence each.
    """

    begin: Fraction | None
    end: Fraction | None
    notes: list[str] = field(default_factory=list)

    def take(self, source: Passthrough) -> Passthrough:
        """The part of ``source``, its times counted from ``begin``; reads and holds little more than that.

        Raises:
            CorruptArchive: the bytes are damaged.
        """
        head = source.head
        chapters = tuple(filter(None, map(self._chapter, head.chapters)))
        if self.begin is not None:
            head = self._without_timecode(head)
            if head.streams:
                self.notes.append("audio and subtitles are cut between packets")
        if lost := len(head.chapters) - len(chapters):
            self.notes.append(f"{lost} chapters lie outside")
        files = (source.attachment(number) for number in range(len(head.attachments)))
        return write_passthrough(replace(head, chapters=chapters), self._packets(source), files)

    def _packets(self, source: Passthrough) -> Iterator[PassPacket]:
        inside = [self.begin is None] * len(source.head.streams)
        for packet in source.packets(self.begin, self.end):
            taken = self._packet(packet, source.head.streams[packet.stream], inside[packet.stream])
            inside[packet.stream] = taken is not None
            if taken is not None:
                yield taken

    def _packet(self, packet: PassPacket, stream: PassStream, before: bool) -> PassPacket | None:
        """``packet`` moved, or None when it is outside; one without times goes with the ``before`` it."""
        if stream.kind == "video":
            return packet
        unit = stream.time_base
        shift = round((self.begin or 0) / unit)
        time = packet.dts if packet.pts is None else packet.pts
        if time is None:
            return packet if before else None
        if self.end is not None and time * unit >= self.end:
            return None
        late = shift - time if self.begin is not None and time * unit < self.begin else 0
        if late and (stream.kind != "subtitle" or packet.duration <= late):
            return None
        return replace(
            packet,
            pts=None if packet.pts is None else packet.pts + late - shift,
            dts=None if packet.dts is None else packet.dts + late - shift,
            duration=packet.duration - late,
        )

    def _chapter(self, chapter: PassChapter) -> PassChapter | None:
        unit = chapter.time_base
        begin, end = (self.begin or Fraction(0)) / unit, None if self.end is None else self.end / unit
        if (self.begin is not None and chapter.end <= begin) or (end is not None and chapter.start >= end):
            return None
        start = chapter.start if self.begin is None else max(chapter.start, round(begin))
        stop = chapter.end if end is None else min(chapter.end, round(end))
        return replace(chapter, start=start - round(begin), end=stop - round(begin))

    def _without_timecode(self, head: PassHead) -> PassHead:
        """A start timecode would be the source's, not the stretch's."""

        def rest(tags: dict[str, str]) -> dict[str, str]:
            return {key: value for key, value in tags.items() if key.lower() != _TIMECODE}

        streams = tuple(replace(stream, metadata=rest(stream.metadata)) for stream in head.streams)
        changed = replace(
            head, streams=streams, metadata=rest(head.metadata), video_metadata=rest(head.video_metadata)
        )
        if changed != head:
            self.notes.append("the start timecode is left out: it is that of the whole video")
        return changed
