"""``split`` covers every frame once, in order, and seeks where decoding can begin."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_ray.split import split
from s2vc_ray.times import Times
from s2vc_ray.values import ColourTags, GopSpec, VideoInfo


def info_with(pts: Sequence[int], keys: Sequence[int]) -> VideoInfo:
    return VideoInfo(
        width=64,
        height=48,
        time_base=Fraction(1, 25),
        pts=pts,
        keyframe_pts=keys,
        last_duration=1,
        average_rate=Fraction(25),
        rotation=0,
        sample_aspect=Fraction(1),
        pix_fmt="yuv420p",
        codec="h264",
        container="mp4",
        colour=ColourTags(),
        stream_index=3,
    )


def cut(info: VideoInfo, gop: int) -> Sequence[GopSpec]:
    return split(info, source_uri="s3://b/k", video_id="v1", gop=gop)


@given(
    pts=st.sets(st.integers(-1000, 100_000), min_size=1, max_size=200).map(lambda s: tuple(sorted(s))),
    keys=st.sets(st.integers(0, 199), max_size=20),
    gop=st.integers(1, 64),
)
def test_cover_is_exact_and_ordered(pts: tuple[int, ...], keys: set[int], gop: int) -> None:
    key_pts = tuple(sorted({pts[k] for k in keys if k < len(pts)}))
    gops = cut(info_with(pts, key_pts), gop)
    assert tuple(time for spec in gops for time in spec.pts) == pts
    assert [spec.index for spec in gops] == list(range(len(gops)))
    assert [spec.first_frame for spec in gops] == [gop * n for n in range(len(gops))]
    assert all(spec.frames == gop for spec in gops[:-1])
    assert 1 <= gops[-1].frames <= gop
    for spec in gops:
        earlier = [key for key in key_pts if key <= spec.pts[0]]
        assert spec.seek_pts == (earlier[-1] if earlier else pts[0])


def test_specs_carry_what_a_decoder_needs() -> None:
    spec = cut(info_with((0, 1, 2), (0,)), 2)[1]
    assert (spec.source_uri, spec.video_id, spec.stream_index) == ("s3://b/k", "v1", 3)
    assert (spec.width, spec.height, spec.pts) == (64, 48, (2,))
    assert dataclasses.is_dataclass(spec)


def test_gop_that_begins_with_an_open_gop_s_leading_frame_seeks_further_back() -> None:
    # Behind the keyframe shown at 8, the file holds the frames shown at 5, 6 and 7: they need the GOP before.
    spec = cut(info_with(tuple(range(16)), (0, 8)), 5)[1]
    assert spec.pts[0] == 5
    assert spec.seek_pts == 0


def test_gop_longer_than_the_video_is_one_gop() -> None:
    assert len(cut(info_with((0, 1, 2), (0,)), 100)) == 1


@pytest.mark.parametrize("gop", [0, -1])
def test_length_must_be_positive(gop: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cut(info_with((0,), (0,)), gop)


def test_references_are_made_when_they_are_asked_for() -> None:
    info = info_with(Times(range(0, 4000, 4)), Times(range(0, 4000, 100)))
    specs = cut(info, 32)
    every = list(specs)
    assert len(every) == len(specs) == 32
    assert (specs[-1], specs[3:5]) == (every[31], (every[3], every[4]))
    assert specs[1].pts == tuple(range(128, 256, 4))
    with pytest.raises(IndexError):
        specs[32]
    packed = pickle.dumps(specs)
    assert len(packed) < 12_000  # 8 bytes a frame, however many refer to them
    assert list(pickle.loads(packed)) == every
