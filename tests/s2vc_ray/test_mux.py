"""Times, counts, sizes, tags and packets survive from a source to the file written from its frames."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from s2vc_ray.encoders import Encoder, encoder
from s2vc_ray.errors import ConfigError, ObjectExists, StorageError
from s2vc_ray.frames import decode_gop
from s2vc_ray.mux import MuxReport, VideoHeader, write_video
from s2vc_ray.passthrough import Passthrough, extract
from s2vc_ray.passthrough_format import write_passthrough
from s2vc_ray.passthrough_head import PassAttachment
from s2vc_ray.pictures import TimedFrame
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.values import ColourTags
from tests.matrix.assemble import Track, assemble, picture, sound
from tests.media import all_frames, make_clip, pictures, rich_clip

VFR = [0, 3, 4, 9, 11, 12, 20, 21, 22, 23, 40, 41]


def frames_of(path: Path) -> Iterator[TimedFrame]:
    for spec in split(probe(path), source_uri="", video_id="v", gop=5):
        gop = decode_gop(path, spec)
        yield from zip(gop.pts, gop.frames, strict=True)


def round_trip(clip: Path, out: Path) -> MuxReport:
    """Source → frames and passthrough bytes → file."""
    carried = Passthrough.from_bytes(extract(clip).to_bytes())
    return write_video(out, frames_of(clip), VideoHeader.from_info(probe(clip)), carried)


def times(path: Path) -> list[Fraction]:
    info = probe(path)
    return [pts * info.time_base for pts in info.pts]


def audio(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        unit = container.streams.audio[0].time_base or Fraction(1)
        return [
            ((packet.pts or 0) * unit, (packet.dts or 0) * unit, hashlib.md5(bytes(packet)).hexdigest())
            for packet in container.demux(audio=0)
            if packet.size
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("pts", [None, VFR], ids=["cfr", "vfr"])
def test_everything_survives(tmp_path: Path, suffix: str, pts: list[int] | None) -> None:
    clip = make_clip(
        tmp_path / "source.mp4",
        pts=pts,
        time_base=Fraction(1, 25) if pts is None else Fraction(1, 250),
        audio="aac",
        rotation=90,
        sample_aspect=Fraction(4, 3),
        colour=(1, 1, 1, 1),
        metadata={"title": "A tale"},
    )
    out = tmp_path / f"out{suffix}"
    report = round_trip(clip, out)
    before, after = probe(clip), probe(out)
    assert times(out) == times(clip)
    assert report.pts_error == 0
    assert report.frames == after.frames == before.frames
    for field in ("width", "height", "rotation", "sample_aspect", "colour"):
        assert getattr(after, field) == getattr(before, field)
    assert after.last_duration * after.time_base == before.last_duration * before.time_base
    assert [digest for *_, digest in audio(out)] == [digest for *_, digest in audio(clip)]
    error = max(abs(a[0] - b[0]) for a, b in zip(audio(clip), audio(out), strict=True))
    assert error == report.rounded.get(1, 0)
    assert error <= (0 if suffix == ".mp4" else Fraction(1, 2000))
    # Matroska cannot say that some samples of the first and the last packet are not to be played.
    trimmed = {
        "stream 1: 1 packets have another duration",
        "stream 1: the container does not keep of its packets: discard, skip_samples",
    }
    assert (report.carried, report.omitted) == ((1,), ())
    assert set(report.notes) <= (set() if suffix == ".mp4" else trimmed)
    with av.open(str(out)) as container:
        assert container.metadata["title"] == "A tale"
        assert container.streams.audio[0].language == "deu"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["source.mp4", out.name])


@pytest.mark.parametrize("codec", ["ac3", "flac", "libopus", "libmp3lame", "pcm_s16le", "alac"])
@pytest.mark.parametrize("source", [".mp4", ".mkv"])
@pytest.mark.parametrize("target", [".mp4", ".mkv"])
def test_audio_codecs(tmp_path: Path, codec: str, source: str, target: str) -> None:
    clip = make_clip(tmp_path / f"source{source}", audio=codec, frames=8)
    out = tmp_path / f"out{target}"
    report = round_trip(clip, out)
    before, after = audio(clip), audio(out)
    assert [digest for *_, digest in after] == [digest for *_, digest in before]
    errors = [abs(a[0] - b[0]) for a, b in zip(before, after, strict=True)]
    assert max(errors) == report.rounded.get(1, 0) <= Fraction(1, 2000)
    if source == target:
        assert max(errors) == 0
    assert times(out) == times(clip)


def test_audio_plays_the_same_samples(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.mp4", audio="aac")
    round_trip(clip, tmp_path / "out.mp4")

    def samples(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)

    assert np.array_equal(samples(clip), samples(tmp_path / "out.mp4"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("size", [(53, 37), (64, 37), (16, 16)])
def test_any_size(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    header = VideoHeader(*size, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)
    rgb = pictures(4, *size)
    write_video(tmp_path / f"out{suffix}", enumerate(rgb), header)
    info = probe(tmp_path / f"out{suffix}")
    assert (info.width, info.height, info.frames) == (*size, 4)


@pytest.mark.parametrize("colour", [(0, 2, 2, 2), (1, 1, 1, 1), (2, 1, 13, 6), (1, 9, 16, 9), (0, 2, 2, 0)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int, int], suffix: str) -> None:
    header = VideoHeader(65, 49, Fraction(1, 25), 0, Fraction(1), ColourTags(*colour), Fraction(25), 1)
    rgb = np.empty((1, 49, 65, 3), np.uint8)
    rgb[:] = (200, 60, 30)
    out = tmp_path / f"out{suffix}"
    report = write_video(out, enumerate(rgb), header, encoder=encoder("h264", crf=1))
    if suffix == ".y4m" and colour[3] in (1, 9):
        assert f"it is {colour[3]} (ITU-T H.273)" in report.notes[0]
        return
    (_, got), *_ = frames_of(out)
    assert np.abs(got.astype(int) - rgb[0]).max() <= 4


def test_matroska_rounds_to_milliseconds_and_says_so(tmp_path: Path) -> None:
    pts = [0, 1001, 2002, 3003, 7007]
    clip = make_clip(tmp_path / "source.mp4", pts=pts, time_base=Fraction(1, 30000))
    report = round_trip(clip, tmp_path / "out.mkv")
    wanted = [Fraction(round(time * 1000), 1000) for time in times(clip)]
    assert times(tmp_path / "out.mkv") == wanted
    assert report.pts_error == max(abs(a - b) for a, b in zip(wanted, times(clip), strict=True)) > 0


def test_frames_within_one_millisecond_need_mp4(tmp_path: Path) -> None:
    header = VideoHeader(16, 16, Fraction(1, 90000), 0, Fraction(1), ColourTags(), None, 0)
    frames = list(zip([0, 20, 3600], pictures(3, 16, 16), strict=True))
    with pytest.raises(ConfigError, match="one millisecond"):
        write_video(tmp_path / "out.mkv", frames, header)
    assert write_video(tmp_path / "out.mp4", frames, header).pts_error == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_start_other_than_zero_is_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.ts", audio="aac", frames=10)
    assert times(clip)[0] > 0
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        report = round_trip(clip, out)
        assert times(out) == times(clip)
        # MP4 and Matroska hold AAC without the ADTS headers that a transport stream has.
        assert "stream 1: the container stores its packets in another form" in report.notes
        assert max(abs(a[0] - b[0]) for a, b in zip(audio(clip), audio(out), strict=True)) <= Fraction(
            1, 2000
        )


def test_times_before_zero_are_shifted_and_reported(tmp_path: Path) -> None:
    header = VideoHeader(16, 16, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)
    report = write_video(tmp_path / "out.mp4", zip(range(-2, 2), pictures(4, 16, 16), strict=True), header)
    assert times(tmp_path / "out.mp4") == [Fraction(n, 25) for n in range(4)]
    assert "0.080000 s later" in report.notes[0]


def test_chapters_and_sound_move_with_pictures_before_zero(tmp_path: Path) -> None:
    chapters = [{"start": 0, "end": 400, "metadata": {"title": "One"}}]
    source = assemble(tmp_path / "s.mkv", [Track(sound(tmp_path / "a.mka", "flac"))], chapters=chapters)
    header = VideoHeader(16, 16, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)
    frames = zip(range(-2, 2), pictures(4, 16, 16), strict=True)
    report = write_video(tmp_path / "out.mkv", frames, header, extract(source))
    assert [note for note in report.notes if "later" not in note] == []
    late = Fraction(2, 25)
    assert [time - late for time, *_ in audio(tmp_path / "out.mkv")] == [time for time, *_ in audio(source)]
    (chapter,) = extract(tmp_path / "out.mkv").head.chapters
    assert [time * chapter.time_base - late for time in (chapter.start, chapter.end)] == [0, Fraction(2, 5)]


def test_an_attached_file_that_does_not_show_is_told(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.mkv", frames=4)
    empty = PassAttachment(1, {"filename": "empty.ttf", "mimetype": "font/ttf"})
    carried = write_passthrough(replace(extract(clip).head, attachments=(empty,)), [], [b""])
    report = write_video(tmp_path / "out.mkv", frames_of(clip), VideoHeader.from_info(probe(clip)), carried)
    assert report.notes == ("attachment 1 (empty.ttf): the file does not show it",)


def test_subtitles_chapters_and_attachments(tmp_path: Path) -> None:
    clip = rich_clip(tmp_path / "rich.mkv")
    report = round_trip(clip, tmp_path / "out.mkv")
    assert (report.omitted, report.notes) == ((), ())
    carried = extract(tmp_path / "out.mkv")
    assert carried.head.chapters[0].metadata == {"title": "One"}
    assert carried.head.attachments == extract(clip).head.attachments
    (subtitle,) = carried.packets()
    assert (subtitle.data, subtitle.pts, subtitle.duration) == (b"Bonjour", 100, 300)

    report = round_trip(clip, tmp_path / "out.mp4")
    reasons = {one.kind: one.reason for one in report.omitted}
    assert reasons["attachment"] == "mp4 holds no attached files; .mkv does"
    assert "mp4 cannot hold subrip" in reasons["subtitle"]


def test_streams_keep_the_source_s_order(tmp_path: Path) -> None:
    tracks = [Track(sound(tmp_path / "a.mp4")), Track(sound(tmp_path / "b.mp4", "ac3"))]
    source = assemble(tmp_path / "source.mp4", tracks, video_at=1)
    for suffix in (".mp4", ".mkv"):
        round_trip(source, tmp_path / f"out{suffix}")
        with av.open(str(tmp_path / f"out{suffix}")) as file:
            assert [stream.type for stream in file.streams] == ["audio", "video", "audio"]
            assert [stream.codec_context.name for stream in file.streams.audio] == ["aac", "ac3"]
        assert times(tmp_path / f"out{suffix}") == times(source)


def test_an_end_mark_of_subtitles_is_told(tmp_path: Path) -> None:
    """FFmpeg's MP4 muxer clears the screen after the last line, whether or not the source did."""
    source = assemble(
        tmp_path / "s.mp4", [Track(codec="mov_text", packets=[(0, 301, b"\0\1x")], clock=1_000_000)]
    )
    given = [packet for packet in extract(source).packets() if packet.data != b"\0\0"]
    carried = write_passthrough(extract(source).head, given)
    report = write_video(tmp_path / "o.mp4", frames_of(source), VideoHeader.from_info(probe(source)), carried)
    assert report.notes == ("stream 1: an empty packet more ends the subtitles",)


