"""What surrounds the pictures: sound, subtitles, data, cover art, attached files, chapters, tags, order and flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import AttachmentStream, Disposition

from s2vc_ray.decompress import SEE_EXTRACT
from s2vc_ray.extract import extract_archive
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.passthrough_packets import PassPacket
from tests.matrix.assemble import Track, assemble, bitmap_lines, lines, picture, sound
from tests.matrix.case import Case, Run
from tests.matrix.describe import difference

_FONT = b"\x00\x01\x00\x00a font that nobody can read"
_CHAPTERS = (
    {"start": 0, "end": 300, "metadata": {"title": "Ankunft"}},
    {"start": 300, "end": 800, "metadata": {"title": "Tést"}},
)
_COVER = Disposition.attached_pic
_DUB, _FORCED, _COMMENT = Disposition.dub, Disposition.forced, Disposition.comment
_KLV = bytes.fromhex("060e2b34020b01010e01030101000000")
_ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x0bTXXX"


def carried(run: Run) -> Passthrough:
    """What the archive carries."""
    return Passthrough.from_chunks(run.reader.passthrough())


def archived(source: Path, run: Run) -> str:
    """Asserts that the archive has every stream and packet that a plain demuxer shows, and says how many."""
    held = carried(run)
    numbers = [stream.index for stream in held.head.streams]
    packets: dict[int, list[PassPacket]] = {index: [] for index in numbers}
    for packet in held.packets():
        packets[numbers[packet.stream]].append(packet)
    shown: dict[int, list[tuple[Any, ...]]] = {}
    with av.open(str(source), metadata_errors="surrogateescape") as file:
        files = [stream for stream in file.streams if isinstance(stream, AttachmentStream)]
        others = [stream for stream in file.streams if stream not in files]
        assert [stream.index for stream in others if stream.index != held.head.video_index] == numbers
        assert [stream.data for stream in files] == [held.attachment(n) for n in range(len(files))]
        assert [stream.metadata for stream in files] == [one.metadata for one in held.head.attachments]
        assert held.head.metadata == file.metadata
        for described in held.head.streams:
            stream = file.streams[described.index]
            assert (described.kind, described.metadata) == (stream.type, stream.metadata)
            assert (described.disposition, described.time_base) == (stream.disposition, stream.time_base)
        for packet in file.demux(others):
            if packet.size:
                side = tuple((one.data_type, bytes(one)) for one in packet.iter_sidedata())
                flags = packet.is_keyframe + 2 * packet.is_discard + 4 * packet.is_corrupt
                one = (packet.pts, packet.dts, packet.duration, flags, side, bytes(packet))
                shown.setdefault(packet.stream_index, []).append(one)
    for index in numbers:
        got = [(one.pts, one.dts, one.duration, one.flags & 7, one.side, one.data) for one in packets[index]]
        assert got == shown.get(index, [])
    assert not held.head.omitted
    return f"{sum(map(len, packets.values()))} packets of {len(numbers)} streams exact in the archive"


def _equal(suffix: str) -> Callable[[Path, Run], str]:
    """A check: the archive is exact, and a container's description differs in nothing from the source's."""

    def check(source: Path, run: Run) -> str:
        result = archived(source, run)
        assert difference(source, run.output(suffix)) == ""
        assert not run.report(suffix).notes
        return f"{result}; {suffix} described as the source"

    return check


def _rich_mkv(folder: Path) -> Path:
    return assemble(
        folder / "rich.mkv",
        [
            Track(
                sound(folder / "1.mka", "flac"),
                metadata={"language": "deu", "title": "Stereo"},
                disposition=_DUB,
            ),
            Track(
                sound(folder / "2.mka", "ac3", "5.1(side)"),
                metadata={"language": "fra"},
                disposition=_COMMENT,
            ),
            Track(lines(folder / "l.ass"), metadata={"language": "eng", "title": "Full"}),
            Track(lines(folder / "l.srt"), metadata={"language": "jpn"}, disposition=_FORCED),
        ],
        video_at=1,
        chapters=_CHAPTERS,
        files=[({"filename": "a.ttf", "mimetype": "font/ttf", "title": "A font"}, _FONT)],
        metadata={"title": "Alles", "DATE_RECORDED": "1999", "creation_time": "2020-01-02T03:04:05.000000Z"},
        video_metadata={"title": "Bild", "REEL_NAME": "A001", "language": "ita"},
    )


def _rich_mp4(folder: Path) -> Path:
    return assemble(
        folder / "rich.mp4",
        [
            Track(
                sound(folder / "1.mp4", "aac"), metadata={"language": "deu"}, disposition=Disposition.default
            ),
            Track(
                sound(folder / "2.mp4", "ac3", "5.1(side)"),
                metadata={"language": "fra", "title": "Kommentar"},
                disposition=_COMMENT,
            ),
            _mov_text(Disposition.default, language="eng"),
            _mov_text(_FORCED, language="jpn"),
            Track(picture(folder / "c.png"), disposition=_COVER),
        ],
        chapters=_CHAPTERS,
        metadata={
            "title": "Alles",
            "artist": "Jemand",
            "location": "+48.8577+002.2950/",
            "creation_time": "2020-01-02T03:04:05.000000Z",
        },
        video_metadata={"timecode": "01:02:03:04"},
    )


def _mov_text(disposition: Disposition, clock: int = 1_000_000, **tags: str) -> Track:
    texts = [(0, 100, b""), (100, 200, b"One"), (300, 100, b""), (400, 300, b"Two")]
    packets = [(start, duration, len(text).to_bytes(2, "big") + text) for start, duration, text in texts]
    return Track(codec="mov_text", packets=packets, metadata=tags, disposition=disposition, clock=clock)


CHANGED_IN_MP4 = """\
-stream 5: data bin_data, '', per 1/1000
+stream 5: data bin_data, '', per 1/12800
-stream 6: handler_name = b'TimeCodeHandler'
+stream 6: handler_name = b'VideoHandler'
"""
"""FFmpeg's MP4 muxer writes these two tracks itself: that of the chapters with the pictures' clock, and that of the
time code under their track's name."""


