"""The sources of the golden archives: drawn, tiny, and between them most of what an archive can hold."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.matrix.assemble import Track, assemble, lines, sound
from tests.media import make_clip, pictures, scenes


def rich(folder: Path) -> Path:
    """64x48 Matroska with two soundtracks, two kinds of subtitles, two attached files, chapters and tags."""
    return assemble(
        folder / "rich.mkv",
        [
            Track(sound(folder / "a.mp4", "aac", "mono", 22050, 0.5), metadata={"language": "deu"}),
            Track(sound(folder / "o.mka", "libopus", "stereo", 48000, 0.5), metadata={"title": "Comments é"}),
            Track(lines(folder / "l.ass"), metadata={"language": "fra"}),
            Track(lines(folder / "l.vtt")),
        ],
        frames=12,
        metadata={"title": "Golden", "CREATION_TIME": "2026-11-01T12:00:00Z"},
        chapters=[{"start": 0, "end": 240, "metadata": {"title": "One"}}, {"start": 240, "end": 480}],
        files=[
            ({"filename": "font.ttf", "mimetype": "font/ttf"}, b"\0\1\0\0 not really a font"),
            ({"filename": "../notes.txt", "mimetype": "text/plain"}, b"A name is never a path.\n"),
        ],
    )


def varying(folder: Path) -> Path:
    """53x37 MP4 of uneven times that begin late, turned, of full range, in 4:4:4, and grainy: many symbols."""
    grain = np.random.default_rng(7).integers(-60, 61, (11, 37, 53, 3))
    return make_clip(
        folder / "varying.mp4",
        size=(53, 37),
        pix_fmt="yuv444p",
        pts=(2, 5, 6, 7, 20, 21, 40, 41, 42, 90, 93),
        time_base=Fraction(1, 90),
        rotation=90,
        colour=(2, 1, 1, 1),
        gop=4,
        rgb=(pictures(11, 53, 37) + grain).clip(0, 255).astype(np.uint8),
    )


def silent(folder: Path) -> Path:
    """16x16, one frame, nothing beside it."""
    return make_clip(
        folder / "silent.mkv", size=(16, 16), frames=1, rgb=np.full((1, 16, 16, 3), 90, np.uint8)
    )


def cut(folder: Path) -> Path:
    """64x64 MP4 with sound and time code whose index announces more frames than are there."""
    whole = assemble(
        folder / "whole.mp4",
        [
            Track(sound(folder / "c.mp4", "aac", "mono", 16000, 0.6)),
            Track(codec="mov_text", packets=[(0, 300, b"\0\5Hello")]),
        ],
        frames=24,
        video_metadata={"timecode": "01:00:00:00"},
        options={"movflags": "faststart"},
    )
    path = folder / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    return path


def mixed(folder: Path) -> Path:
    """54x38 MP4 of grey, which any codec holds, and then of moving shapes at a quality that only the fallback holds."""
    rgb = np.concatenate([np.full((4, 38, 54, 3), 90, np.uint8), pictures(9, 54, 38)])
    return make_clip(folder / "mixed.mp4", size=(54, 38), frames=13, gop=4, rgb=rgb, options={"crf": "4"})


def film(folder: Path) -> Path:
    """64x48 MP4 of four scenes, of which one GOP holds parts of three."""
    return make_clip(folder / "film.mp4", frames=21, rgb=scenes((9, 4, 2, 6)))


CLIPS = {
    "rich": (rich, 20, 5, ""),
    "varying": (varying, 56, 4, ""),
    "silent": (silent, 0, 32, ""),
    "cut": (cut, 36, 8, ""),
    "mixed": (mixed, 56, 4, "psnr=30"),
    "film": (film, 44, 7, ""),
}
"""Name to how it is drawn, its quality index, its GOP length, and the floor of each GOP."""
