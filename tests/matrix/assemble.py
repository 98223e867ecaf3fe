"""Sources with many streams: sound, subtitles, data, cover art, attached files, chapters, tags."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from tests.media import make_clip

MS = Fraction(1, 1000)
NONE = Disposition(0)


@dataclass(frozen=True)
class Track:
    """One stream to put into a file: the first of another file, or packets of a codec that needs no set-up.

    Attributes:
        file: the file, or
        codec: FFmpeg's name of the codec, and
        packets: (start, duration, data) with times in milliseconds.
        clock: units per second of ``packets`` in the file.
    """

    file: Path | None = None
    codec: str = ""
    packets: Sequence[tuple[int, int, bytes]] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    disposition: Disposition = NONE
    clock: int = 1000


def assemble(
    path: Path,
    tracks: Sequence[Track],
    *,
    video_at: int = 0,
    frames: int = 20,
    metadata: Mapping[str, str] | None = None,
    video_metadata: Mapping[str, str] | None = None,
    chapters: Sequence[Mapping[str, Any]] = (),
    files: Sequence[tuple[Mapping[str, str], bytes]] = (),
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write ``tracks`` around a clip of pictures, which becomes stream ``video_at``; the suffix names the container.

    Args:
        chapters: (start, end) in milliseconds and tags, as FFmpeg takes them.
        files: attached files: tags and bytes.
    """
    clip = make_clip(path.with_name(f"{path.stem}-pictures.mp4"), frames=frames)
    every = list(tracks)
    every.insert(video_at, Track(clip, metadata=video_metadata or {}, disposition=Disposition.default))
    with ExitStack() as stack:
        out = stack.enter_context(
            av.open(str(path), "w", container_options=dict(options or {}), metadata_errors="surrogateescape")
        )
        out.metadata.update(metadata or {})
        packets: list[Packet[Stream]] = []
        for track in every:
            packets += _add(out, track, stack)
        for tags, data in files:
            attached = out.add_attachment("", "", data)
            attached.metadata.clear()
            attached.metadata.update(tags)
        if chapters:
            out.set_chapters(
                [{"id": number, "time_base": MS, **one} for number, one in enumerate(chapters, 1)]
            )
        for packet in sorted(packets, key=_time):
            out.mux(packet)
    clip.unlink()
    return path


def _add(out: OutputContainer, track: Track, stack: ExitStack) -> Iterator[Packet[Stream]]:
    if track.file is None:
        add = out.add_data_stream if track.codec in _DATA else out.add_mux_stream
        added: Stream = add(track.codec)
        added.time_base = Fraction(1, track.clock)
        made = [_packet(*one) for one in track.packets]
    else:
        source = stack.enter_context(av.open(str(track.file), metadata_errors="surrogateescape"))
        added = out.add_stream_from_template(source.streams[0], opaque=True)
        made = [packet for packet in source.demux(source.streams[0]) if packet.size]
    added.metadata.clear()
    added.metadata.update(track.metadata)
    added.disposition = track.disposition
    for packet in made:
        packet.stream = added
        yield packet


_DATA = ("klv", "timed_id3", "bin_data", "scte_35")


def _packet(start: int, duration: int, data: bytes) -> Packet[Stream]:
    packet: Packet[Stream] = Packet(data)
    packet.time_base, packet.pts, packet.dts, packet.duration = MS, start, start, duration
    packet.is_keyframe = True
    return packet


def _time(packet: Packet[Stream]) -> Fraction:
    time = packet.pts if packet.dts is None else packet.dts
    return (time or 0) * packet.time_base


def sound(
    path: Path, codec: str = "aac", layout: str = "stereo", rate: int = 48000, seconds: float = 0.8
) -> Path:
    """A tone, a little different in every channel."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.layout = layout
        count = stream.layout.nb_channels
        steps = np.arange(round(seconds * rate)) / rate
        tones = np.stack([0.2 * np.sin(2 * np.pi * (330 + 50 * n) * steps) for n in range(count)])
        for start in range(0, len(steps), 1024):
            # Interleaved, since the library sees only eight planes.
            part = np.ascontiguousarray(tones[:, start : start + 1024].T.reshape(1, -1).astype(np.float32))
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def picture(path: Path, codec: str = "png", size: int = 16) -> Path:
    """A still picture, such as a cover; the suffix does not matter."""
    shade = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
    context: Any = av.CodecContext.create(codec, "w")
    context.width = context.height = size
    context.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}[codec]
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(shade, "rgb24").reformat(format=context.pix_fmt)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def lines(path: Path) -> Path:
    """Two timed lines in the form that ``path``'s suffix names: .ass, .srt, .vtt."""
    text = {
        ".srt": "1\n00:00:00,100 --> 00:00:00,300\nOne\n\n2\n00:00:00,400 --> 00:00:00,700\nTwo\n",
        ".vtt": "WEBVTT\n\nfirst\n00:00.100 --> 00:00.300 line:10%\nOne\n\n00:00.400 --> 00:00.700\nTwo\n",
        ".ass": (
            "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
            "Style: Default,Archive Sans,20\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
            "Dialogue: 0,0:00:00.10,0:00:00.30,Default,One\nDialogue: 0,0:00:00.40,0:00:00.70,Default,Two\n"
        ),
    }[path.suffix]
    path.write_text(text)
    return path


def bitmap_lines(path: Path) -> Path:
    """A .sup file (PGS, as on Blu-ray discs): one 8x2 subtitle shown, then cleared."""

    def segment(milliseconds: int, kind: int, body: bytes) -> bytes:
        return struct.pack(">2sIIBH", b"PG", milliseconds * 90, 0, kind, len(body)) + body

    def composition(number: int, objects: bytes, state: int) -> bytes:
        return struct.pack(">HHBHBBBB", 64, 48, 0x10, number, state, 0, 0, len(objects) // 8) + objects

    window = struct.pack(">BBHHHH", 1, 0, 8, 8, 8, 2)
    palette = struct.pack(">BB", 0, 0) + bytes([1, 235, 128, 128, 255])
    runs = (bytes([0, 0x88, 1]) + bytes(2)) * 2
    image = (
        struct.pack(">HBB", 0, 0, 0xC0) + (len(runs) + 4).to_bytes(3, "big") + struct.pack(">HH", 8, 2) + runs
    )
    shown = struct.pack(">HBBHH", 0, 0, 0, 8, 8)
    path.write_bytes(
        segment(100, 0x16, composition(0, shown, 0x80))
        + segment(100, 0x17, window)
        + segment(100, 0x14, palette)
        + segment(100, 0x15, image)
        + segment(100, 0x80, b"")
        + segment(600, 0x16, composition(1, b"", 0x00))
        + segment(600, 0x17, window)
        + segment(600, 0x80, b"")
    )
    return path
