"""What coding as progressive 8-bit RGB does to a source is said, and nothing is said of what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s2vc_ray.decisions import decisions
from s2vc_ray.values import ColourTags, PictureTags, VideoInfo
from tests.s2vc_ray.test_split import info_with

PLAIN = replace(info_with((0, 1), (0,)), bit_depth=8)


def test_plain_video_needs_no_word() -> None:
    assert decisions(PLAIN) == ()
    assert decisions(replace(PLAIN, pix_fmt="pal8", tags=PictureTags(field_order="progressive"))) == ()


@pytest.mark.parametrize(
    ("order", "deinterlaced", "words"),
    [
        ("tt", 12, "12 interlaced pictures (top field first) deinterlaced by FFmpeg's bwdif"),
        ("bb", 1, "1 interlaced pictures (bottom field first) deinterlaced"),
        ("unknown", 3, "3 interlaced pictures (field order unknown) deinterlaced"),
        ("tt", 0, "called interlaced (top field first) by no picture itself: not deinterlaced"),
    ],
)
def test_deinterlacing_is_told_by_what_it_did(order: str, deinterlaced: int, words: str) -> None:
    (said,) = decisions(replace(PLAIN, tags=PictureTags(order)), deinterlaced=deinterlaced)
    assert words in said
    assert decisions(PLAIN, deinterlaced=0) == ()


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (
            replace(PLAIN, bit_depth=10, pix_fmt="yuv420p10le"),
            "10-bit samples (yuv420p10le) rounded to 8 bits",
        ),
        (replace(PLAIN, colour=ColourTags(1, 9, 16, 9)), "PQ (SMPTE ST 2084) pictures coded as they are"),
        (replace(PLAIN, colour=ColourTags(1, 9, 18, 9)), "HLG (ARIB STD-B67) pictures coded as they are"),
        (replace(PLAIN, tags=PictureTags("tt")), "interlaced pictures (top field first)"),
        (replace(PLAIN, tags=PictureTags("bt")), "interlaced pictures (top field first)"),
        (replace(PLAIN, tags=PictureTags("bb")), "interlaced pictures (bottom field first)"),
        (replace(PLAIN, tags=PictureTags("tb")), "interlaced pictures (bottom field first)"),
        (replace(PLAIN, tags=PictureTags("interlaced")), "interlaced pictures (field order unknown)"),
        (replace(PLAIN, pix_fmt="gray"), "gray (gray) coded as RGB"),
        (replace(PLAIN, other_videos=(0, 5)), "video stream 3 coded; video streams 0, 5 not coded"),
        (replace(PLAIN, untimed=2), "2 frames without a time stamp not coded"),
        (replace(PLAIN, not_kept=("closed captions",)), "not kept: closed captions"),
    ],
)
def test_each_decision_is_one_sentence(info: VideoInfo, words: str) -> None:
    (said,) = decisions(info)
    assert words in said
