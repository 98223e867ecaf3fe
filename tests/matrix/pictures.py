"""What the pictures look like: orientation, aspect, fields, colour, sampling, depth, HDR, alpha, size, which stream."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.framemd5 import read_frame_list
from s2vc_ray.summary import describe
from tests.matrix.case import Case, Run
from tests.matrix.facts import facts, levels
from tests.media import make_clip, pictures

FLIP = (-65536, 0, 0, 0, 65536, 0, 64 << 16, 0, 1 << 30)
"""A display matrix that mirrors a picture 64 pixels wide left to right."""

_COLOUR = ("range", "primaries", "transfer", "matrix")
_AV1_HDR10 = ":".join(
    (
        "lp=1:content-light=1000,400",
        "mastering-display=G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.0001)",
    )
)
_HDR10 = ":".join(
    (
        "log-level=none:hdr10=1:repeat-headers=1:max-cll=1000,400",
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)",
    )
)


def _clip(name: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: make_clip(folder / name, **{"frames": 10, **options})


def _flat(name: str, **options: Any) -> Callable[[Path], Path]:
    """One colour all over, which the checks' codec keeps exactly."""
    colour = np.array([150, 110, 90], np.uint8)
    return lambda folder: make_clip(
        folder / name, rgb=np.broadcast_to(colour, (6, 48, 64, 3)).copy(), **options
    )


def _kept(
    run: Run, source: Path, names: tuple[str, ...], suffixes: tuple[str, ...] = (".mp4", ".mkv")
) -> None:
    wanted = facts(source)
    for suffix in suffixes:
        got = facts(run.output(suffix))
        assert {name: got[name] for name in names} == {name: wanted[name] for name in names}, suffix


def _whole(source: Path, run: Run) -> None:
    assert run.result.status == "ok", run.result.error
    with av.open(str(source)) as file:
        assert run.result.frames == len(list(file.decode(video=0)))
    assert facts(run.output())["size"] == facts(source)["size"]


def _rotated(degrees: int) -> Case:
    def check(source: Path, run: Run) -> str:
        assert abs(facts(source)["rotation"]) == abs(degrees)
        _kept(run, source, ("rotation", "display_matrix", "size"))
        return "display matrix equal in .mp4 and .mkv"

    return Case(
        f"rotated by {degrees} degrees, mp4", "the rotation", _clip("turned.mp4", rotation=degrees), check
    )


def _mirrored(folder: Path) -> Path:
    plain = make_clip(folder / "plain.mp4", frames=6)
    path = folder / "mirrored.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        video.set_display_matrix(list(FLIP))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    return path


def _mirror_kept(source: Path, run: Run) -> str:
    assert facts(source)["display_matrix"] == FLIP
    assert run.reader.header.tags.display_matrix == FLIP
    _kept(run, source, ("display_matrix",), (".mp4",))
    mkv = facts(run.output(".mkv"))["display_matrix"]
    return f"matrix equal in archive and .mp4; .mkv {'equal too' if mkv == FLIP else 'has ' + str(mkv)}"


def _aspect_kept(source: Path, run: Run) -> str:
    assert run.reader.header.sample_aspect == (facts(source)["aspect"] or 0)
    _kept(run, source, ("aspect",))
    return f"{facts(source)['aspect'] or 'unknown'} in archive, .mp4 and .mkv"


def _interlaced(source: Path, run: Run) -> str:
    wanted = facts(source)
    assert wanted["interlaced"]
    order = {2: "tt", 3: "bb"}[wanted["field_order"]]
    assert run.reader.header.tags.field_order == order
    _kept(run, source, ("interlaced", "field_order"))
    with run.output(".y4m").open("rb") as file:
        assert f" I{order[0]} ".encode() in file.readline()
    (note,) = run.reader.header.decisions
    assert "not deinterlaced" in note
    assert run.rows[0]["source_notes"] == note
    return f"{order} in archive, .mp4, .mkv and .y4m; says that it was not deinterlaced"