def _rich_mp4_back(source: Path, run: Run) -> str:
    result = archived(source, run)
    found = difference(source, run.output(".mp4")).splitlines()[2:]
    assert [line for line in found if line[0] in "+-"] == CHANGED_IN_MP4.splitlines()
    assert not run.report(".mp4").notes
    return f"{result}; .mp4 described as the source but for the clock of the chapter track and a track's name"


def samples(path: Path) -> np.ndarray:
    """What a player plays of the first sound track: (channels or 1, samples)."""
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)


def _heard(*suffixes: str, notes: tuple[str, ...] = ()) -> Callable[[Path, Run], str]:
    """A check: the archive is exact, a sound track plays the same, and the reports say ``notes`` and no more."""

    def check(source: Path, run: Run) -> str:
        result = archived(source, run)
        wanted = samples(source)
        for suffix in suffixes:
            assert np.array_equal(samples(run.output(suffix)), wanted)
            assert set(run.report(suffix).notes) <= set(notes)
        return f"{result}; {' and '.join(suffixes)} play the same {wanted.size} samples"

    return check


def _sound(name: str, codec: str, layout: str = "stereo") -> Callable[[Path], Path]:
    suffix = Path(name).suffix
    return lambda folder: assemble(folder / name, [Track(sound(folder / f"a{suffix}", codec, layout))])


def _refused(suffix: str, *reasons: str, kept: str = "") -> Callable[[Path, Run], str]:
    """A check: the archive is exact, ``suffix`` leaves streams out with ``reasons``, and ``kept`` has them all."""

    def check(source: Path, run: Run) -> str:
        result = archived(source, run)
        assert run.report(suffix).notes == (*reasons, SEE_EXTRACT)
        if not kept:
            return f"{result}; {suffix}: {'; '.join(reasons)}"
        assert difference(source, run.output(kept)) == ""
        assert not run.report(kept).notes
        return f"{result}; {kept} described as the source; {suffix}: {'; '.join(reasons)}"

    return check