def test_what_a_container_does_not_keep_is_told(tmp_path: Path) -> None:
    tracks = [
        Track(
            sound(tmp_path / "a.mka", "flac"), metadata={"ARCHIVE_ID": "7"}, disposition=Disposition.original
        )
    ]
    chapters = [{"start": 0, "end": 400, "metadata": {"title": "One", "ISBN": "1"}}]
    cover = ({"filename": "cover.png", "mimetype": "image/png"}, picture(tmp_path / "c.png").read_bytes())
    source = assemble(
        tmp_path / "source.mkv", tracks, chapters=chapters, files=[cover], metadata={"INVENTORY": "B"}
    )
    assert round_trip(source, tmp_path / "out.mkv").notes == ()
    assert set(round_trip(source, tmp_path / "out.mp4").notes) == {
        "the container did not keep the tags INVENTORY",
        "chapter 0 did not keep the tags ISBN",
        "stream 1 did not keep the tags ARCHIVE_ID",
        "stream 1: its disposition is default where it was original",
        "stream 2 did not keep the tags filename, mimetype",
    }


def test_names_and_tags_of_a_source_are_shown_safely(tmp_path: Path) -> None:
    font = ({"filename": "\x1b[2Jcaf\udce9.ttf", "mimetype": "font/ttf"}, b"x")
    chapters = [{"start": 0, "end": 500, "metadata": {"title": "One", "A\udce9": "x"}}]
    source = assemble(tmp_path / "s.mkv", [], files=[font], chapters=chapters)
    report = round_trip(source, tmp_path / "out.mp4")
    assert report.omitted[0].codec == "\ufffd[2Jcaf\ufffd.ttf"
    assert report.notes == ("chapter 0 did not keep the tags A\ufffd",)