def _deinterlaced(source: Path, run: Run) -> str:
    """Asked for: progressive from the archive on, with the source's own times and the digests of its own frames."""
    asked = Run(source, run.folder, deinterlace=True)
    header = asked.reader.header
    (note,) = header.decisions
    with av.open(str(source)) as file:
        digest = FrameHasher()
        frames = [(frame.interlaced_frame, frame.pts, digest(frame)) for frame in file.decode(video=0)]
    assert all(interlaced for interlaced, _, _ in frames)
    assert note.startswith(f"{len(frames)} interlaced pictures (")
    assert asked.pts == [pts for _, pts, _ in frames]
    with asked.archive.with_suffix(".framemd5").open("rb") as file:
        assert [listed.digest for listed in read_frame_list(file)] == [md5 for _, _, md5 in frames]
    assert (header.deinterlace, header.tags.field_order) == (True, "progressive")
    for suffix in (".mp4", ".mkv"):
        assert not facts(asked.output(suffix))["interlaced"]
        assert facts(asked.output(suffix))["field_order"] in (0, 1)
    with asked.output(".y4m").open("rb") as file:
        assert b" Ip " in file.readline()
    return f"says: {note}; progressive in archive, .mp4, .mkv and .y4m"


def _colour_kept(source: Path, run: Run) -> str:
    _kept(run, source, _COLOUR)
    wanted = facts(source)
    pairs = zip(levels(run.output(".mp4")), levels(source), strict=True)
    assert max(abs(got - want) for got, want in pairs) < 2.5
    tags = run.reader.header.colour
    assert (tags.range, tags.primaries, tags.transfer, tags.matrix) == tuple(wanted[name] for name in _COLOUR)
    return f"tags {', '.join(str(wanted[name]) for name in _COLOUR)} and plane levels kept"


def _matrix_refused(source: Path, run: Run) -> str:
    assert "colour matrix 8" in run.refused()
    return "refused: says which matrix it is and what to convert to"


def _rgb_kept(source: Path, run: Run) -> str:
    """Levels after an independent conversion: the output is YUV."""
    _whole(source, run)
    got, want = (_rgb_levels(path) for path in (run.output(), source))
    assert np.abs(got - want).max() < 4
    return f"{facts(source)['pix_fmt']}: colours kept"


