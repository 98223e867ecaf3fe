"""Display matrix and HDR metadata are read from frames as FFmpeg hands them out; damage becomes unknown."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.sidedata.sidedata import Type

from s2vc_ray.probe import probe
from s2vc_ray.side_data import content_light, display_matrix, mastering_display, not_kept
from tests.media import make_clip


class Item:
    """Stands for an item of a frame's side data."""

    def __init__(self, kind: Type, data: bytes) -> None:
        self.type, self._data = kind, data

    def __bytes__(self) -> bytes:
        return self._data


def frame(kind: Type, data: bytes) -> Any:
    return SimpleNamespace(side_data=[Item(kind, data)])


def mastering(numbers: list[int], primaries: int = 1, luminance: int = 1) -> Any:
    return frame(Type.MASTERING_DISPLAY_METADATA, struct.pack("=22i", *numbers, primaries, luminance))


NUMBERS = [number for at in range(10) for number in (at, 50000)]
WANTED = tuple(Fraction(at, 50000) for at in range(10))


def test_mastering_display_in_full_and_in_part() -> None:
    assert mastering_display(mastering(NUMBERS)) == WANTED
    assert mastering_display(mastering(NUMBERS, primaries=0)) == (*[Fraction(0)] * 8, *WANTED[8:])
    assert mastering_display(mastering(NUMBERS, luminance=0)) == (*WANTED[:8], *[Fraction(0)] * 2)


def test_a_fraction_over_nothing_is_unknown_and_a_negative_one_is_damage() -> None:
    assert mastering_display(mastering([5, 0, *NUMBERS[2:]])) == (Fraction(0), *WANTED[1:])
    assert mastering_display(mastering([-5, 1, *NUMBERS[2:]])) is None
    assert mastering_display(mastering([5, -1, *NUMBERS[2:]])) is None


def test_short_items_and_plain_frames_say_nothing() -> None:
    plain = av.VideoFrame(16, 16)
    for read, kind in (
        (display_matrix, Type.DISPLAYMATRIX),
        (mastering_display, Type.MASTERING_DISPLAY_METADATA),
        (content_light, Type.CONTENT_LIGHT_LEVEL),
    ):
        assert read(plain) is None
        assert read(frame(kind, b"\x00" * 7)) is None


def test_what_is_not_kept_is_named_once() -> None:
    two = SimpleNamespace(
        side_data=[Item(kind, b"") for kind in (Type.DOVI_METADATA, Type.A53_CC, Type.DOVI_RPU_BUFFER)]
    )
    assert not_kept(two) == ("Dolby Vision metadata", "closed captions")
    assert not_kept(frame(Type.DISPLAYMATRIX, b"")) == ()
    assert not_kept(frame(Type.GOP_TIMECODE, struct.pack("=q", 1 << 12))) == ()
    assert not_kept(frame(Type.GOP_TIMECODE, b"\x01" * 8)) == ("timecodes",)


def test_items_that_later_grow_are_read_from_their_start() -> None:
    assert content_light(frame(Type.CONTENT_LIGHT_LEVEL, struct.pack("=3I", 1000, 400, 7))) == (1000, 400)


@pytest.mark.parametrize("value", [0, -(1 << 31)])
def test_a_matrix_that_is_no_rotation_does_no_harm(tmp_path: Path, value: int) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    data = clip.read_bytes()
    at = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    clip.write_bytes(data[:at] + struct.pack(">9i", *[value] * 9) + data[at + 36 :])
    info = probe(clip)
    assert info.tags.display_matrix == (value,) * 9
    assert -359 <= info.rotation <= 359
    assert info.frames == 3


def test_metadata_without_a_name_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """TIFF's tags, which FFmpeg hands out as Exif."""
    info = probe(make_clip(tmp_path / "a.mov", codec="tiff", pix_fmt="rgb24", frames=3))
    assert info.frames == 3
    assert info.not_kept == ("metadata of the pictures that PyAV cannot name (such as Exif)",)
    assert info.tags.display_matrix is None