def _noted(suffix: str, *notes: str, changed: tuple[str, ...] = ()) -> Callable[[Path, Run], str]:
    """A check: the archive is exact, and of what the file says only lines that have ``changed`` in them differ."""

    def check(source: Path, run: Run) -> str:
        result = archived(source, run)
        found = difference(source, run.output(suffix)).splitlines()[2:]
        others = [line for line in found if line[0] in "+-" and not any(one in line for one in changed)]
        assert not others
        assert run.report(suffix).notes == notes
        return f"{result}; {suffix} says the same" + "".join(f"; {note}" for note in notes)

    return check


def _coarse(source: Path, run: Run) -> str:
    result = archived(source, run)

    def shown(path: Path) -> list[tuple[Any, ...]]:
        with av.open(str(path)) as file:
            packets = [packet for packet in file.demux(subtitles=0) if packet.size]
            unit = file.streams.subtitles[0].time_base or 0
            return [((one.pts or 0) * unit, (one.duration or 0) * unit, bytes(one)) for one in packets]

    assert shown(run.output(".mp4")) == shown(source)
    assert not run.report(".mp4").notes
    return f"{result}; .mp4 shows the same at the same times"


def _data(source: Path, run: Run) -> str:
    reasons = (
        "data 1 (klv) left out: mp4 cannot hold klv; .mov can",
        "data 2 (timed_id3) left out: mp4 cannot hold timed_id3",
    )
    result = _refused(".mp4", *reasons)(source, run)
    with av.open(str(source)) as file, av.open(str(run.output(".mov"))) as back:
        given = [bytes(packet) for packet in file.demux(file.streams[1]) if packet.size]
        got = [bytes(packet) for packet in back.demux(back.streams.data[0]) if packet.size]
    assert given == got
    with av.open(str(source)) as file:
        lost = b"".join(bytes(packet) for packet in file.demux(file.streams[2]) if packet.size)
    extract_archive(str(run.archive), str(run.folder / "files"), streams=[2])
    (file_of_its_own,) = (run.folder / "files").glob("2-*.bin")
    assert file_of_its_own.read_bytes() == lost
    return f"{result}; .mov has the KLV packets, s2vc extract those of the other stream"


def _adts(source: Path, run: Run) -> str:
    result = archived(source, run)
    with av.open(str(source)) as file, av.open(str(run.output(".mkv"))) as back:
        given = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
        got = [bytes(packet) for packet in back.demux(audio=0) if packet.size]
    assert [packet[7:] for packet in given] == got
    (form,) = [note for note in run.report(".mkv").notes if "another form" in note]
    return f"{result}; .mkv: {form}, which is without the seven bytes of ADTS header"


def _names(source: Path, run: Run) -> str:
    result = _equal(".mkv")(source, run)
    names = [one.name for one in carried(run).head.attachments]
    assert names == ["../../etc/passwd", "/etc/cron.d/x", "C:\\con\\nul", "caf\udce9.otf"]
    inside = {path.name for path in run.folder.rglob("*") if path.is_file()}
    assert not {Path(name).name for name in names if name} & inside
    return f"{result}; names stay tags, no file is made"


def _empty(source: Path, run: Run) -> str:
    result = _equal(".mkv")(source, run)
    assert [stream.packets for stream in carried(run).head.streams] == [0, 3]
    return result


def _late(folder: Path) -> Path:
    words = [(900 + 100 * number, 50, b"late %d" % number) for number in range(3)]
    empty = Track(codec="subrip", metadata={"language": "fra", "title": "Empty"}, disposition=_FORCED)
    return assemble(folder / "late.mkv", [empty, Track(codec="subrip", packets=words)], video_at=1)


