"""Pictures turned as players turn them, and stretched to square samples."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from s2vc_ray.upright import Turn, square
from tests import media

ONE = 1 << 16
RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("degrees", [-270, -180, -90, 0, 90, 180, 270])
def test_quarter_turns(degrees: int) -> None:
    turn = Turn.of(degrees)
    assert turn is not None
    assert bool(turn) == (degrees != 0)
    assert np.array_equal(turn(RGB), np.rot90(RGB, degrees // 90))
    assert Turn.of(45) is None


@pytest.mark.parametrize(
    ("signs", "wanted"),
    [
        ((1, 0, 0, 1), RGB),
        ((-1, 0, 0, 1), RGB[:, ::-1]),
        ((1, 0, 0, -1), RGB[::-1]),
        ((-1, 0, 0, -1), RGB[::-1, ::-1]),
        ((0, 1, 1, 0), RGB.swapaxes(0, 1)),
        ((0, -1, 1, 0), np.rot90(RGB)),
        ((0, 1, -1, 0), np.rot90(RGB, -1)),
        ((0, -1, -1, 0), np.rot90(RGB.swapaxes(0, 1), 2)),
    ],
)
def test_display_matrices(signs: tuple[int, int, int, int], wanted: np.ndarray) -> None:
    a, b, c, d = (sign * ONE for sign in signs)
    turn = Turn.of(0, (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    assert turn is not None
    assert np.array_equal(turn(RGB), wanted)


def test_other_matrices_are_not_guessed_at() -> None:
    assert Turn.of(90, (ONE, ONE, 0, -ONE, ONE, 0, 0, 0, 1 << 30)) is None
    assert Turn.of(0, (0, 0, 0, 0, 0, 0, 0, 0, 0)) is None


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_ffmpeg_turns_the_same_way(tmp_path: Path, rotation: int) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    clip = media.make_clip(tmp_path / "a.mp4", frames=1, rotation=rotation)
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-i", str(clip), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)
    with av.open(str(clip)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    turn = Turn.of(rotation)
    assert turn is not None
    turned = turn(stored)
    assert np.abs(shown.reshape(turned.shape).astype(int) - turned).mean() < 3


def test_square_samples() -> None:
    assert square(RGB, Fraction(0)) is RGB
    assert square(RGB, Fraction(1)) is RGB
    assert square(RGB, Fraction(4, 3)).shape == (4, 8, 3)
    assert square(RGB, Fraction(1, 2)).shape == (8, 6, 3)
