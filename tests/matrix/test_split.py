"""GOPs cover exactly the frames that a plain decode shows, and decoding by GOPs gives exactly its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from s2vc_ray.errors import SourceError
from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.frames import decode_gop, read_gop
from s2vc_ray.probe import probe
from s2vc_ray.split import split, split_at
from tests.matrix.case import Case
from tests.matrix.cases import CASES

GOP = 7
"""Divides nothing that the sources are made of."""

UNEVEN = range(3, 1000, 5)
"""Where other GOPs begin, of 5 frames but for the first: so every source has seeks to other frames than with `GOP`."""

TIMELESS = ("avi", "h264", "hevc", "mpegvideo", "mjpeg", "dv")
"""Formats whose frames are named by count."""

LED_ASTRAY = (
    "mp4 edit list that shows the end before the beginning",
    "avi whose index lacks one of its entries",
    "flv whose packets all claim to be keyframes, Sorenson H.263",
)
"""Sources in which a seek does lead elsewhere."""

Frames = list[tuple[int | None, str]]


def straight(source: Path, stream: int) -> Frames:
    """Time stamp and digest of every frame that FFmpeg decodes from beginning to end, without the product's help."""
    digest = FrameHasher()
    found: Frames = []
    with av.open(str(source), metadata_errors="surrogateescape") as file:
        packets = file.demux(file.streams[stream])
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, av.EOFError):
                return found
            except av.FFmpegError:
                continue
            found += [(frame.pts, digest(frame).md5) for frame in frames]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gops_hold_what_a_plain_decode_shows(case: Case, source_of: Callable[[Case], Path]) -> None:
    source = source_of(case)
    try:
        info = probe(source)
    except SourceError:
        return  # `test_case` says why
    specs = split(info, source_uri=str(source), video_id="v", gop=GOP)
    assert [spec.first_frame for spec in specs] == list(range(0, info.frames, GOP))
    starts = [0, *(at for at in UNEVEN if at < info.frames)]
    uneven = split_at(info, source_uri=str(source), video_id="v", starts=starts)
    for each in (specs, uneven):
        assert [spec.index for spec in each] == list(range(len(each)))
        assert [pts for spec in each for pts in spec.pts] == list(info.pts)
    if "size changes" in case.name:
        return
    by_count = info.container in TIMELESS or (info.container, info.codec) == ("mxf", "h264")
    # What FFmpeg shows of a source whose index lies may be noise.
    plain = source.with_name("whole.avi") if info.index_hidden else source
    wanted = [frame for frame in straight(plain, info.stream_index) if frame[0] is not None or by_count]
    for each in (specs, uneven):
        found: Frames = []
        strayed = 0
        for spec in each:
            gop = decode_gop(source, spec)
            strayed += gop.strayed
            found += zip(gop.pts, (one.md5 for one in gop.digests), strict=True)
            assert len(list(read_gop(source, spec))) == spec.frames, "the seek point was not early enough"
        assert not strayed or (case.name in LED_ASTRAY and strayed < len(each)), (
            "taken for one whose index lies"
        )
        if by_count:
            assert [pts for pts, _ in found] == list(info.pts)
            assert [md5 for _, md5 in found] == [md5 for _, md5 in wanted]
        else:
            assert found == wanted