def _tagged(folder: Path) -> Path:
    return assemble(
        folder / "tagged.mp4",
        [Track(sound(folder / "a.mp4"), metadata={"language": "und"}, disposition=Disposition.default)],
        metadata={
            "title": "Alles",
            "com.apple.quicktime.make": "Apple",
            "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950+035.123/",
            "com.apple.quicktime.creationdate": "2020-01-02T03:04:05+0200",
            "creation_time": "2020-01-02T01:04:05.000000Z",
            "location": "+48.8577+002.2950/",
            "inventory": "B-17 / 4",
        },
        options={"movflags": "use_metadata_tags"},
    )


def _covers_mkv(folder: Path) -> Path:
    files = [
        (
            {"filename": "cover.jpg", "mimetype": "image/jpeg"},
            picture(folder / "c.jpg", "mjpeg").read_bytes(),
        ),
        (
            {"filename": "back.png", "mimetype": "image/png", "title": "Back"},
            picture(folder / "c.png").read_bytes(),
        ),
        ({"filename": "a.ttf", "mimetype": "font/ttf"}, _FONT),
    ]
    return assemble(folder / "covers.mkv", [Track(sound(folder / "a.mka", "flac"))], files=files)


def _covers_mp4(folder: Path) -> Path:
    covers = [picture(folder / "c.jpg", "mjpeg"), picture(folder / "c.png")]
    return assemble(
        folder / "covers.mp4",
        [
            Track(sound(folder / "a.mp4"), disposition=Disposition.default),
            *(Track(cover, disposition=_COVER) for cover in covers),
        ],
    )


def _old_tags(folder: Path) -> Path:
    return assemble(
        folder / "old.mkv",
        [Track(codec="subrip", packets=[(0, 400, b"x")], metadata={"title": "caf\udce9 \udcff"})],
        metadata={"title": "\udce9t\udce9", "COMMENT": "line 1\nline 2; \u65e5\u672c"},
        chapters=[{"start": 0, "end": 800, "metadata": {"title": "\udcff", "ISBN": "1-23", "NOTE": "n"}}],
    )


