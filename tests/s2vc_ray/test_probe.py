"""``probe`` tells every frame's time, the seek points and the picture's properties, or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from s2vc_ray.errors import SourceError
from s2vc_ray.probe import probe
from s2vc_ray.source_io import read_packets
from s2vc_ray.values import ColourTags
from tests.media import (
    all_frames,
    empty_file,
    make_audio,
    make_clip,
    open_gop_h265,
    pictures,
    random_file,
    text_file,
    truncate,
)

CODECS = [
    ("clip.mp4", "libx264", "yuv420p"),
    ("clip.mkv", "libx265", "yuv420p10le"),
    ("clip.mkv", "ffv1", "yuv444p10le"),
    ("clip.avi", "mpeg4", "yuv420p"),
    ("clip.avi", "libx264", "yuv420p"),
    ("clip.ts", "libx264", "yuv420p"),
    ("clip.mpg", "mpeg2video", "yuv420p"),
    ("clip.webm", "libvpx", "yuv420p"),
    ("clip.mov", "prores_ks", "yuv422p10le"),
    ("clip.264", "libx264", "yuv420p"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), CODECS)
def test_lists_every_frame(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    clip = make_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=20)
    info = probe(clip)
    assert info.frames == 20
    assert (info.width, info.height, info.pix_fmt) == (64, 48, pix_fmt)
    assert list(info.pts) == sorted(set(info.pts))
    assert list(info.keyframe_pts) == sorted(set(info.keyframe_pts))
    assert set(info.keyframe_pts) <= set(info.pts)
    assert info.keyframe_pts[0] == info.pts[0]
    assert info.average_rate == 25
    if name.endswith(".mpg"):
        return  # program streams store few times; what lies between is the demuxer's estimate
    steps = {(b - a) * info.time_base for a, b in pairwise(info.pts)}
    assert steps == {Fraction(1, 25)}
    assert info.last_duration * info.time_base == Fraction(1, 25)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_times_are_the_decoder_s(tmp_path: Path, name: str) -> None:
    clip = make_clip(tmp_path / name, pts=[0, 3, 4, 9, 11, 12, 20, 21, 40], time_base=Fraction(1, 100))
    assert list(probe(clip).pts) == all_frames(clip)[0]


def test_variable_rate_times_are_exact(tmp_path: Path) -> None:
    pts = [0, 1001, 1500, 4004, 5005, 9009]
    info = probe(make_clip(tmp_path / "vfr.mp4", pts=pts, time_base=Fraction(1, 30000)))
    assert [time * info.time_base for time in info.pts] == [Fraction(time, 30000) for time in pts]


def test_rotation_aspect_and_colour(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "tags.mp4", rotation=90, sample_aspect=Fraction(4, 3), colour=(2, 1, 13, 5), frames=3
    )
    info = probe(clip)
    assert info.rotation == 90
    assert info.sample_aspect == Fraction(4, 3)
    assert info.colour == ColourTags(range=2, primaries=1, transfer=13, matrix=5)
    assert (info.width, info.height) == (64, 48)


def test_odd_size(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "odd.mp4", size=(53, 37), pix_fmt="yuv444p", frames=3))
    assert (info.width, info.height) == (53, 37)


def test_reads_a_binary_file_and_leaves_it_open(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    with clip.open("rb") as file:
        assert probe(file, uri="s3://bucket/clip.mp4") == probe(clip)
        assert not file.closed


def test_audio_beside_the_picture_changes_nothing(tmp_path: Path) -> None:
    plain = probe(make_clip(tmp_path / "a.mp4", frames=10))
    beside = probe(make_clip(tmp_path / "b.mp4", frames=10, audio="aac"))
    assert beside.pts == plain.pts


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=5)
    joined = tmp_path / "cover.mp4"
    with av.open(str(clip)) as source, av.open(str(joined), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        art = av.VideoFrame.from_ndarray(pictures(1, 32, 32)[0]).reformat(format="yuvj420p")
        out.mux(cover.encode(art))
        out.mux(cover.encode())
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    info = probe(joined)
    assert (info.codec, info.frames) == ("h264", 5)


def test_frames_hidden_by_an_edit_list_are_not_expected(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "whole.mkv", frames=16, gop=8, b_frames=0, options={"sc_threshold": "0"})
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(clip)) as source, av.open(str(trimmed), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                # Three frames before time 0: players decode them, and show none.
                packet.pts, packet.dts = (packet.pts or 0) - 120, (packet.dts or packet.pts or 0) - 120
                packet.stream = video
                out.mux(packet)
    shown = all_frames(trimmed)[0]
    assert len(shown) == 13
    assert list(probe(trimmed).pts) == shown


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path / "absent.mp4", "no such file"),
        (lambda path: path, "not a regular file"),
        (lambda path: empty_file(path / "empty.mp4"), "empty file"),
        (lambda path: text_file(path / "letter.mp4"), "not a readable media file"),
        (lambda path: text_file(path / "letter.txt"), "text file"),
        (lambda path: random_file(path / "noise.mp4"), "not a readable media file"),
        (lambda path: make_audio(path / "song.m4a"), "audio only"),
        (
            lambda path: truncate(make_clip(path / "whole.mp4"), path / "half.mp4"),
            "not a readable media file",
        ),
        (lambda path: _no_frames(path / "none.mkv"), "zero frames"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, make: object, reason: str) -> None:
    source = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(SourceError, match=reason) as caught:
        probe(source)
    assert str(source) in str(caught.value)


def _no_frames(path: Path) -> Path:
    """A file with a video stream and sound, and no picture in it."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=8000)
        sound.layout = "mono"
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate, frame.pts = 8000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path