def _rgb_levels(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        return np.asarray(frame.to_ndarray(format="rgb24"), np.float64).mean(axis=(0, 1))


def _sampling(source: Path, run: Run) -> str:
    _whole(source, run)
    pix_fmt = facts(source)["pix_fmt"]
    assert run.reader.header.source_pix_fmt == pix_fmt
    got, want = (_rgb_levels(path) for path in (run.output(), source))
    assert np.abs(got - want).max() < 6
    notes = "; ".join(run.reader.header.decisions)
    return f"{pix_fmt} recorded{'; says: ' + notes if notes else ''}"


def _deep(source: Path, run: Run) -> str:
    pix_fmt = facts(source)["pix_fmt"]
    header = run.reader.header
    assert header.source_bit_depth == 10
    assert f"10-bit samples ({pix_fmt}) rounded to 8 bits" in header.decisions
    assert run.rows[0]["source_notes"] == "; ".join(header.decisions)
    _kept(run, source, _COLOUR)
    pairs = zip(levels(run.output(".mp4")), levels(source), strict=True)
    assert max(abs(got - want) for got, want in pairs) < 2.5
    return f"tags and levels kept; says: {'; '.join(header.decisions)}"


def _hdr10(source: Path, run: Run) -> str:
    wanted = facts(source)
    assert wanted["light"] == (1000, 400)
    assert wanted["mastering"][9] == 1000
    tags = run.reader.header.tags
    assert (tags.content_light, tags.mastering_display) == (wanted["light"], wanted["mastering"])
    _kept(run, source, ("light",))
    for suffix in (".mp4", ".mkv"):
        pairs = zip(facts(run.output(suffix))["mastering"], wanted["mastering"], strict=True)
        assert max(abs(got - want) for got, want in pairs) <= Fraction(1, 20000)
    assert any("y4m cannot write the HDR10 metadata" in note for note in run.report(".y4m").notes)
    return f"mastering display and light levels in archive, .mp4 and .mkv; {_deep(source, run)}"


def _alpha_refused(source: Path, run: Run) -> str:
    reason = run.refused()
    assert "alpha channel" in reason
    assert "background" in reason
    return f"refused: {reason.partition('(')[2].partition(')')[0]} has an alpha channel; says what to do"


def _not_kept(what: str) -> Callable[[Path, Run], str]:
    def check(source: Path, run: Run) -> str:
        _whole(source, run)
        said = f"carried within the pictures and not kept: {what}"
        assert run.reader.header.decisions == (said,)
        assert said in describe(run.result)
        return f"pictures kept; says: {said}"

    return check


def _size_kept(source: Path, run: Run) -> str:
    _whole(source, run)
    width, height = facts(source)["size"]
    assert facts(run.output(".mp4"))["size"] == (width, height)
    return f"{width}x{height} in archive, .mp4 and .mkv"


def _resized(folder: Path) -> Path:
    parts = [
        make_clip(folder / f"{width}.264", frames=8, size=(width, 48)).read_bytes() for width in (64, 96)
    ]
    path = folder / "resized.264"
    path.write_bytes(b"".join(parts))
    return path


def _resize_refused(source: Path, run: Run) -> str:
    reason = run.refused()
    assert "picture size changes to 96x48" in reason
    assert "split the source there" in reason
    return "refused: says to which size and where, and to split there"


def _two_videos(folder: Path, *, default: int) -> Path:
    path = folder / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for number in range(2):
            video = out.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64 + 16 * number, 48, "yuv420p"
            video.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(video)
        for at in range(6):
            for number, video in enumerate(streams):
                image = pictures(6, 64 + 16 * number, 48)[at]
                out.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        for video in streams:
            out.mux(video.encode())
    return path


def _chosen(index: int) -> Callable[[Path, Run], str]:
    def check(source: Path, run: Run) -> str:
        header = run.reader.header
        assert (header.source_stream, header.width) == (index, 64 + 16 * index)
        assert f"video stream {index} coded; video streams {1 - index} not coded" in header.decisions
        assert any("second video stream" in note for note in run.report().notes)
        return f"stream {index} coded; archive, row and output say that {1 - index} is not"

    return check


def _with_cover(folder: Path) -> Path:
    plain, path = make_clip(folder / "plain.mkv", frames=5), folder / "cover.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        out.mux(cover.encode(av.VideoFrame.from_ndarray(pictures(1, 32, 32)[0]).reformat(format="yuvj420p")))
        out.mux(cover.encode())
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    return path


def _cover_left(source: Path, run: Run) -> str:
    with av.open(str(source)) as file:
        art, video = sorted(
            file.streams.video, key=lambda one: not one.disposition & Disposition.attached_pic
        )
        assert art.disposition & Disposition.attached_pic
        index = video.index
    header = run.reader.header
    assert (header.source_stream, header.width, len(run.pts)) == (index, 64, 5)
    assert not header.decisions
    return "the film is coded, the picture carried"


def _tags(name: str, colour: tuple[int, int, int, int], pix_fmt: str = "yuv420p", **options: Any) -> Case:
    return Case(
        name, "tags and levels", _flat("tagged.mkv", colour=colour, pix_fmt=pix_fmt, **options), _colour_kept
    )


def _sampled(name: str, pix_fmt: str, survives: str = "colours") -> Case:
    return Case(name, survives, _flat("sampled.mkv", codec="ffv1", pix_fmt=pix_fmt), _sampling)


CASES = (
    _rotated(90),
    _rotated(180),
    _rotated(-90),
    Case("mirrored by its display matrix, mp4", "the matrix", _mirrored, _mirror_kept),
    Case("samples 4:3 wide", "sample aspect", _clip("wide.mp4", sample_aspect=Fraction(4, 3)), _aspect_kept),
    Case(
        "samples 16:11 wide, mkv",
        "sample aspect",
        _clip("pal.mkv", sample_aspect=Fraction(16, 11)),
        _aspect_kept,
    ),
    Case("sample aspect unknown", "that it is unknown", _clip("none.mp4"), _aspect_kept),
    Case(
        "interlaced H.264, top field first",
        "field order; pictures not deinterlaced in silence",
        _clip("tff.mp4", options={"x264-params": "tff=1"}),
        _interlaced,
    ),
    Case(
        "interlaced MPEG-2, bottom field first, ts",
        "field order; pictures not deinterlaced in silence",
        _clip("bff.ts", codec="mpeg2video", options={"flags": "+ildct+ilme"}),
        _interlaced,
    ),
    Case(
        "interlaced H.264, top field first, deinterlaced on request",
        "every time; word of the deinterlacing; no flag",
        _clip("tff.mp4", options={"x264-params": "tff=1"}, fields="tff"),
        _deinterlaced,
    ),
    Case(
        "interlaced MPEG-2, bottom field first, ts, deinterlaced on request",
        "every time; word of the deinterlacing; no flag",
        _clip("bff.ts", codec="mpeg2video", options={"flags": "+ildct+ilme"}, fields="bff"),
        _deinterlaced,
    ),
    _tags("BT.601 (PAL)", (1, 5, 6, 5)),
    _tags("BT.601 (NTSC)", (1, 6, 6, 6)),
    _tags("BT.709", (1, 1, 1, 1)),
    _tags("BT.2020, 8 bits", (1, 9, 1, 9)),
    _tags("full-range YUV", (2, 1, 1, 1)),
    _tags("full range, yuvj420p", (2, 1, 1, 1), "yuvj420p"),
    Case(
        "YCgCo",
        "refused: a guess would change every colour",
        _flat("ycgco.mkv", colour=(1, 1, 1, 8), pix_fmt="yuv444p"),
        _matrix_refused,
    ),
    Case("RGB (FFV1 bgr0)", "colours", _flat("rgb.mkv", codec="ffv1", pix_fmt="bgr0"), _rgb_kept),
    Case(
        "GBR (H.265 4:4:4)",
        "colours",
        _flat("gbr.mkv", codec="libx265", pix_fmt="gbrp"),
        _rgb_kept,
    ),
    Case("RGB (QuickTime Animation)", "colours", _flat("rle.mov", codec="qtrle", pix_fmt="rgb24"), _rgb_kept),
    _sampled("gray", "gray"),
    _sampled("gray, 16 bits", "gray16le", "gray; word of the rounding"),
    _sampled("RGB, 10 bits", "gbrp10le", "colours; word of the rounding"),
    _sampled("4:2:2", "yuv422p"),
    _sampled("4:4:4", "yuv444p"),
    _sampled("4:1:1", "yuv411p"),
    Case(
        "10-bit HEVC, BT.709",
        "tags, levels; word of the rounding",
        _flat("ten.mkv", codec="libx265", pix_fmt="yuv420p10le", colour=(1, 1, 1, 1)),
        _deep,
    ),
    Case(
        "HDR10: PQ, BT.2020, mastering display, light levels",
        "tags, levels, HDR metadata; word of the rounding",
        _flat(
            "hdr10.mkv",
            codec="libx265",
            pix_fmt="yuv420p10le",
            colour=(1, 9, 16, 9),
            options={"x265-params": _HDR10},
        ),
        _hdr10,
    ),
    Case(
        "HDR10 in AV1, mp4",
        "tags, levels, HDR metadata; word of the rounding",
        _flat(
            "hdr10.mp4",
            codec="libsvtav1",
            pix_fmt="yuv420p10le",
            colour=(1, 9, 16, 9),
            options={"preset": "12", "svtav1-params": _AV1_HDR10},
        ),
        _hdr10,
    ),
    Case(
        "HLG, BT.2020, 10 bits",
        "tags, levels; word of the rounding",
        _flat("hlg.mp4", codec="libx265", pix_fmt="yuv420p10le", colour=(1, 9, 18, 9)),
        _deep,
    ),
    Case(
        "ProRes 4444 with alpha",
        "refused: alpha would be lost",
        _clip("alpha.mov", codec="prores_ks", pix_fmt="yuva444p10le", frames=2),
        _alpha_refused,
    ),
    Case(
        "VP9 with alpha, webm",
        "refused: alpha would be lost",
        _clip("alpha.webm", codec="libvpx-vp9", pix_fmt="yuva420p", frames=2),
        _alpha_refused,
    ),
    Case(
        "QuickTime Animation with alpha",
        "refused: alpha would be lost",
        _clip("alpha.mov", codec="qtrle", pix_fmt="argb", frames=2),
        _alpha_refused,
    ),
    Case(
        "3D, side by side (H.264 frame packing)",
        "the pictures as coded; word of the layout",
        _clip("stereo.mp4", options={"x264-params": "frame-packing=3"}),
        _not_kept("stereoscopic layout"),
    ),
    Case(
        "MPEG-2 with GOP timecodes, mpg",
        "the pictures; word of the timecodes",
        _clip("coded.mpg", codec="mpeg2video", options={"gop_timecode": "10:00:00:00"}),
        _not_kept("timecodes"),
    ),
    Case("odd size", "the size", _clip("odd.mp4", size=(53, 37), pix_fmt="yuv444p"), _size_kept),
    Case("1x1", "the size", _clip("dot.mkv", codec="ffv1", size=(1, 1), pix_fmt="bgr0"), _size_kept),
    Case("2x2", "the size", _clip("dots.mp4", size=(2, 2)), _size_kept),
    Case("16x16", "the size", _clip("tiny.mp4", size=(16, 16)), _size_kept),
    Case(
        "size changes in mid-stream", "refused, before anything is cut or scaled", _resized, _resize_refused
    ),
    Case(
        "two video streams",
        "the first, and word of the other",
        lambda folder: _two_videos(folder, default=0),
        _chosen(0),
    ),
    Case(
        "two video streams, the second the default",
        "the default one, and word of the other",
        lambda folder: _two_videos(folder, default=1),
        _chosen(1),
    ),
    Case("cover art before the video, mp4", "the film", _with_cover, _cover_left),
)
