"""What an output stream is told of display, fields and HDR, and what it cannot be told."""

from __future__ import annotations

from fractions import Fraction

import pytest

from s2vc_ray.stream_tags import encoder_options, not_written
from s2vc_ray.values import PictureTags

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
    assert encoder_options("ffv1", {"level": "3"}, HDR, 48) == {"level": "3"}
    assert not_written("libx264", HDR, 48) == []
    assert "ffv1 cannot write the HDR10 metadata" in not_written("ffv1", HDR, 48)[0]


def test_half_a_mastering_display_is_not_made_up() -> None:
    half = PictureTags(mastering_display=(*[Fraction(0)] * 8, *ST2086[8:]))
    assert encoder_options("libx264", {}, half, 48) == {}
    assert not_written("libx264", half, 48)


@pytest.mark.parametrize(("order", "said"), [("tt", "tff"), ("bt", "tff"), ("bb", "bff"), ("tb", "bff")])
def test_the_field_shown_first_counts(order: str, said: str) -> None:
    tags = PictureTags(field_order=order)
    assert encoder_options("libx264", {}, tags, 48) == {"x264-params": f"fake-interlaced=1:{said}=1"}
    assert not_written("libx264", tags, 48) == []


def test_what_cannot_be_marked_is_told() -> None:
    for encoder, order, height in (
        ("libx264", "tt", 50),
        ("libx265", "bb", 48),
        ("libx264", "interlaced", 48),
    ):
        tags = PictureTags(field_order=order)
        assert encoder_options(encoder, {}, tags, height) == {}
        assert "interlaced" in not_written(encoder, tags, height)[0]


@pytest.mark.parametrize("order", ["unknown", "progressive"])
def test_nothing_to_say_changes_nothing(order: str) -> None:
    tags = PictureTags(field_order=order)
    assert encoder_options("libx264", {"crf": "16"}, tags, 48) == {"crf": "16"}
    assert not_written("libx264", tags, 48) == []
