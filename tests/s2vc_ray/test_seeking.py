"""Frames found by seeking are those of a plain decode, whatever a source's index says of them."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

import s2vc_ray.frames
import s2vc_ray.seeking
from s2vc_ray.errors import SourceError
from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.frames import decode_gop, read_gop
from s2vc_ray.probe import probe
from s2vc_ray.seek_points import begins_exactly
from s2vc_ray.source_io import choose_video, decode_packet, open_source, packets_of
from s2vc_ray.split import split
from s2vc_ray.times import Times
from s2vc_ray.values import GopSpec
from tests.media import make_clip, open_gop_h264, open_gop_h265

GOP = 7
"""Beside keyframes that are 8 apart."""


def plain(path: Path) -> list[str]:
    digest = FrameHasher()
    with av.open(str(path)) as file:
        return [digest(frame).md5 for frame in file.decode(video=0)]


def specs_of(path: Path) -> list[GopSpec]:
    return list(split(probe(path), source_uri=str(path), video_id="v", gop=GOP))


def by_gops(path: Path, **changes: Any) -> tuple[list[str], int]:
    """Digests of all frames, and how many GOPs were not where the source says; by specs with ``changes``."""
    gops = [decode_gop(path, replace(spec, **changes)) for spec in specs_of(path)]
    assert sum(gop.missing for gop in gops) == 0
    return [one.md5 for gop in gops for one in gop.digests], sum(gop.strayed for gop in gops)


def shift_index(path: Path, by: int) -> None:
    """Let every entry of an AVI's index but the first point ``by`` bytes too far."""
    data = bytearray(path.read_bytes())
    at = data.index(b"idx1")
    for entry in range(at + 8 + 16, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), 16):
        place = int.from_bytes(data[entry + 8 : entry + 12], "little") + by
        data[entry + 8 : entry + 12] = place.to_bytes(4, "little")
    path.write_bytes(data)


def rotate_index(path: Path) -> None:
    """Drop the third entry of an AVI's index: all that follow are one too early."""
    data = bytearray(path.read_bytes())
    at = data.index(b"idx1") + 8
    end = at + int.from_bytes(data[at - 4 : at], "little")
    data[at + 32 : end] = data[at + 48 : end] + b"none" + bytes(12)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("codec", "audio", "by"),
    [
        ("mpeg4", None, 4),
        ("mpeg4", "pcm_s16le", 100),
        ("msmpeg4", None, 100),
        ("flv", "pcm_s16le", 4),
        ("mjpeg", None, 4),
        ("mjpeg", None, 0),
    ],
)
def test_an_avi_index_that_lies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, audio: str | None, by: int
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clip = make_clip(tmp_path / "a.avi", codec=codec, audio=audio, frames=37, pix_fmt=pix_fmt, b_frames=0)
    whole = plain(clip)
    assert by_gops(clip) == (whole, 0)
    if by:
        shift_index(clip, by)
    else:
        rotate_index(clip)
    assert plain(clip) == whole, "whoever does not seek never sees the index"
    assert probe(clip).index_hidden == bool(by)
    assert by_gops(clip) == (whole, 0 if by else 5), "each chunk says itself what it is"
    with caplog.at_level(logging.WARNING, "s2vc_ray.seeking"):
        found, strayed = by_gops(clip, index_hidden=False)
    assert found == whole
    assert strayed >= 3
    assert "behind its seek point; it is read from the source's beginning" in caplog.text


