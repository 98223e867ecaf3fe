"""Stills side by side: anchors get our bytes, frames stand where they should, and every figure is of what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jobs import bench
from jobs.bench_anchors import known_anchors
from jobs.bench_clips import Clip, ClipPolicy, Pixels, find_clips, synthetic_clip
from jobs.bench_coded import Coded
from jobs.bench_stills import Sheet, StillsOptions, nearest, print_stills, run_stills
from s2vc_ray.errors import ConfigError, SourceError
from tests import media
from tests.fakes import FakeCodec

POLICY = ClipPolicy(frames=6, max_lines=64)
OPTIONS = StillsOptions(40, (0, 4, 9), gop=4, policy=POLICY)
LABEL = 16


class Dial:
    """Takes 10,000 bytes less for every point, and gives every picture in the grey of its frame."""

    name = "dial"
    ladder = (20, 35, 50)
    version = "1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        return {}

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        self.asked.append(point)
        grey = np.arange(len(frames), dtype=np.uint8)[:, None, None, None] * np.uint8(20)
        decoded = np.broadcast_to(grey, frames.shape).copy()
        return Coded(10_000 * (60 - point), 10_000 * (60 - point), decoded, 0.1, 0.1)


@pytest.fixture
def clip() -> Clip:
    return synthetic_clip(96, 64, 6)


@pytest.mark.parametrize(
    ("size", "point"),
    [(10_000, 50), (104_000, 50), (106_000, 49), (230_000, 37), (396_000, 20), (999_000, 20)],
)
def test_the_setting_nearest_in_bytes_is_found_with_few_encodes(clip: Clip, size: int, point: int) -> None:
    dial = Dial()
    found, coded = nearest(dial, clip, 4, size)
    assert (found, coded.payload_bytes) == (point, 10_000 * (60 - point))
    assert len(dial.asked) == len(set(dial.asked)) <= 7


def test_a_sheet_shows_the_frames_that_there_are(tmp_path: Path) -> None:
    path = media.make_clip(tmp_path / "a.mp4", frames=6)
    (sheet,) = run_stills([path], FakeCodec("fake", "cpu"), [Dial()], OPTIONS, tmp_path / "out")
    assert isinstance(sheet, Sheet)
    assert sheet.frames == (0, 4)
    assert [(one.codec, len(one.scores)) for one in sheet.columns] == [("s2vc", 2), ("dial", 2)]
    assert sheet.columns[1].scores[0] > sheet.columns[0].scores[0]
    with Image.open(sheet.path) as page:
        pixels = np.asarray(page)
    height, width = pixels.shape[0] // 2 - LABEL, pixels.shape[1] // 3
    for row, frame in enumerate(sheet.frames):
        top = row * (height + LABEL) + LABEL
        assert (pixels[top : top + height, 2 * width :] == 20 * frame).all()


def test_what_cannot_be_shown_is_said_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, good, bad = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    media.make_clip(short, frames=2)
    media.make_clip(good, frames=5)
    bad.write_bytes(b"no")
    options = StillsOptions(40, (3, 4), gop=4, policy=POLICY)
    fake, paths = FakeCodec("fake", "cpu"), find_clips([tmp_path])
    assert [type(one) for one in run_stills(paths, fake, [], options, tmp_path / "out")] == [
        SourceError,
        Sheet,
        SourceError,
    ]
    assert print_stills(paths, fake, [], options, tmp_path / "out", Console(), as_json=True) == 1
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)
    assert (found["clip"], found["frames"]) == ("b.mp4", [3, 4])
    assert "a.mp4 has 2 frames" in captured.err
    assert print_stills(paths, fake, [], options, tmp_path / "out", Console(width=160)) == 1
    assert "b.mp4: lpips_alex by frame" in capsys.readouterr().out


def test_options_are_checked_before_anything_is_coded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"0\.\.63"):
        StillsOptions(64)
    with pytest.raises(ConfigError, match="numbered from 0"):
        StillsOptions(40, (-1,))
    with pytest.raises(ConfigError, match="unknown anchor 'vp6'"):
        known_anchors(["x265 slow", "vp6"])
    with pytest.raises(SystemExit) as stop:
        bench.app(["stills", "--clips", "x", "--anchors", "vp6"])
    assert stop.value.code == 2
    assert "vp6" in capsys.readouterr().err
