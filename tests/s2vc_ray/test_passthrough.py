"""Everything but the pictures survives extraction and its bytes; damaged bytes are refused, never misread."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s2vc_ray.passthrough_format as layout
from s2vc_ray.errors import ArchiveError, CorruptArchive, SourceError, TruncatedArchive, UnsupportedVersion
from s2vc_ray.passthrough import Passthrough, extract
from s2vc_ray.passthrough_format import write_passthrough
from s2vc_ray.passthrough_head import PassAttachment, PassChapter, PassHead, PassStream, head_to_json
from s2vc_ray.passthrough_packets import KEY, PassPacket
from tests.independent_reader.reader import read_passthrough
from tests.matrix.assemble import Track, assemble, lines, sound
from tests.media import make_audio, make_clip, rich_clip

CODECS = ["aac", "ac3", "flac", "libopus", "libmp3lame", "pcm_s16le", "alac"]


def demuxed(path: Path) -> list[tuple[object, ...]]:
    with av.open(str(path)) as container:
        return [
            (packet.pts, packet.dts, packet.duration, packet.is_keyframe, hashlib.md5(bytes(packet)).digest())
            for packet in container.demux(audio=0)
            if packet.size
        ]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_packets_are_exact(tmp_path: Path, codec: str, suffix: str) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", audio=codec, frames=8)
    carried = Passthrough.from_bytes(extract(clip).to_bytes())
    (stream,) = carried.head.streams
    with av.open(str(clip)) as container:
        audio = container.streams.audio[0]
        assert stream.time_base == audio.time_base
        assert stream.extradata == (audio.codec_context.extradata or b"")
        assert stream.parameters["sample_rate"] == 48000
        assert stream.disposition == audio.disposition
    assert (stream.index, stream.kind, stream.metadata["language"]) == (1, "audio", "deu")
    packets = list(carried.packets())
    assert [
        (one.pts, one.dts, one.duration, bool(one.flags & KEY), hashlib.md5(one.data).digest())
        for one in packets
    ] == demuxed(clip)
    assert not carried.head.omitted


@pytest.mark.parametrize("codec", CODECS)
def test_template_returns_the_codec_s_parameters(tmp_path: Path, codec: str) -> None:
    clip = make_clip(tmp_path / "clip.mp4", audio=codec, frames=8)
    (stream,) = extract(clip).head.streams
    template = tmp_path / "template"
    template.write_bytes(stream.template)
    with av.open(str(template), format=stream.template_format) as file, av.open(str(clip)) as container:
        got, want = file.streams[0].codec_context, container.streams.audio[0].codec_context
        assert isinstance(got, av.AudioCodecContext)
        assert got.codec.id == want.codec.id
        assert got.extradata == want.extradata
        assert got.sample_rate == want.sample_rate
        assert got.layout.nb_channels == want.layout.nb_channels
        assert got.frame_size == want.frame_size


def test_tags_chapters_and_attachments(tmp_path: Path) -> None:
    clip = rich_clip(tmp_path / "rich.mkv")
    carried = Passthrough.from_bytes(extract(clip).to_bytes())
    head = carried.head
    assert head.metadata["title"] == "Tést"
    (chapter,) = head.chapters
    assert [time * chapter.time_base for time in (chapter.start, chapter.end)] == [0, Fraction(1, 2)]
    assert chapter.metadata == {"title": "One"}
    (attachment,) = head.attachments
    assert attachment.metadata == {"filename": "font.ttf", "mimetype": "font/ttf"}
    assert carried.attachment(0) == b"\x00\x01not really a font"
    assert [stream.kind for stream in head.streams] == ["subtitle"]


def test_tags_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "old.mkv", metadata={"title": "caf____"}, frames=4)
    clip.write_bytes(clip.read_bytes().replace(b"caf____", b"caf\xe9 \xff."))
    head = Passthrough.from_bytes(extract(clip).to_bytes()).head
    assert head.metadata["title"].encode("utf-8", "surrogateescape") == b"caf\xe9 \xff."


def test_a_second_video_stream_is_listed_with_a_reason(tmp_path: Path) -> None:
    one, two = make_clip(tmp_path / "1.mkv", frames=4), make_clip(tmp_path / "2.mkv", frames=4, seed=1)
    both = tmp_path / "both.mkv"
    with av.open(str(both), "w") as out:
        sources = [av.open(str(path)) for path in (one, two)]
        streams = [out.add_stream_from_template(file.streams.video[0], opaque=True) for file in sources]
        for file, stream in zip(sources, streams, strict=True):
            for packet in file.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
            file.close()
    (omitted,) = extract(both).head.omitted
    assert (omitted.index, omitted.kind, omitted.codec) == (1, "video", "h264")
    assert "second video stream" in omitted.reason


def test_no_sound_is_an_empty_passthrough(tmp_path: Path) -> None:
    carried = extract(make_clip(tmp_path / "silent.mp4", frames=4))
    assert not carried.head.streams
    assert list(carried.packets()) == []


def test_binary_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", audio="aac", frames=8)
    with clip.open("rb") as file:
        assert extract(file).to_bytes() == extract(clip).to_bytes()


def test_audio_only_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="audio only"):
        extract(make_audio(tmp_path / "song.m4a"))


STREAM = PassStream(
    index=1,
    id=256,
    kind="audio",
    codec="aac",
    tag="mp4a",
    time_base=Fraction(1, 48000),
    extradata=b"\x12\x10",
    disposition=1,
    metadata={"a": "b"},
    parameters={"n": 2, "layout": "stereo"},
    template=b"T",
    template_format="nut",
    packets=2,
)
FILES = [b"a font", b"", b"a cover"]
HEAD = PassHead(
    format="matroska,webm",
    metadata={"title": "caf\udce9"},
    video_index=0,
    video_disposition=1,
    video_metadata={},
    streams=(STREAM,),
    attachments=tuple(
        PassAttachment(2 + n, {"filename": "../../etc/passwd"}, len(data), zlib.crc32(data))
        for n, data in enumerate(FILES)
    ),
    chapters=(PassChapter(-1, 0, 5, Fraction(1, 1000), {"title": "One"}),),
    omitted=(),
)
PACKETS = [
    PassPacket(0, 1, -1024, -1024, 1024, (("skip_samples", b"0123456789"),), b"first"),
    PassPacket(0, 3, None, 7, 0, (), b""),
]


class Counted(io.FileIO):
    """A file that counts the bytes read of it."""

    got = 0

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        data = super().read(size) or b""
        self.got += len(data)
        return data


def whole() -> bytes:
    return write_passthrough(HEAD, PACKETS, FILES).to_bytes()


def test_layout_is_the_documented_one() -> None:
    data = whole()
    magic, version, length, crc = struct.unpack_from("<4sBII", data)
    assert (magic, version) == (b"S2PT", 1)
    header, at = data[13 : 13 + length], 13 + length
    assert crc == zlib.crc32(header)
    attached = json.loads(header)["attachments"]
    assert [one["size"] for one in attached] == [6, 0, 7]
    assert data[at : at + 13] == b"a fonta cover"
    first = b"\0\1\3\x80\x10\xff\x0f\0\1\x0c\x0askip_samples0123456789\5first"
    records = first + b"\0\3\2\0\x0e\0\0"
    assert data[at + 13 :].startswith(
        struct.pack("<II", len(records), zlib.crc32(records)) + records + bytes(8)
    )
    index = data[at + 13 + 8 + len(records) + 8 : -16]
    assert data[-16:] == struct.pack("<IQI", len(index), 2, zlib.crc32(index))
    again = Passthrough.from_bytes(data)
    assert again.head == HEAD
    assert list(again.packets()) == PACKETS
    assert [again.attachment(number) for number in range(3)] == FILES
    assert again.to_bytes() == data


def test_a_reader_written_from_the_page_alone_agrees(tmp_path: Path) -> None:
    font = ({"filename": "caf\udce9.ttf", "mimetype": "font/ttf"}, b"a font")
    tracks = [
        Track(sound(tmp_path / "a.mp4")),
        Track(lines(tmp_path / "l.vtt"), metadata={"language": "fra"}),
    ]
    source = assemble(tmp_path / "rich.mkv", tracks, video_at=1, files=[font])
    carried = extract(source)
    plain = read_passthrough(carried.to_bytes())
    assert plain.files == [b"a font"]
    assert plain.head["attachments"][0]["metadata"] == font[0]
    assert [one["codec"] for one in plain.head["streams"]] == ["aac", "webvtt"]
    assert base64.b64decode(plain.head["streams"][0]["extradata"]) == carried.head.streams[0].extradata
    assert [(p.stream, p.flags, p.pts, p.dts, p.duration, p.data) for p in plain.packets] == [
        (p.stream, p.flags, p.pts, p.dts, p.duration, p.data) for p in carried.packets()
    ]
    assert [p.side for p in plain.packets] == [dict(p.side) for p in carried.packets()]
    assert {name for p in plain.packets for name in p.side} == {"webvtt_identifier", "webvtt_settings"}


def test_one_reading_of_the_source_makes_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", audio="pcm_s16le", frames=200)
    with Counted(clip) as file:
        extract(file)
        assert file.got < 1.5 * clip.stat().st_size + (2 << 18)


def test_chunks_are_bounded_and_may_be_interleaved_with_packets() -> None:
    big = [PassPacket(0, 0, n, n, 1, (), bytes(700_000)) for n in range(4)]
    carried = write_passthrough(HEAD, big, FILES)
    packets, pieces = carried.packets(), []
    for piece in carried.chunks():
        assert len(piece) <= 1 << 20
        pieces.append(piece)
        next(packets, None)
    assert b"".join(pieces) == carried.to_bytes()
    assert list(Passthrough.from_chunks(pieces).packets()) == big


def test_a_stretch_reads_only_the_runs_it_touches(tmp_path: Path) -> None:
    """Two streams of other clocks, unevenly interleaved; a long packet; cover art, which belongs to all times."""
    sound, text, art = (
        STREAM,
        replace(STREAM, kind="subtitle", time_base=Fraction(1, 1000)),
        replace(STREAM, kind="video"),
    )
    packets = [PassPacket(2, 1, 0, 0, 0, (), b"cover" * 9000)]
    for n in range(600):
        packets.append(PassPacket(0, 1, 24000 * n, 24000 * n, 24000, (), bytes([n % 251]) * 2000))
        if n % 50 == 7:
            packets.append(PassPacket(1, 1, 500 * n, None, 60_000 if n == 57 else 400, (), b"line %d" % n))
    packets.append(PassPacket(0, 0, None, None, 0, (), b"untimed"))
    head = replace(HEAD, streams=(sound, text, art))
    carried = write_passthrough(head, packets, FILES)
    assert list(carried.packets()) == packets
    path = tmp_path / "passthrough"
    path.write_bytes(carried.to_bytes())

    def touches(packet: PassPacket, begin: int, end: int) -> bool:
        unit = head.streams[packet.stream].time_base
        time = packet.time
        return packet.stream == 2 or (
            time is not None and time * unit <= end and (time + packet.duration) * unit >= begin
        )

    for begin, end in ((0, 1), (60, 70), (199, 230), (290, 400), (500, 600)):
        with Counted(path) as file:
            some = list(Passthrough.read(file).packets(Fraction(begin), Fraction(end)))
            assert file.got < 500_000 < path.stat().st_size / 2
        assert [one for one in packets if touches(one, begin, end)] == [
            one for one in some if touches(one, begin, end)
        ]
        places = [packets.index(one) for one in some]
        assert places == sorted(places)
    few, more = (write_passthrough(head, packets[1:end], FILES).to_bytes() for end in (3, 7))
    assert len(more) - len(few) < 4 * 2000 + 24, "a usual packet costs a few bytes beside its data"


def read_all(data: bytes, *, salvage: bool = False) -> Passthrough:
    carried = Passthrough.read(io.BytesIO(data), salvage=salvage)
    list(carried.packets())
    for number in range(len(carried.head.attachments)):
        carried.attachment(number)
    return carried


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_truncated_bytes_are_refused(cut: int) -> None:
    data = whole()
    with pytest.raises(TruncatedArchive):
        read_all(data[: cut % len(data)])


@given(st.integers(0, 1 << 20), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_flipped_bits_are_refused(place: int, flip: int) -> None:
    data = bytearray(whole())
    data[place % len(data)] ^= flip
    with pytest.raises(ArchiveError):
        read_all(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic_raise_only_archive_errors(tail: bytes) -> None:
    with pytest.raises(ArchiveError):
        list(Passthrough.from_bytes(b"S2PT\x01" + tail).packets())


def test_a_salvaged_passthrough_ends_where_its_bytes_do() -> None:
    data = whole()
    runs = [PassPacket(0, 1, n, n, 1, (), bytes([n]) * 70_000) for n in range(3)]
    long = write_passthrough(HEAD, runs, FILES).to_bytes()
    carried = Passthrough.read(io.BytesIO(long[: long.index(b"\2" * 100) + 5000]), salvage=True)
    assert list(carried.packets()) == runs[:2]
    assert "ends inside its packets" in carried.damage
    cut = read_all(data[: data.index(b"a cover") + 3], salvage=True)
    assert [one.index for one in cut.head.attachments] == [2, 3]
    assert [(one.index, one.reason) for one in cut.head.omitted] == [(4, "lost where the archive is damaged")]
    assert not read_all(data, salvage=True).damage


def changed(**values: object) -> bytes:
    """The header of ``HEAD`` with other values, its lengths and checksum right."""
    raw = json.loads(head_to_json(HEAD))
    for path, value in values.items():
        *way, last = path.split("__")
        inner = raw
        for key in way:
            inner = inner[int(key) if key.isdigit() else key]
        inner[last] = value
    text = json.dumps(raw).encode()
    return struct.pack("<4sBII", b"S2PT", 1, len(text), zlib.crc32(text)) + text


@pytest.mark.parametrize(
    "values",
    [
        {"streams__0__template_format": "concat"},
        {"streams__0__kind": "attachment"},
        {"streams__0__time_base": [0, 1]},
        {"streams__0__time_base": [1, 1 << 40]},
        {"streams__0__disposition": 1 << 40},
        {"streams__0__extradata": "???"},
        {"streams__0__metadata": {"title": "\ud800"}},
        {"streams__0__metadata": {"title": 1}},
        {"streams__0__metadata": []},
        {"streams": {}},
        {"streams": None},
        {"attachments__0__size": -1},
        {"attachments__0__size": 1 << 50},
        {"attachments__0__size": 1e999},
        {"chapters__0__start": 1 << 70},
        {"chapters__0__start": 0.5},
        {"video_index": True},
    ],
)
def test_impossible_values_in_the_header_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(CorruptArchive, match="header is not usable"):
        Passthrough.from_bytes(changed(**values))


@pytest.mark.parametrize("place", ["header", "attachment", "run"])
def test_claimed_lengths_take_no_memory(tmp_path: Path, place: str) -> None:
    data = bytearray(whole())
    (length,) = struct.unpack_from("<I", data, 5)
    packets = 13 + length + 13
    if place == "header":
        struct.pack_into("<I", data, 5, layout.MAX_HEADER)
    elif place == "attachment":
        data = bytearray(changed(attachments__0__size=(1 << 31) - 1))
    else:
        struct.pack_into("<I", data, packets, 0xFFFFFFFE)
    path = tmp_path / "passthrough"
    path.write_bytes(data)
    tracemalloc.start()
    with path.open("rb") as file, pytest.raises(TruncatedArchive, match="ends inside"):
        list(Passthrough.read(file).packets())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_other_files_and_later_versions_are_refused() -> None:
    data = whole()
    with pytest.raises(CorruptArchive, match="magic"):
        Passthrough.from_bytes(b"RIFF" + data[4:])
    with pytest.raises(UnsupportedVersion, match="version 9"):
        Passthrough.from_bytes(data[:4] + b"\x09" + data[5:])
    with pytest.raises(CorruptArchive, match="claims"):
        Passthrough.from_bytes(struct.pack("<4sBII", b"S2PT", 1, 0xFFFFFFFF, 0))