@pytest.mark.parametrize("audio", [None, "pcm_s16le"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_avi_whose_index_ends_early_or_is_not_there(
    tmp_path: Path, audio: str | None, share: float
) -> None:
    clip = make_clip(tmp_path / "a.avi", codec="mpeg4", audio=audio, frames=37, b_frames=0)
    whole, data = plain(clip), clip.read_bytes()
    at = data.index(b"idx1")
    clip.write_bytes(data[: at + int(share * (len(data) - at))])
    assert by_gops(clip) == (whole, 0)


def test_without_its_trail_nothing_is_noticed(tmp_path: Path) -> None:
    """What the trails are for: the same index, believed."""
    clip = make_clip(tmp_path / "a.avi", codec="mpeg4", frames=37, b_frames=0)
    whole = plain(clip)
    shift_index(clip, 4)
    gops = [decode_gop(clip, replace(spec, trail=(), index_hidden=False)) for spec in specs_of(clip)]
    found = [one.md5 for gop in gops for one in gop.digests]
    assert sum(a != b for a, b in zip(found, whole, strict=True)) == 22
    assert not any(gop.strayed or gop.missing or gop.corrupt for gop in gops)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mpg", ".avi", ".flv"])
def test_another_trail_leads_to_the_beginning(tmp_path: Path, suffix: str) -> None:
    """Whatever does not agree with the plan is read as it was planned."""
    codec = "mpeg2video" if suffix in (".mpg", ".ts") else "mpeg4" if suffix == ".avi" else "libx264"
    clip = make_clip(tmp_path / f"a{suffix}", codec=codec, frames=60, b_frames=2)
    whole = plain(clip)
    spec = specs_of(clip)[-2]
    assert spec.trail
    assert spec.seek_trail
    for other in (
        replace(spec, trail=Times(trail ^ 1 for trail in spec.trail)),
        replace(spec, seek_trail=spec.seek_trail ^ 1),
    ):
        gop = decode_gop(clip, other)
        assert [one.md5 for one in gop.digests] == whole[spec.first_frame :][: spec.frames]
        assert gop.strayed
        assert [frame.pts for frame in read_gop(clip, other)] == list(spec.pts)


def test_each_frame_has_a_trail_of_its_own(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.avi"):
        info = probe(make_clip(tmp_path / name, frames=30, b_frames=2))
        assert len(set(info.trail)) == len(info.trail) == info.frames
        assert len(set(info.keyframe_trail)) == len(info.keyframe_trail) == len(info.keyframe_pts)


def sync_samples(path: Path, *, all_of_them: bool) -> None:
    """Let an MP4 call every sample a keyframe, or each keyframe's neighbour but the first's."""
    data = bytearray(path.read_bytes())
    at = data.index(b"stss")
    if all_of_them:
        data[at : at + 4] = b"free"
    for entry in range(at + 16, at + 12 + 4 * int.from_bytes(data[at + 8 : at + 12]), 4):
        data[entry : entry + 4] = (int.from_bytes(data[entry : entry + 4]) + 1).to_bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize("all_of_them", [False, True])
@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.mp4", "mpeg4", 0),
        ("a.mov", "mpeg4", 2),
        ("a.mp4", "libx264", 2),
        ("a.mp4", "libx265", 2),
        ("a.mov", "mpeg2video", 2),
        ("a.mp4", "libvpx-vp9", 0),
        ("a.3gp", "h263", 0),
    ],
)
def test_keyframes_that_are_none(
    tmp_path: Path, name: str, codec: str, b_frames: int, all_of_them: bool
) -> None:
    size = (176, 144) if codec == "h263" else (64, 48)
    clip = make_clip(tmp_path / name, codec=codec, b_frames=b_frames, frames=37, size=size)
    whole = plain(clip)
    assert by_gops(clip) == (whole, 0)
    sync_samples(clip, all_of_them=all_of_them)
    assert by_gops(clip)[0] == whole


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".264", ".avi"])
def test_what_the_first_packet_says_of_the_encoder_holds_for_all(tmp_path: Path, suffix: str) -> None:
    """Lossless H.264 of an old x264, whose fault FFmpeg's decoder repeats once it knows the name."""
    options = {"x264-params": "qp=0:scenecut=0"}
    clip = make_clip(tmp_path / f"a{suffix}", frames=37, b_frames=2, options=options)
    assert probe(clip).encoder_note == b""
    whole, build = plain(clip), re.search(rb"x264 - core (\d+)", clip.read_bytes())
    assert by_gops(clip) == (whole, 0)
    assert build is not None
    clip.write_bytes(clip.read_bytes().replace(build[0], b"x264 - core 140"))
    assert plain(clip) != whole
    assert by_gops(clip) == (plain(clip), 0)
    threaded = [decode_gop(clip, spec, threads=3) for spec in specs_of(clip)]
    assert [one.md5 for gop in threaded for one in gop.digests] == plain(clip)
    assert by_gops(clip, encoder_note=b"")[0] != plain(clip)


INDEXES = {
    ".avi": lambda data: (data.index(b"idx1") + 8, len(data)),
    ".mkv": lambda data: (data.rindex(b"\x1c\x53\xbb\x6b") + 5, len(data)),
    ".mp4": lambda data: (data.index(b"stss") + 8, data.index(b"stsc") - 4),
}
"""Where a file's index lies: AVI's chunks, Matroska's cues, an MP4's sync samples and, behind them, its offsets."""


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "mpeg4", {"b_frames": 0}),
        ("a.avi", "libx264", {"b_frames": 2}),
        ("a.avi", "msmpeg4", {"audio": "pcm_s16le"}),
        ("a.mkv", "libx264", {"b_frames": 2}),
        ("a.mp4", "mpeg4", {"b_frames": 2}),
        ("a.mp4", "libx265", {}),
    ],
)
def test_whatever_an_index_says(tmp_path: Path, name: str, codec: str, options: dict[str, Any]) -> None:
    """What comes of GOPs is what comes of one that is the whole film, which takes no seek."""
    clip = make_clip(tmp_path / name, codec=codec, frames=37, **options)
    whole, draw = clip.read_bytes(), random.Random(7)
    begin, end = INDEXES[clip.suffix](whole)
    read = 0
    for number in range(40):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 2, 6))):
            at = draw.randrange(begin, end)
            data[at] = (data[at] + draw.choice((1, -1, 4, -4, 16, draw.randrange(256)))) % 256
        clip.write_bytes(data)
        try:
            info = probe(clip)
        except SourceError:
            continue
        (film,) = split(info, source_uri=str(clip), video_id="v", gop=info.frames)
        gops = [decode_gop(clip, spec) for spec in specs_of(clip)]
        assert [pts for gop in gops for pts in gop.pts] == list(info.pts), number
        assert [one for gop in gops for one in gop.digests] == list(decode_gop(clip, film).digests), number
        read += 1
    assert read > 10


