"""A container that stays open gives the frames that a new one gives, and none is held that might not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import s2vc_ray.source_io
from s2vc_ray.frames import DecodedGop, decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.source_io import Source, open_source
from s2vc_ray.split import split
from s2vc_ray.standby import Standbys
from s2vc_ray.values import GopSpec
from tests.media import make_clip, open_gop_h264, open_gop_h265


def descriptors(path: Path) -> int:
    """How many of this process are open on a file."""
    links = (Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd"))
    return sum(link.exists() and link.samefile(path) for link in links)


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """What was opened to decode from."""
    opened: list[Source] = []

    def noted(source: Source, uri: str = "") -> object:
        opened.append(source)
        return open_source(source, uri)

    monkeypatch.setattr(s2vc_ray.source_io, "open_source", noted)
    return opened


def specs_of(clip: Path) -> list[GopSpec]:
    return list(split(probe(clip), source_uri=str(clip), video_id="v", gop=5))


def told(gop: DecodedGop) -> tuple[object, ...]:
    return gop.pts, gop.digests, gop.frames.tobytes(), gop.corrupt, gop.missing, gop.strayed


def all_ways(clip: Path, rounds: int = 3) -> None:
    """Every GOP from a held container, in any order, as from a new one."""
    specs, held, draw = specs_of(clip), Standbys(), random.Random(3)
    anew = {spec.index: told(decode_gop(clip, spec)) for spec in specs}
    for _ in range(rounds):
        draw.shuffle(specs)
        for spec in specs:
            with held.of(str(clip), "version", spec.pts[0]) as source:
                assert told(decode_gop(source, spec)) == anew[spec.index]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mp4", "libx264", "yuv420p"), ("a.mp4", "libx265", "yuv420p"), ("a.mov", "prores_ks", "yuv422p10le")],
)
def test_one_opening_serves_all_gops(
    tmp_path: Path, openings: list[Source], name: str, codec: str, pix_fmt: str
) -> None:
    clip = make_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=60, gop=10)
    all_ways(clip)
    gops = len(specs_of(clip))
    # Beside those anew: those of GOPs whose first keyframe names the encoder, and one more after each.
    assert gops + 1 <= len(openings) <= gops + 1 + 3 * 4


@pytest.mark.parametrize("make", [open_gop_h264, open_gop_h265])
def test_open_gops(tmp_path: Path, make: object, openings: list[Source]) -> None:
    clip = make(tmp_path / "a.mp4", size=(64, 48))  # type: ignore[operator]
    all_ways(clip)
    assert len(openings) < 2 * len(specs_of(clip))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "repeat-headers=1"}),
        ("a.mkv", "libx264", {}),
        ("a.mp4", "mpeg4", {}),
        ("a.avi", "mpeg4", {}),
        ("a.ts", "libx264", {}),
        ("a.mp4", "libvpx-vp9", {}),
    ],
)
def test_what_might_remember_is_never_held(
    tmp_path: Path, openings: list[Source], name: str, codec: str, options: dict[str, str]
) -> None:
    clip = make_clip(tmp_path / name, codec=codec, frames=60, gop=10, options=options)
    specs, held = specs_of(clip), Standbys()
    for spec in reversed(specs):
        with held.of(str(clip), "version", spec.pts[0]) as source:
            decode_gop(source, spec)
    assert len(openings) >= len(specs)


def test_who_names_the_encoder_is_not_held(tmp_path: Path, openings: list[Source]) -> None:
    """x264 does in its first packet; FFmpeg's decoder would allow for that encoder's faults from there on."""
    clip = make_clip(tmp_path / "a.mp4", frames=60, gop=10)
    assert b"x264 - core" in clip.read_bytes()
    held, specs = Standbys(), specs_of(clip)
    for index, wanted in ((0, 1), (0, 2), (5, 3), (6, 3), (0, 3), (5, 4)):
        with held.of(str(clip), "version", specs[index].pts[0]) as source:
            decode_gop(source, specs[index])
        assert len(openings) == wanted, index


def test_another_version_and_another_source_are_opened_anew(tmp_path: Path, openings: list[Source]) -> None:
    clips = [make_clip(tmp_path / f"{seed}.mp4", frames=60, gop=10, seed=seed) for seed in range(2)]
    held, specs = Standbys(), [specs_of(clip) for clip in clips]
    pictures = [told(decode_gop(clip, of[5])) for clip, of in zip(clips, specs, strict=True)]
    openings.clear()
    for number, version, wanted in (
        (0, "v", 1), (0, "v", 1), (0, "w", 2), (1, "w", 3), (0, "w", 3), (0, "v", 4), (0, None, 5), (0, None, 6),
        (0, "v", 7),
    ):  # fmt: skip
        with held.of(str(clips[number]), version, specs[number][5].pts[0]) as source:
            assert told(decode_gop(source, specs[number][5])) == pictures[number]
        assert len(openings) == wanted


def test_who_finds_that_it_changed_lets_go_of_it(tmp_path: Path, openings: list[Source]) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=60, gop=10)
    held, spec = Standbys(), specs_of(clip)[5]

    def read_and_find_it_changed() -> None:
        with held.of(str(clip), "v", spec.pts[0]) as source:
            decode_gop(source, spec)
            raise ValueError("changed")

    for wanted in (1, 2):
        with pytest.raises(ValueError, match="changed"):
            read_and_find_it_changed()
        assert len(openings) == wanted
    assert descriptors(clip) == 0, "still open"


def test_two_at_once_and_both_are_held(tmp_path: Path, openings: list[Source]) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=60, gop=10)
    held, specs = Standbys(), specs_of(clip)
    for _ in range(2):
        with held.of(str(clip), "v", 0) as one, held.of(str(clip), "v", 0) as other:
            assert one is not other
            assert told(decode_gop(one, specs[5])) == told(decode_gop(other, specs[5]))
    assert len(openings) == 2
    assert descriptors(clip) == 2
    held.close()
    assert descriptors(clip) == 0


def test_few_are_held(tmp_path: Path, openings: list[Source]) -> None:
    """As many as videos take turns; of more, those that were read last."""
    clips = [make_clip(tmp_path / f"{n}.mkv", codec="mpeg4", frames=20, gop=20) for n in range(5)]
    held, specs = Standbys(), [specs_of(clip) for clip in clips]

    def read(video: int, gop: int, held: Standbys = held) -> None:
        with held.of(str(clips[video]), "v", specs[video][gop].pts[0]) as source:
            decode_gop(source, specs[video][gop])

    for gop in range(4):
        for video in range(4):
            read(video, gop)
    assert len(openings) == 4
    read(4, 0)
    assert [descriptors(clip) for clip in clips] == [0, 1, 1, 1, 1]
    del held, read
    assert [descriptors(clip) for clip in clips] == [0] * 5