def test_a_cut_passthrough_gives_what_is_whole(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.mp4", audio="pcm_s16le")
    data = extract(clip).to_bytes()
    carried = Passthrough.read(io.BytesIO(data[: len(data) * 9 // 10]), salvage=True)
    report = write_video(tmp_path / "out.mp4", frames_of(clip), VideoHeader.from_info(probe(clip)), carried)
    assert any(note.startswith("audio and other streams end early") for note in report.notes)
    whole, cut = audio(clip), audio(tmp_path / "out.mp4")
    assert 0 < len(cut) < len(whole)
    assert [digest for *_, digest in cut] == [digest for *_, digest in whole][: len(cut)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_forged_streams_cost_only_themselves(tmp_path: Path, suffix: str) -> None:
    """Templates, layouts, side data and times come from an archive, which anybody may have written."""
    clip = make_clip(tmp_path / "source.mp4", audio="aac", frames=6)
    true = extract(clip)
    (stream,), packets = true.head.streams, list(true.packets())
    forged = [
        (replace(stream, template=b"RIFF"), packets),
        (replace(stream, kind="subtitle"), packets),
        (replace(stream, parameters={"layout": "a thousand"}), packets),
        (replace(stream, time_base=Fraction((1 << 31) - 1, 1)), packets),
        (stream, [replace(one, side=(("nonesuch", b"x"), ("skip_samples", b""))) for one in packets]),
        (stream, [replace(one, pts=(1 << 62), dts=-(1 << 62), duration=1 << 62) for one in packets]),
        (stream, [replace(one, pts=-one.dts, dts=-one.dts) for one in packets if one.dts is not None]),
    ]
    for number, (one, given) in enumerate(forged):
        carried = write_passthrough(replace(true.head, streams=(one,)), given)
        out = tmp_path / f"out{number}{suffix}"
        report = write_video(out, frames_of(clip), VideoHeader.from_info(probe(clip)), carried)
        assert report.omitted or report.notes
        assert times(out) == times(clip)


def test_y4m(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.mp4", size=(53, 37), pix_fmt="yuv444p", audio="aac", rotation=90)
    report = round_trip(clip, tmp_path / "out.y4m")
    assert (tmp_path / "out.y4m").read_bytes().startswith(b"YUV4MPEG2 W53 H37 F25:1 Ip A0:0 C444 ")
    assert len(all_frames(tmp_path / "out.y4m")[1]) == 24
    assert (report.frames, report.pts_error, report.carried) == (24, 0, ())
    assert [(one.index, one.codec) for one in report.omitted] == [(1, "aac")]
    assert any("rotated" in note for note in report.notes)
    wanted = np.stack([rgb for _, rgb in frames_of(clip)]).astype(int)
    got = np.stack([rgb for _, rgb in frames_of(tmp_path / "out.y4m")])
    assert np.abs(got - wanted).mean() < 1.5


def test_y4m_reports_a_variable_rate(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "source.mp4", pts=VFR, time_base=Fraction(1, 250))
    assert round_trip(clip, tmp_path / "out.y4m").pts_error > 0


def test_dash_writes_y4m_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "source.mp4", frames=3)
    round_trip(clip, tmp_path / "out.y4m")
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream))
    write_video("-", frames_of(clip), VideoHeader.from_info(probe(clip)))
    assert stream.getvalue() == (tmp_path / "out.y4m").read_bytes()
    assert not Path("-").exists()


HEADER = VideoHeader(16, 16, Fraction(1, 25), 0, Fraction(1), ColourTags(), Fraction(25), 1)


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    with pytest.raises(ObjectExists):
        write_video(out, enumerate(pictures(2, 16, 16)), HEADER)
    assert out.read_bytes() == b"precious"
    write_video(out, enumerate(pictures(2, 16, 16)), HEADER, overwrite=True)
    assert probe(out).frames == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
def test_failure_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    def failing() -> Iterator[TimedFrame]:
        yield 0, pictures(1, 16, 16)[0]
        raise StorageError("the archive is gone")

    with pytest.raises(StorageError, match="the archive is gone"):
        write_video(tmp_path / f"out{suffix}", failing(), HEADER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "no frames"),
        ([(0, np.zeros((8, 16, 3), np.uint8))], "not uint8"),
        ([(0, np.zeros((16, 16, 3), np.float32))], "not uint8"),
        ([(1, np.zeros((16, 16, 3), np.uint8)), (1, np.zeros((16, 16, 3), np.uint8))], "must ascend"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_wrong_frames_are_refused(tmp_path: Path, frames: list[TimedFrame], reason: str, suffix: str) -> None:
    with pytest.raises(StorageError, match=reason):
        write_video(tmp_path / f"out{suffix}", frames, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_and_encoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown output format"):
        write_video(tmp_path / "out.gif", [], HEADER)
    nonesuch = Encoder("nonesuch", (".mp4",), "yuv420p", "yuv444p")
    with pytest.raises(ConfigError, match="cannot encode nonesuch"):
        write_video(tmp_path / "out.mp4", enumerate(pictures(1, 16, 16)), HEADER, encoder=nonesuch)
