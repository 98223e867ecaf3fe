"""The frame list is FFmpeg's own, line for line, for ordinary sources; the digests are for every source."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.framemd5 import FrameListWriter, read_frame_list
from s2vc_ray.frames import decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.values import FrameDigest
from tests import media

AS_IT_IS = ("-noautorotate", "-copyts", "-i")
TIMES_KEPT = ("-fps_mode", "passthrough", "-enc_time_base", "demux")


def whole(clip: Path) -> bytes:
    """The list that a job makes of a clip, GOP by GOP."""
    info, out = probe(str(clip)), io.BytesIO()
    writer = FrameListWriter(out, info, "0" * 64)
    for spec in split(info, source_uri=str(clip), video_id="v", gop=7):
        gop = decode_gop(str(clip), spec)
        writer.add(gop.pts, gop.digests)
    return out.getvalue()


def ours(clip: Path) -> list[str]:
    """The same without comments."""
    return lines(whole(clip))


def ffmpeg(*arguments: str) -> list[str]:
    """What FFmpeg prints, without comments."""
    return lines(ffmpeg_whole(*arguments))


def ffmpeg_whole(*arguments: str) -> bytes:
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    command = [program, "-v", "error", *arguments, "-f", "framemd5", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def lines(data: bytes) -> list[str]:
    return [line for line in data.decode().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("sound.mkv", {"audio": "aac"}),
        ("stream.ts", {}),
        ("odd.mkv", {"codec": "ffv1", "size": (65, 49)}),
        ("ten.mkv", {"codec": "ffv1", "size": (65, 49), "pix_fmt": "yuv422p10le"}),
        ("hevc10.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
        ("rgb.mkv", {"codec": "ffv1", "size": (65, 49), "pix_fmt": "bgr0"}),
        ("grey.mkv", {"codec": "ffv1", "size": (33, 31), "pix_fmt": "gray"}),
        ("wide.mkv", {"codec": "ffv1", "size": (66, 50), "pix_fmt": "yuv444p12le"}),
        ("packed.avi", {"codec": "rawvideo", "size": (66, 50), "pix_fmt": "uyvy422"}),
        ("anamorphic.mp4", {"sample_aspect": Fraction(12, 11)}),
    ],
)
def test_constant_rate_is_what_ffmpeg_prints(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    clip = media.make_clip(tmp_path / name, frames=16, **options)  # type: ignore[arg-type]
    assert ours(clip) == ffmpeg("-i", str(clip), "-map", "0:v:0")


@pytest.mark.parametrize("rate", ["constant", "variable"])
def test_the_head_is_ffmpegs(tmp_path: Path, rate: str) -> None:
    """But for its version, the source's digest, and a sample aspect that nobody stated."""
    times = None if rate == "constant" else [0, 33, 67, 100, 150, 400]
    base = Fraction(1, 25) if times is None else Fraction(1, 1000)
    clip = media.make_clip(tmp_path / "a.mkv", frames=6, pts=times, time_base=base)
    before, after = (AS_IT_IS, TIMES_KEPT) if times else (("-i",), ())
    theirs = ffmpeg_whole(*before, str(clip), "-map", "0:v:0", *after)

    def head(data: bytes) -> list[str]:
        other = ("#software", "#source_sha256", "#sar")
        return [
            one for one in data.decode().splitlines() if one.startswith("#") and not one.startswith(other)
        ]

    assert head(whole(clip)) == head(theirs)


def test_a_frame_is_left_as_it_was(tmp_path: Path) -> None:
    _, frames = media.all_frames(media.make_clip(tmp_path / "a.mp4", frames=3))
    hasher = FrameHasher()
    for frame in frames:
        before = (frame.pts, frame.time_base)
        hasher(frame)
        assert (frame.pts, frame.time_base) == before


def test_open_gops_are_listed_as_decoded_from_the_start(tmp_path: Path) -> None:
    clip = media.open_gop_h264(tmp_path / "open.mp4", frames=24, size=(64, 48))
    assert ours(clip) == ffmpeg("-i", str(clip), "-map", "0:v:0")


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "v.mkv", pts=[0, 33, 67, 100, 150, 400], time_base=Fraction(1, 1000))
    theirs = ffmpeg(*AS_IT_IS, str(clip), "-map", "0:v:0", *TIMES_KEPT)
    # All but the duration, which containers round or leave out.
    kept = [line.split(",")[:3] + line.split(",")[4:] for line in theirs]
    assert [line.split(",")[:3] + line.split(",")[4:] for line in ours(clip)] == kept
    assert [line.split(",")[3].strip() for line in ours(clip)][:-1] == ["33", "34", "33", "50", "250"]


def test_rotation_is_not_applied(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "r.mp4", frames=5, rotation=90)
    assert ours(clip) == ffmpeg("-noautorotate", "-i", str(clip), "-map", "0:v:0")
    assert ours(clip) != ffmpeg("-i", str(clip), "-map", "0:v:0")


def test_reads_back_what_was_written_and_what_ffmpeg_wrote(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=3)
    frames = list(read_frame_list(io.BytesIO("\n".join(ours(clip)).encode())))
    assert [(frame.pts, frame.duration, frame.digest.size) for frame in frames] == [
        (at, 1, 4608) for at in range(3)
    ]
    digests = decode_gop(str(clip), split(probe(str(clip)), source_uri="", video_id="v", gop=8)[0]).digests
    assert tuple(frame.digest for frame in frames) == digests


def test_a_frame_that_was_lost_leaves_a_gap(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=3)
    info, out = probe(str(clip)), io.BytesIO()
    FrameListWriter(out, info, "0" * 64).add(info.pts[1:], [FrameDigest(1, "ab")] * 2)
    assert [frame.pts for frame in read_frame_list(io.BytesIO(out.getvalue()))] == [1, 2]


@pytest.mark.parametrize("line", [b"what is this", b"0, 1, 2, 3, 4", b"0, 1, 2, 3, x, ab"])
def test_other_text_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(read_frame_list(io.BytesIO(b"#format: frame checksums\n" + line + b"\n")))