def test_still_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    with av.open(str(path), "w") as out:
        image = out.add_stream("png", rate=1)
        image.width, image.height, image.pix_fmt = 64, 48, "rgb24"
        out.mux(image.encode(av.VideoFrame.from_ndarray(pictures(1, 64, 48)[0])))
        out.mux(image.encode())
    with pytest.raises(SourceError, match="still image"):
        probe(path)


def test_streams_that_appear_while_reading_end_it_in_peace() -> None:
    class Container:
        """As PyAV's, whose flush indexes a stream that it has no object for."""

        def demux(self, streams: object) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(size=7)
            raise IndexError("list index out of range")

    assert [packet.size for packet in read_packets(Container(), [])] == [7]  # type: ignore[arg-type]


def test_frames_that_share_a_time_are_refused(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "one.ts", frames=8)
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    with pytest.raises(SourceError, match="claim the same time"):
        probe(tmp_path / "two.ts")


@pytest.mark.parametrize(
    ("suffix", "options"), [("mp4", {"movflags": "+faststart"}), ("avi", {}), ("mkv", {})]
)
def test_headers_say_how_many_frames_a_truncated_file_lacks(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    whole = make_clip(tmp_path / f"whole.{suffix}", frames=60, container_options=options)
    half = probe(truncate(whole, tmp_path / f"half.{suffix}", 0.6))
    assert probe(whole).frames_declared == 60
    assert 0 < half.frames < 60
    assert half.frames_declared == 60


def test_a_whole_file_of_uneven_frames_lacks_nothing(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "vfr.mkv", pts=[0, 10, 11, 50, 60], time_base=Fraction(1, 10)))
    assert info.frames_declared == 5


def test_stream_cut_before_its_first_keyframe_lists_only_decodable_frames(tmp_path: Path) -> None:
    data = open_gop_h265(tmp_path / "whole.ts", size=(64, 48)).read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(data[188 * (len(data) // 188 // 4) :])
    info = probe(cut)
    assert list(info.pts) == sorted(time for time in all_frames(cut)[0] if time is not None)
    assert info.frames < 32
