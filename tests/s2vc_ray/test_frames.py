"""Decoding by GOP equals decoding from the start; what does not decode is left out and counted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import s2vc_ray.frames
import s2vc_ray.seeking
from s2vc_ray.errors import SourceError
from s2vc_ray.frames import DecodedGop, RgbConverter, decode_gop, read_gop
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from tests.media import all_frames, corrupt_middle, make_clip, open_gop_h264, open_gop_h265, pictures


def decode_all(path: Path, gop: int, threads: int = 1) -> list[DecodedGop]:
    specs = split(probe(path), source_uri=str(path), video_id="v", gop=gop)
    return [decode_gop(path, spec, threads=threads) for spec in specs]


def sequential(path: Path) -> np.ndarray:
    to_rgb = RgbConverter()
    return np.stack([to_rgb(frame) for frame in all_frames(path)[1]])


def assert_equal_to_sequential(path: Path, gop: int, threads: int = 1) -> None:
    gops = decode_all(path, gop, threads)
    got = np.concatenate([one.frames for one in gops])
    want = sequential(path)
    assert got.dtype == np.uint8
    assert got.shape == want.shape
    assert np.array_equal(got, want)
    assert sum(one.missing + one.corrupt + one.strayed for one in gops) == 0
    assert tuple(pts for one in gops for pts in one.pts) == probe(path).pts


@pytest.fixture
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when the first seek did not yield every frame."""
    first = s2vc_ray.frames.read_gop

    def only_once(*args: object, further_back: bool = False, **kwargs: object) -> object:
        assert not further_back
        return first(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(s2vc_ray.frames, "read_gop", only_once)


@pytest.mark.usefixtures("no_second_try")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".264"])
def test_open_gop_h264_with_b_frames(tmp_path: Path, suffix: str) -> None:
    clip = open_gop_h264(tmp_path / f"clip{suffix}")
    assert_equal_to_sequential(clip, 5)
    assert_equal_to_sequential(clip, 32)


@pytest.mark.usefixtures("no_second_try")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".hevc"])
def test_open_gop_h265(tmp_path: Path, suffix: str) -> None:
    clip = open_gop_h265(tmp_path / f"clip{suffix}")
    assert_equal_to_sequential(clip, 5)
    assert_equal_to_sequential(clip, 32)


def test_the_open_gop_clips_have_open_gops(tmp_path: Path) -> None:
    for make in (open_gop_h264, open_gop_h265):
        with av.open(str(make(tmp_path / "clip.mp4", size=(64, 48)))) as container:
            latest_key, leading = -1, 0
            for packet in container.demux(video=0):
                if packet.pts is not None:
                    latest_key = packet.pts if packet.is_keyframe else latest_key
                    leading += packet.pts < latest_key
        assert leading > 0


@pytest.mark.usefixtures("no_second_try")
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "b_frames", "gop"),
    [
        ("clip.mp4", "libx264", "yuv420p", None, 1),
        ("clip.mov", "prores_ks", "yuv422p10le", None, 1),
        ("clip.mkv", "ffv1", "yuv444p10le", None, 8),
        ("clip.avi", "mpeg4", "yuv420p", 2, 8),
        ("clip.avi", "mjpeg", "yuvj420p", None, 1),
        ("clip.webm", "libvpx-vp9", "yuv420p", None, 8),
        ("clip.mp4", "libx265", "yuv420p10le", None, 8),
    ],
)
def test_codecs(tmp_path: Path, name: str, codec: str, pix_fmt: str, b_frames: int | None, gop: int) -> None:
    clip = make_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, b_frames=b_frames, gop=gop)
    assert_equal_to_sequential(clip, 7)


def test_threads_change_nothing(tmp_path: Path) -> None:
    assert_equal_to_sequential(open_gop_h264(tmp_path / "clip.mp4", size=(64, 48)), 5, threads=3)


@pytest.mark.parametrize(("name", "codec"), [("clip.mpg", "mpeg2video"), ("clip.ts", "mpeg2video")])
def test_sparse_times(tmp_path: Path, name: str, codec: str) -> None:
    clip = make_clip(tmp_path / name, codec=codec, b_frames=2, frames=120, gop=12)
    assert_equal_to_sequential(clip, 7)


@pytest.mark.parametrize("name", ["clip.mpg", "clip.ts"])
def test_sparse_times_are_reached_by_seeking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clip = make_clip(
        tmp_path / name,
        codec="mpeg2video",
        b_frames=2,
        frames=150,
        gop=12,
        size=(176, 144),
        options={"b": "2000000"},
    )
    fed: list[int] = []
    decode = s2vc_ray.seeking.decode_packet

    def counted(stream: av.VideoStream, packet: object) -> object:
        fed.append(1)
        return decode(stream, packet)  # type: ignore[arg-type]

    monkeypatch.setattr(s2vc_ray.seeking, "decode_packet", counted)
    monkeypatch.setattr(s2vc_ray.seeking, "from_beginning", lambda *_: pytest.fail("read from the beginning"))
    last = split(probe(clip), source_uri="", video_id="v", gop=8)[-1]
    assert decode_gop(clip, last).missing == 0
    assert len(fed) < 40


@pytest.mark.usefixtures("no_second_try")
def test_keyframes_that_need_earlier_frames(tmp_path: Path) -> None:
    params = {"x264-params": "intra-refresh=1:keyint=12"}
    for suffix in (".ts", ".mp4"):
        clip = make_clip(tmp_path / f"refresh{suffix}", frames=40, options=params)
        assert probe(clip).keyframe_pts == probe(clip).pts[:1]
        assert_equal_to_sequential(clip, 5)


