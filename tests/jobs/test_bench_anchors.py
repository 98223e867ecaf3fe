"""Classical codecs beside ours: rates and GOPs as asked for, pictures from the stream."""

from __future__ import annotations

import math

import av
import numpy as np
import pytest

from jobs.bench_anchors import ANCHORS, FfmpegAnchor
from jobs.bench_clips import synthetic_clip
from jobs.bench_coded import Anchor
from jobs.bench_ffmpeg import VvencAnchor

ENCODERS = [anchor for anchor in ANCHORS.values() if isinstance(anchor, FfmpegAnchor)]
VVENC = next(anchor for anchor in ANCHORS.values() if isinstance(anchor, VvencAnchor))


def access_units(stream: bytes) -> list[int]:
    """Where VVC access unit delimiters begin, start codes included."""
    starts, at = [], -1
    while (at := stream.find(bytes([0, 0, 1, 0, 20 << 3 | 1]), at + 1)) >= 0:
        starts.append(at)
    return starts


def nal_types(stream: bytes) -> list[int]:
    """VVC NAL unit types in order."""
    return [part[1] >> 3 for part in stream.split(b"\0\0\1")[1:] if len(part) > 1]


@pytest.mark.parametrize("anchor", ANCHORS.values(), ids=ANCHORS)
def test_anchor_rate_and_quality_fall_along_its_ladder(anchor: Anchor) -> None:
    if anchor is VVENC:
        pytest.importorskip("imageio_ffmpeg")
    clip = synthetic_clip(96, 64, 6)
    best, least = (anchor.code(clip.frames, clip.rate, anchor.ladder[i], 4) for i in (0, -1))
    error = [np.square(clip.frames.astype(float) - c.decoded).mean() for c in (best, least)]
    assert best.bytes > least.bytes > 0
    assert error[0] < error[1]
    assert 10 * math.log10(255**2 / error[0]) > 24


@pytest.mark.parametrize("anchor", ENCODERS, ids=[anchor.name for anchor in ENCODERS])
def test_anchor_starts_a_closed_gop_where_told(anchor: FfmpegAnchor) -> None:
    """The second GOP alone must decode to what it decodes to behind the first."""
    clip = synthetic_clip(96, 64, 8)
    packets = anchor._encode(clip.frames, clip.rate, anchor.ladder[0], 4)
    whole = anchor._decode(packets)
    np.testing.assert_array_equal(anchor._decode(packets[4:]), whole[4:])


@pytest.mark.parametrize("anchor", ENCODERS, ids=[anchor.name for anchor in ENCODERS])
def test_anchor_left_alone_makes_one_long_gop(anchor: FfmpegAnchor) -> None:
    clip = synthetic_clip(64, 64, 14)
    for gop, expected in ((7, 2), (None, 1)):
        packets = anchor._encode(clip.frames, clip.rate, anchor.ladder[-1], gop)
        context = av.CodecContext.create(anchor.decoder, "r")
        frames = [frame for data in packets for frame in context.decode(av.Packet(data))] + context.decode(
            None
        )
        assert sum(bool(frame.key_frame) for frame in frames) == expected


def test_vvenc_gops_stand_alone_and_pictures_come_from_the_stream() -> None:
    """VVC: access units begin with a delimiter (type 20), each IDR (type 8) with its parameter sets."""
    pytest.importorskip("imageio_ffmpeg")
    clip = synthetic_clip(64, 50, 8)
    stream = VVENC._encode(clip.frames, clip.rate, 50, 4)
    coded = VVENC.code(clip.frames, clip.rate, 50, 4)
    assert (coded.bytes, coded.payload_bytes) == (len(stream), len(stream))
    assert nal_types(stream).count(8) == 2
    idr = bytes([0, 0, 1, 0, 8 << 3 | 1])
    second = stream.index(idr, stream.index(idr) + 1)
    cut = max(at for at in access_units(stream) if at < second)
    np.testing.assert_array_equal(VVENC._decode(stream[cut:], 50, 64), coded.decoded[4:])
    left_alone = nal_types(VVENC._encode(clip.frames, clip.rate, 50, None))
    assert sum(left_alone.count(intra) for intra in (7, 8, 9)) == 1


def test_x265_stream_carries_no_settings_text() -> None:
    clip = synthetic_clip(96, 64, 2)
    anchor = next(anchor for anchor in ENCODERS if anchor.encoder == "libx265")
    packet, *_ = anchor._encode(clip.frames, clip.rate, 51, 2)
    assert b"x265" not in packet