def test_times_that_do_not_ascend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No offsets from decoding to showing: pictures leave the decoder in another order than that of their times."""
    clip = make_clip(tmp_path / "a.mp4", codec="mpeg4", b_frames=2, frames=37)
    clip.write_bytes(clip.read_bytes().replace(b"ctts", b"free"))
    with av.open(str(clip)) as file:
        times = [frame.pts or 0 for frame in file.decode(video=0)]
    assert times != sorted(times)
    wanted = [md5 for _, md5 in sorted(zip(times, plain(clip), strict=True))]
    assert by_gops(clip) == (wanted, 0)
    monkeypatch.setattr(s2vc_ray.frames, "_LATER", 0)
    assert sum(decode_gop(clip, spec).missing for spec in specs_of(clip)) > 0


def test_a_keyframe_that_does_not_decode_is_no_lie(tmp_path: Path) -> None:
    """It is damage: the frames that need it are sought from further back, and nothing is read from the beginning."""
    clip = make_clip(tmp_path / "a.mkv", frames=37, gop=8, b_frames=0)
    with av.open(str(clip)) as file:
        keys = [packet for packet in file.demux(video=0) if packet.size and packet.is_keyframe]
    at, size = (keys[2].pos or 0) + 6, keys[2].size
    data = bytearray(clip.read_bytes())
    data[at : at + size - 8] = bytes(size - 8)
    clip.write_bytes(data)
    gops = [decode_gop(clip, spec) for spec in specs_of(clip)]
    assert not any(gop.strayed for gop in gops)
    assert 0 < sum(gop.missing for gop in gops) < 10


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"b_frames": 2}),
        ("a.264", "libx264", {"b_frames": 2}),
        ("a.mkv", "libx265", {}),
        ("a.hevc", "libx265", {}),
        ("a.mpg", "mpeg2video", {"b_frames": 2}),
        ("a.mpg", "mpeg1video", {"b_frames": 2}),
        ("a.mp4", "mpeg4", {"b_frames": 2}),
        ("a.webm", "libvpx", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.mkv", "libvpx-vp9", {"pix_fmt": "yuv444p"}),
    ],
)
def test_packets_and_decoder_agree_about_keyframes(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any]
) -> None:
    assert_agreement(make_clip(tmp_path / name, codec=codec, frames=30, **options))


def test_packets_and_decoder_agree_about_open_gops(tmp_path: Path) -> None:
    assert_agreement(open_gop_h264(tmp_path / "a.mp4"))
    assert_agreement(open_gop_h265(tmp_path / "b.mp4"))


def assert_agreement(path: Path) -> None:
    """Without asking how the container flags them."""
    by_packet, by_decoder = set(), set()
    with open_source(path) as file:
        stream = choose_video(file, "")
        context = stream.codec_context
        for number, packet in enumerate([*packets_of(file, stream), None]):
            if packet is not None:
                packet.pts = number
                if begins_exactly(context.codec.canonical_name, bytes(packet), context.extradata or b""):
                    by_packet.add(number)
            frames, _ = decode_packet(stream, packet)
            by_decoder.update(frame.pts for frame in frames if frame.key_frame)
    assert by_packet == by_decoder
    assert 1 < len(by_packet) < 30


def test_decoders_that_tell_keyframes_are_believed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no packet is asked, the decoder is: Sorenson H.263 with every tag called a keyframe."""
    clip = make_clip(tmp_path / "a.flv", codec="flv", frames=37)
    whole, data = plain(clip), bytearray(clip.read_bytes())
    with av.open(str(clip)) as file:
        places = [packet.pos or 0 for packet in file.demux(video=0) if packet.size]
    for at in places:
        data[at + 11] = data[at + 11] & 15 | 16
    clip.write_bytes(data)
    found, strayed = by_gops(clip)
    assert (found == whole, strayed) == (True, 5)
    monkeypatch.setattr(s2vc_ray.seeking, "_TELLS_KEYS", frozenset())
    assert by_gops(clip)[0] != whole
