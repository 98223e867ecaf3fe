"""An AVI's index is believed where its chunks agree with it, and hidden where they do not."""

from __future__ import annotations

import io
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s2vc_ray.avi_index import index_lies, without_index
from s2vc_ray.frames import decode_gop
from s2vc_ray.passthrough import extract
from s2vc_ray.probe import probe
from s2vc_ray.source_io import choose_video, open_source
from s2vc_ray.split import split
from tests.media import make_clip


def lies(path: Path) -> bool:
    with open_source(path) as container, path.open("rb") as file:
        file.seek(7)
        try:
            return index_lies(container, choose_video(container, ""), file)
        finally:
            assert file.tell() == 7


def film(path: Path) -> list[str]:
    info = probe(path)
    gops = [decode_gop(path, spec) for spec in split(info, source_uri=str(path), video_id="v", gop=7)]
    return [one.md5 for gop in gops for one in gop.digests]


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "huffyuv", "dvvideo", "libx264", "mpeg2video"])
@pytest.mark.parametrize("audio", [None, "pcm_s16le"])
def test_a_true_index_is_believed(tmp_path: Path, codec: str, audio: str | None) -> None:
    pix_fmt = {"mjpeg": "yuvj420p", "huffyuv": "yuv422p"}.get(codec, "yuv420p")
    size = (720, 576) if codec == "dvvideo" else (64, 48)
    clip = make_clip(tmp_path / "a.avi", codec=codec, audio=audio, pix_fmt=pix_fmt, size=size, frames=12)
    assert not lies(clip)
    clip.write_bytes(clip.read_bytes()[:-40])
    assert not lies(clip), "cut short is no lie"


def test_other_formats_have_none(tmp_path: Path) -> None:
    assert not lies(make_clip(tmp_path / "a.mp4", frames=5))


def test_entries_in_another_order_lie(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", codec="mpeg4", audio="pcm_s16le", frames=37)
    whole, data = film(clip), bytearray(clip.read_bytes())
    at = data.index(b"idx1") + 8
    end = at + int.from_bytes(data[at - 4 : at], "little")
    entries = [bytes(data[entry : entry + 16]) for entry in range(at, end, 16)]
    data[at:end] = b"".join([entries[0], *entries[:0:-1]])
    clip.write_bytes(data)
    assert lies(clip)
    assert film(clip) == whole


def test_a_place_before_the_file_is_a_lie() -> None:
    entries = [SimpleNamespace(pos=place, size=5) for place in (-20, 40)]
    container: Any = SimpleNamespace(format=SimpleNamespace(name="avi"))
    stream: Any = SimpleNamespace(index=0, index_entries=entries)
    assert index_lies(container, stream, io.BytesIO(bytes(100)))


@pytest.mark.parametrize("whole_file", [True, False])
def test_nothing_but_names_of_indexes_is_hidden(tmp_path: Path, whole_file: bool) -> None:
    data = make_clip(tmp_path / "a.avi", codec="mpeg4", frames=12, metadata={"title": "idx1"}).read_bytes()
    at = data.rindex(b"idx1")
    assert data.index(b"idx1") < data.index(b"movi") < at
    wanted = bytearray(data)
    wanted[at : at + 4] = b"JUNK"
    for place in range(data.index(b"movi")):
        if data[place : place + 4] == b"indx":  # of OpenDML, in the list about a stream
            wanted[place : place + 4] = b"JUNK"
    source = io.BytesIO(data)
    with without_index(source) as hidden:
        if whole_file:
            assert hidden.read() == wanted
        else:
            draw = random.Random(1)
            for _ in range(300):
                begin, size = draw.randrange(len(data)), draw.choice((1, 3, 8, 500, 20_000))
                hidden.seek(begin)
                assert hidden.read(size) == wanted[begin : begin + size]
    assert not source.closed
    assert source.getvalue() == data


def test_sound_beside_a_lying_index_is_carried(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", codec="mpeg4", audio="pcm_s16le", frames=25)
    sound = [packet.data for packet in extract(clip).packets()]
    data = bytearray(clip.read_bytes())
    at = data.index(b"idx1") + 8
    for entry in range(at + 16, at + int.from_bytes(data[at - 4 : at], "little"), 16):
        place = int.from_bytes(data[entry + 8 : entry + 12], "little")
        data[entry + 8 : entry + 12] = (place - 100).to_bytes(4, "little")
    clip.write_bytes(data)
    assert probe(clip).index_hidden
    with without_index(clip) as hidden:
        assert [packet.data for packet in extract(hidden).packets()] == sound