CASES: tuple[Case, ...] = (
    Case(
        "mkv: 2 sounds, 2 subtitles, chapters, attached font, sound before pictures",
        "everything but the coding of the pictures, in the source's order",
        _rich_mkv,
        _equal(".mkv"),
    ),
    Case(
        "mp4: 2 sounds, 2 subtitles, chapters, cover, time code, place and date",
        "everything but the coding of the pictures",
        _rich_mp4,
        _rich_mp4_back,
    ),
    Case(
        "QuickTime: time code track with a reel name, 24-bit PCM",
        "time code, reel name, samples",
        lambda folder: assemble(
            folder / "reel.mov",
            [Track(sound(folder / "p.mov", "pcm_s24le"), disposition=Disposition.default)],
            video_metadata={"timecode": "10:00:00:00", "reel_name": "A001"},
        ),
        _noted(".mov", changed=("handler_name",)),
    ),
    Case(
        "mp4: QuickTime keys, place to 0.1 m, dates, an own tag",
        "every tag",
        _tagged,
        _equal(".mp4"),
    ),
    Case(
        "mkv: tags that are not UTF-8, chapters with tags of their own",
        "every byte",
        _old_tags,
        _equal(".mkv"),
    ),
    Case(
        "mkv: ASS subtitles with fonts whose names are paths or not UTF-8",
        "script header, fonts, names as names",
        lambda folder: assemble(
            folder / "fonts.mkv",
            [Track(lines(folder / "l.ass"), metadata={"language": "jpn"})],
            files=[
                ({"filename": name, "mimetype": "font/otf"}, _FONT + bytes([number]))
                for number, name in enumerate(
                    ["../../etc/passwd", "/etc/cron.d/x", "C:\\con\\nul", "caf\udce9.otf"]
                )
            ],
        ),
        _names,
    ),
    Case("mkv: covers with names, a font", "pictures, names, order", _covers_mkv, _equal(".mkv")),
    Case("mp4: covers in JPEG and PNG", "pictures", _covers_mp4, _equal(".mp4")),
    Case(
        "mkv: a subtitle track without packets, one that begins after the pictures end",
        "both tracks, their tags and flags",
        _late,
        _empty,
    ),
    Case(
        "mkv: PGS subtitles",
        "packets; a container that has no room for them says so",
        lambda folder: assemble(folder / "pgs.mkv", [Track(bitmap_lines(folder / "b.sup"))]),
        _refused(
            ".mp4",
            "subtitle 1 (hdmv_pgs_subtitle) left out: mp4 cannot hold hdmv_pgs_subtitle; .mkv can",
            kept=".mkv",
        ),
    ),
    Case(
        "mkv: WebVTT with names and places of its lines",
        "packets with their side data",
        lambda folder: assemble(folder / "vtt.mkv", [Track(lines(folder / "l.vtt"))]),
        _refused(".mp4", "subtitle 1 (webvtt) left out: mp4 cannot hold webvtt; .mkv can", kept=".mkv"),
    ),
    Case(
        "mp4: timed text on a coarse clock, with pauses",
        "packets and times; never converted",
        lambda folder: assemble(
            folder / "tx3g.mp4", [_mov_text(Disposition.default, clock=1000, language="fra")]
        ),
        _coarse,
    ),
    Case(
        "mp4: timed text, to mkv",
        "the packets in the archive; .mkv says why not",
        lambda folder: assemble(folder / "tx3g.mp4", [_mov_text(Disposition.default)]),
        _refused(
            ".mkv", "subtitle 1 (mov_text) left out: matroska cannot hold mov_text; .mp4 can", kept=".mp4"
        ),
    ),
    Case(
        "MPEG-TS: DVB subtitles, AAC in ADTS",
        "packets, languages",
        lambda folder: assemble(
            folder / "dvb.ts",
            [
                Track(
                    codec="dvb_subtitle",
                    packets=[
                        (at, 0, bytes([0x20, 0, 0x0F, 0x10, 0, 1, 0, 2, 5, at // 100, 0xFF]))
                        for at in (100, 400)
                    ],
                    metadata={"language": "deu"},
                ),
                Track(sound(folder / "a.ts"), metadata={"language": "fra"}),
            ],
        ),
        _adts,
    ),
    Case(
        "MPEG-TS: KLV and timed ID3 data",
        "packets in the archive; no container that holds them is promised",
        lambda folder: assemble(
            folder / "data.ts",
            [
                Track(
                    codec="klv", packets=[(100 * number, 0, _KLV + bytes([number])) for number in range(4)]
                ),
                Track(
                    codec="timed_id3",
                    packets=[(100 * number, 0, _ID3 + bytes([number])) for number in range(4)],
                ),
            ],
        ),
        _data,
    ),
    Case("mkv: Opus with pre-skip", "packets, what is heard", _sound("opus.mkv", "libopus"), _heard(".mkv")),
    Case("mp4: MP3 without gaps", "packets, what is heard", _sound("mp3.mp4", "libmp3lame"), _heard(".mp4")),
    Case(
        "mp4: AAC in 5.1(side)",
        "layout, packets, what is heard",
        _sound("aac.mp4", "aac", "5.1(side)"),
        _heard(".mp4"),
    ),
    Case(
        "mkv: E-AC-3 in 5.1",
        "layout, packets, what is heard",
        _sound("eac3.mkv", "eac3", "5.1(side)"),
        _heard(".mkv"),
    ),
    Case(
        "mkv: FLAC in 7.1",
        "layout, packets, what is heard in either container",
        _sound("flac.mkv", "flac", "7.1"),
        _heard(".mkv", ".mp4"),
    ),
    Case("mp4: AC-3 in mono", "packets, what is heard", _sound("ac3.mp4", "ac3", "mono"), _heard(".mp4")),
)