def test_variable_rate(tmp_path: Path) -> None:
    pts = [0, 3, 4, 9, 11, 12, 20, 21, 22, 23, 40, 41]
    assert_equal_to_sequential(make_clip(tmp_path / "v.mp4", pts=pts, time_base=Fraction(1, 600)), 5)


def test_binary_file_and_one_frame_at_a_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    spec = split(probe(clip), source_uri="", video_id="v", gop=6)[2]
    with clip.open("rb") as file:
        frames = list(read_gop(file, spec))
    assert [frame.pts for frame in frames] == list(spec.pts)
    assert np.array_equal(np.stack([frame.rgb for frame in frames]), decode_gop(clip, spec).frames)


@pytest.mark.parametrize(
    ("size", "colour", "pix_fmt"),
    [
        ((64, 48), None, "yuv420p"),
        ((1280, 64), None, "yuv420p"),
        ((64, 48), (1, 1, 1, 1), "yuv420p"),
        ((64, 48), (2, 1, 1, 6), "yuv420p"),
        ((64, 48), (2, 1, 1, 1), "yuv444p"),
        ((64, 48), (1, 9, 14, 9), "yuv420p10le"),
    ],
)
def test_colours_come_back_by_matrix_and_range(
    tmp_path: Path, size: tuple[int, int], colour: tuple[int, int, int, int] | None, pix_fmt: str
) -> None:
    """Flat colours, converted by hand from BT.601, BT.709 or BT.2020 and checked within 3 of 255."""
    width, height = size
    tags = colour or (0, 2, 2, 2)
    red_weight, blue_weight = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[
        tags[3] if colour else (1 if width >= 1280 else 6)
    ]
    wanted = np.array([200, 60, 30], np.float64)
    luma = red_weight * wanted[0] + (1 - red_weight - blue_weight) * wanted[1] + blue_weight * wanted[2]
    chroma = [
        (wanted[2] - luma) / (2 * (1 - blue_weight)),
        (wanted[0] - luma) / (2 * (1 - red_weight)),
    ]
    full = tags[0] == 2
    scale = 4 if "10" in pix_fmt else 1
    levels = [luma if full else 16 + luma * 219 / 255]
    levels += [128 + part * (1 if full else 224 / 255) for part in chroma]
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, level in zip(frame.planes, levels, strict=True):
        kind = np.uint16 if scale == 4 else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, round(level * scale), kind))
    frame.color_range, frame.colorspace = tags[0], tags[3]
    assert np.abs(RgbConverter()(frame).reshape(-1, 3) - wanted).max() <= 3


def test_unconvertible_matrix_is_an_error() -> None:
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.colorspace = 8
    with pytest.raises(SourceError, match="matrix 8"):
        RgbConverter()(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_damage_is_counted_and_nothing_invented(tmp_path: Path, suffix: str) -> None:
    whole = make_clip(tmp_path / f"whole{suffix}", frames=40, size=(128, 96), gop=8)
    hurt = corrupt_middle(whole, tmp_path / f"hurt{suffix}")
    info = probe(hurt)
    specs = split(info, source_uri="", video_id="v", gop=8)
    whole_frames = {rgb.tobytes() for rgb in sequential(whole)}
    same = 0
    for spec in specs:
        try:
            gop = decode_gop(hurt, spec)
        except SourceError:
            continue
        assert len(gop.pts) == len(gop.frames) == spec.frames - gop.missing
        assert set(gop.pts) <= set(spec.pts)
        same += sum(rgb.tobytes() in whole_frames for rgb in gop.frames)
    assert 8 <= same < 40


def test_frames_lost_to_damage_are_reported_missing(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=24, size=(128, 96), gop=8, b_frames=0)
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        at, size = packets[11].pos or 0, packets[11].size
    data = bytearray(clip.read_bytes())
    data[at : at + size] = b"\xff" * size
    clip.write_bytes(data)
    gops = decode_all(clip, 8)
    assert gops[0].missing == 0
    assert gops[1].missing >= 1
    assert packets[11].pts not in gops[1].pts
    assert gops[2].missing == 0


def test_gop_of_which_nothing_decodes_is_an_error(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", codec="mjpeg", pix_fmt="yuvj420p", frames=6)
    specs = split(probe(clip), source_uri="the source", video_id="v", gop=2)
    with av.open(str(clip)) as container:
        spans = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(clip.read_bytes())
    for at, size in spans[2:4]:
        data[at : at + size] = bytes(size)
    clip.write_bytes(data)
    assert decode_gop(clip, specs[0]).missing == 0
    with pytest.raises(SourceError, match="the source: none of the 2 frames of GOP 1"):
        decode_gop(clip, specs[1])


def test_change_of_size_is_an_error_for_its_gop_only(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.264", frames=8, size=(64, 48))
    large = make_clip(tmp_path / "large.264", frames=8, size=(96, 64))
    joined = tmp_path / "joined.264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    same = make_clip(tmp_path / "same.264", frames=16, size=(64, 48))
    first, second = split(probe(same), source_uri="", video_id="v", gop=8)
    assert decode_gop(joined, first).frames.shape == (8, 48, 64, 3)
    with pytest.raises(SourceError, match=r"picture size changes to 96x64 at frame 8, from 64x48.*split"):
        decode_gop(joined, second)


def test_decoded_pictures_are_the_encoded_ones(tmp_path: Path) -> None:
    rgb = pictures(4, 64, 48)
    clip = make_clip(tmp_path / "lossless.mkv", codec="ffv1", pix_fmt="bgr0", rgb=rgb)
    assert np.array_equal(np.concatenate([gop.frames for gop in decode_all(clip, 3)]), rgb)
