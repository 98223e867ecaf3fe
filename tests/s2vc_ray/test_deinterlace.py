"""Interlaced pictures become progressive ones inside their GOP; times, digests and everything else stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from s2vc_ray.frames import DecodedGop, decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.values import GopSpec
from tests.media import make_clip

INTERLACED = {"flags": "+ildct+ilme"}


def woven(frames: int, width: int = 64, height: int = 48, *, top_first: bool = True) -> np.ndarray:
    """A bright bar that moves right, 4 pixels a field: each picture holds two moments, a field of each."""
    images = np.full((frames, height, width, 3), 40, np.uint8)
    for t in range(frames):
        for field in range(2):
            row = field if top_first else 1 - field
            left = (8 * t + 4 * field) % (width - 16)
            images[t, row::2, left : left + 16] = 210
    return images


def combing(frames: np.ndarray) -> float:
    """How much each line differs from the mean of those above and below it."""
    rows = frames.astype(float).mean(axis=-1)
    return float(np.abs(rows[:, 1:-1] - (rows[:, :-2] + rows[:, 2:]) / 2).mean())


def specs_of(clip: Path, gop: int = 8) -> list[GopSpec]:
    return split(probe(clip), source_uri="", video_id="v", gop=gop)


def both(clip: Path, spec: GopSpec) -> tuple[DecodedGop, DecodedGop]:
    return decode_gop(clip, spec), decode_gop(clip, spec, deinterlace=True)


@pytest.mark.parametrize("frames", [20, 17])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("fields", ["tff", "bff"])
def test_both_field_orders_lose_their_combs_and_nothing_else_changes(
    tmp_path: Path, name: str, fields: str, frames: int
) -> None:
    """17 frames leave one for the last GOP, which has no neighbour at all."""
    codec = {"a.mp4": "libx264", "a.mkv": "mpeg2video"}[name]
    clip = make_clip(
        tmp_path / name,
        codec=codec,
        rgb=woven(frames, top_first=fields == "tff"),
        options={"crf": "4", "qmax": "3", **INTERLACED},
        fields=fields,
    )
    for spec in specs_of(clip):
        before, after = both(clip, spec)
        assert combing(before.frames) > 8
        assert combing(after.frames) < 0.4 * combing(before.frames)
        assert after.interlaced == before.interlaced == spec.frames
        assert replace(after, frames=before.frames) == before
        # The field that is shown first stays: the picture is as of its time.
        kept = slice(0, None, 2) if fields == "tff" else slice(1, None, 2)
        assert np.abs(after.frames[:, kept].astype(int) - before.frames[:, kept]).max() < 60
        assert np.abs(after.frames.astype(int) - before.frames).max() > 100


def test_a_gop_is_made_from_its_own_frames_only(tmp_path: Path) -> None:
    """Two films that differ only behind the first GOP have the same first GOP, to the last bit."""
    images = woven(16)
    other = images.copy()
    other[8:] = 255 - other[8:]
    lossless = {"x264-params": "qp=0:keyint=8:bframes=0", "preset": "ultrafast", **INTERLACED}
    clips = [
        make_clip(tmp_path / name, rgb=rgb, options=lossless, fields="tff")
        for name, rgb in (("a.mp4", images), ("b.mp4", other))
    ]
    first, second = (decode_gop(clip, specs_of(clip)[0], deinterlace=True) for clip in clips)
    assert first.digests == second.digests
    assert first.interlaced == 8
    assert np.array_equal(first.frames, second.frames)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("dot.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "size": (1, 1)}),
    ],
)
def test_progressive_pictures_are_left_alone(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    clip = make_clip(tmp_path / name, frames=9, **options)  # type: ignore[arg-type]
    for spec in specs_of(clip):
        before, after = both(clip, spec)
        assert after.interlaced == 0
        assert np.array_equal(before.frames, after.frames)


def test_only_flagged_pictures_change_where_both_kinds_are(tmp_path: Path) -> None:
    """Eight progressive pictures and eight interlaced ones in one raw stream, across GOPs of six."""
    parts = [
        make_clip(tmp_path / f"{number}.264", rgb=woven(8), options=options).read_bytes()
        for number, options in enumerate(({"x264-params": "bframes=0"}, {"x264-params": "bframes=0:tff=1"}))
    ]
    clip = tmp_path / "mixed.264"
    clip.write_bytes(b"".join(parts))
    with av.open(str(clip)) as file:
        flagged = [frame.interlaced_frame for frame in file.decode(video=0)]
    assert flagged == [False] * 8 + [True] * 8
    pairs = [both(clip, spec) for spec in specs_of(clip, 6)]
    assert [after.interlaced for _, after in pairs] == [0, 4, 4]
    changed = [
        not np.array_equal(a, b)
        for before, after in pairs
        for a, b in zip(before.frames, after.frames, strict=True)
    ]
    assert changed == flagged


def test_ten_bits_and_full_range_stay_what_they_are(tmp_path: Path) -> None:
    """A flat picture has nothing to interpolate: the same colour must come out."""
    flat = np.broadcast_to(np.array([150, 110, 90], np.uint8), (6, 48, 64, 3)).copy()
    for name, pix_fmt, colour in (
        ("a.mkv", "yuv420p10le", (1, 9, 16, 9)),
        ("b.mkv", "yuvj420p", (2, 1, 1, 1)),
    ):
        clip = make_clip(
            tmp_path / name, rgb=flat, pix_fmt=pix_fmt, colour=colour, options=INTERLACED, fields="tff"
        )
        before, after = both(clip, specs_of(clip)[0])
        assert after.interlaced == 6
        assert np.abs(before.frames.astype(int) - after.frames).max() <= 1
