"""What an output stream is told of display, fields and HDR, and what it cannot be told."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from s2vc_ray.encoders import CODECS, encoder
from s2vc_ray.mux import write_video
from s2vc_ray.pictures import VideoHeader
from s2vc_ray.stream_tags import encoder_options, not_written
from s2vc_ray.values import ColourTags, PictureTags
from tests.matrix.facts import facts
from tests.media import pictures

ST2086 = tuple(
    Fraction(*pair)
    for pair in (
        *((34000, 50000), (16000, 50000), (13250, 50000), (34500, 50000), (7500, 50000), (3000, 50000)),
        *((15635, 50000), (16450, 50000), (1, 10000), (1000, 1)),
    )
)
HDR = PictureTags(mastering_display=ST2086, content_light=(1000, 400))
SAID = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def test_hdr_in_each_encoder_s_words_behind_its_own_options() -> None:
    assert encoder_options("libx264", {"crf": "16"}, HDR, 48) == {
        "crf": "16",
        "x264-params": f"mastering-display={SAID}:cll=1000,400",
    }
    assert encoder_options("libx265", {"x265-params": "log-level=error"}, HDR, 48) == {
        "x265-params": f"log-level=error:master-display={SAID}:max-cll=1000,400"
    }
    assert encoder_options("libsvtav1", {}, HDR, 48) == {
        "svtav1-params": "mastering-display=G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)"
        "WP(0.31270,0.32900)L(1000.00000,0.00010):content-light=1000,400"
    }
    assert encoder_options("ffv1", {"level": "3"}, HDR, 48) == {"level": "3"}
    assert not_written("libx264", HDR, 48) == []
    assert "ffv1 cannot write the HDR10 metadata" in not_written("ffv1", HDR, 48)[0]


def test_half_a_mastering_display_is_not_made_up() -> None:
    half = PictureTags(mastering_display=(*[Fraction(0)] * 8, *ST2086[8:]))
    assert encoder_options("libx264", {}, half, 48) == {}
    assert not_written("libx264", half, 48)


def test_what_no_stream_can_say_is_not_said() -> None:
    bright = PictureTags(mastering_display=(*ST2086[:9], Fraction(1 << 30)), content_light=(1 << 16, 0))
    assert encoder_options("libx264", {}, bright, 48) == {}
    assert len(not_written("libx264", bright, 48)) == 2


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_takes_every_tag(tmp_path: Path, codec: str) -> None:
    """Whatever it makes of them, pictures and container's tags come back; HDR metadata where it is promised."""
    chosen = encoder(codec)
    mirror = (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    tags = replace(HDR, field_order="tt", display_matrix=mirror)
    header = VideoHeader(
        64, 48, Fraction(1, 25), 0, Fraction(1), ColourTags(1, 9, 16, 9), Fraction(25), 1, tags
    )
    out = tmp_path / f"out{chosen.containers[0]}"
    report = write_video(out, enumerate(pictures(3, 64, 48)), header, encoder=chosen)
    told = facts(out)
    assert (told["size"], told["display_matrix"]) == ((64, 48), mirror)
    promised = not any("HDR10" in note for note in report.notes)
    assert promised == (codec in ("h264", "hevc", "av1"))
    assert (told["light"] == (1000, 400)) == promised
    assert told["interlaced"] == (not any("interlaced" in note for note in report.notes)) == (codec == "h264")


@pytest.mark.parametrize(("order", "said"), [("tt", "tff"), ("bt", "tff"), ("bb", "bff"), ("tb", "bff")])
def test_the_field_shown_first_counts(order: str, said: str) -> None:
    tags = PictureTags(field_order=order)
    assert encoder_options("libx264", {}, tags, 48) == {"x264-params": f"fake-interlaced=1:{said}=1"}
    assert not_written("libx264", tags, 48) == []


def test_what_cannot_be_marked_is_told() -> None:
    for name, order, height in (
        ("libx264", "tt", 50),
        ("libx265", "bb", 48),
        ("libx264", "interlaced", 48),
    ):
        tags = PictureTags(field_order=order)
        assert encoder_options(name, {}, tags, height) == {}
        assert "interlaced" in not_written(name, tags, height)[0]


@pytest.mark.parametrize("order", ["unknown", "progressive"])
def test_nothing_to_say_changes_nothing(order: str) -> None:
    tags = PictureTags(field_order=order)
    assert encoder_options("libx264", {"crf": "16"}, tags, 48) == {"crf": "16"}
    assert not_written("libx264", tags, 48) == []
