"""The fallback codec: what goes in comes out, equal bytes for equal frames, and nothing silent about damage."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from s2vc_model.errors import BitstreamError, ModelError, SymbolMismatch
from s2vc_ray.av1_gop import MAX_HEIGHT, MAX_WIDTH, Av1Gop, coded_size, temporal_units
from s2vc_ray.fallback import check_av1, encode_av1, iter_decode_av1, takes
from tests.fuzz.damage import damage
from tests.media import pictures

HEAD = 14
CRF = 20


def smooth(frames: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Moving gradients whose colours chroma subsampling keeps."""
    y, x = np.mgrid[0:height, 0:width]
    shift = np.arange(frames)[:, None, None]
    planes = (60 + x * min(2, 120 / width) + 2 * shift, 200 - y * 90 / height + 0 * shift, 90 + shift + 0 * x)
    found: npt.NDArray[np.uint8] = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return found


def decoded(gop: Av1Gop) -> npt.NDArray[np.uint8]:
    return np.stack(list(iter_decode_av1(gop)))


@pytest.fixture(scope="module")
def gop() -> Av1Gop:
    return encode_av1(pictures(6, 64, 48), CRF)


@pytest.mark.parametrize(
    ("frames", "width", "height"),
    [(1, 64, 48), (5, 53, 37), (3, 1, 1), (2, 3, 200), (2, 17, 16), (1024, 16, 16), (33, 66, 34)],
)
def test_frames_of_every_size_come_back(frames: int, width: int, height: int) -> None:
    source = smooth(frames, width, height)
    gop = encode_av1(source, 10)
    assert (gop.frames, gop.width, gop.height, gop.q) == (frames, width, height, 10)
    back = decoded(gop).astype(int)
    assert back.shape == source.shape
    difference = back - source
    assert np.abs(difference).mean() < 3
    assert np.abs(difference.mean((0, 1, 2))).max() < 1.5


def test_colours_have_no_bias_and_players_are_told_which_they_are(tmp_path: Path) -> None:
    """The stream by itself, through a demuxer and FFmpeg's own idea of its colours, gives the same pictures."""
    source = smooth(4, 96, 64)
    gop = encode_av1(source, 4)
    mine = decoded(gop).astype(int)
    assert np.abs((mine - source).mean((0, 1, 2))).max() < 0.35
    (tmp_path / "cut.obu").write_bytes(gop.to_payload()[HEAD + gop.frames :])
    with av.open(str(tmp_path / "cut.obu")) as container:
        frames = list(container.decode(video=0))
    assert {(frame.color_range, frame.colorspace) for frame in frames} == {(1, 1)}
    theirs = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(int)
    assert np.abs(theirs - mine).mean() < 2


def test_a_larger_crf_is_a_smaller_gop() -> None:
    source = pictures(8, 64, 48)
    sizes = [len(encode_av1(source, crf).to_payload()) for crf in (5, 30, 63)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


def test_equal_frames_give_equal_bytes_in_another_process_too(gop: Av1Gop) -> None:
    code = (
        "import sys; from s2vc_ray.fallback import encode_av1; from tests.media import pictures; "
        f"sys.stdout.buffer.write(encode_av1(pictures(6, 64, 48), {CRF}).to_payload())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout == gop.to_payload()
    assert run.stderr == b""


def test_bytes_do_not_depend_on_neighbours_in_the_process(gop: Av1Gop) -> None:
    with ThreadPoolExecutor(4) as pool:
        coded = list(pool.map(lambda _: encode_av1(pictures(6, 64, 48), CRF), range(12)))
    assert {one.to_payload() for one in coded} == {gop.to_payload()}


def test_payloads_are_parsed_to_what_they_were(gop: Av1Gop) -> None:
    payload = gop.to_payload()
    assert Av1Gop.from_payload(payload) == gop
    assert gop.bits_i + gop.bits_p == 8 * len(payload)
    assert payload[HEAD - 4 : HEAD] == gop.plane_crc.to_bytes(4, "little")
    assert payload[HEAD:] == gop.checks + gop.stream


def test_every_cut_and_every_wrong_field_is_refused(gop: Av1Gop) -> None:
    payload = gop.to_payload()
    for end in range(0, len(payload), 7):
        with pytest.raises(BitstreamError):
            check_av1(Av1Gop.from_payload(payload[:end]))
    for field, value in ((0, 2), (1, 64), (2, 0), (3, 255), (5, 255), (6, 5), (6, 7), (8, 1)):
        broken = bytearray(payload)
        broken[field] = value
        with pytest.raises(BitstreamError):
            check_av1(Av1Gop.from_payload(bytes(broken)))
    with pytest.raises(BitstreamError):
        Av1Gop.from_payload(payload + b"\0")
    with pytest.raises(BitstreamError):
        Av1Gop.from_payload(payload + gop.units[-1])


def test_other_planes_are_never_silent(gop: Av1Gop) -> None:
    """The stream of other pictures, of the same size and number."""
    other = encode_av1(pictures(6, 64, 48, seed=3), CRF)
    forged = replace(gop, units=other.units)
    with pytest.raises(SymbolMismatch, match="frame 0"):
        check_av1(forged)
    with pytest.raises(SymbolMismatch):
        next(iter_decode_av1(forged))
    last = replace(gop, plane_crc=gop.plane_crc ^ 0x100)
    assert len(last.checks) == 6
    with pytest.raises(SymbolMismatch, match="frame 5"):
        check_av1(last)


def test_streams_of_another_size_number_or_format_are_refused(gop: Av1Gop) -> None:
    with pytest.raises(BitstreamError):
        check_av1(replace(gop, width=32, height=32))
    with pytest.raises(BitstreamError):
        check_av1(replace(gop, width=640, height=480))
    with pytest.raises(BitstreamError):
        check_av1(replace(gop, units=(*gop.units[:-1], b"\x12\0")))
    with pytest.raises(BitstreamError):
        check_av1(replace(gop, units=(gop.units[0], gop.units[0][:20], *gop.units[2:])))


def test_obus_are_counted_and_bounded() -> None:
    sequence = b"\x0a\x01\0"
    assert temporal_units(b"\x12\0" + sequence + b"\x12\0", 2) == (b"\x12\0" + sequence, b"\x12\0")
    assert len(temporal_units(b"\x12\0" + sequence + b"\x7a\0" * 62, 1)) == 1
    for stream, frames in (
        (b"", 1),
        (sequence, 1),
        (b"\x12\0", 0),
        (b"\x12\0\x32\x01\0", 1),
        (b"\x12\0" + sequence + b"\x7a\0" * 63, 1),
        (b"\x12\0\x0a\x80", 1),
        (b"\x12\0\x0a\xff\xff\xff\xff\x7f", 1),
        (b"\x12\0\x08\x01\0", 1),
        (b"\x12\0\x0e\x01\0", 1),
        (b"\x12\0\x8a\x01\0", 1),
    ):
        with pytest.raises(BitstreamError):
            temporal_units(stream, frames)


def test_damage_ends_in_the_projects_own_errors(gop: Av1Gop) -> None:
    rng, outcomes = random.Random(1), set[str]()
    payload = gop.to_payload()
    for _ in range(300):
        broken = damage(payload, rng)
        try:
            check_av1(Av1Gop.from_payload(broken))
        except ModelError as error:
            outcomes.add(type(error).__name__)
        else:
            assert broken[:HEAD] == payload[:HEAD]
            outcomes.add("ok")
    assert outcomes >= {"BitstreamError", "SymbolMismatch"}


def test_what_the_encoder_does_not_take() -> None:
    assert takes(MAX_WIDTH, MAX_HEIGHT)
    assert not takes(MAX_WIDTH + 1, 16)
    assert not takes(16, MAX_HEIGHT + 1)
    for crf in (-1, 64):
        with pytest.raises(ValueError, match="CRF"):
            encode_av1(pictures(1, 64, 48), crf)
    with pytest.raises(ValueError, match="16384x8704"):
        encode_av1(np.zeros((1, 1, MAX_WIDTH + 1, 3), np.uint8), 20)


def test_padding_is_even_and_at_least_sixteen() -> None:
    assert coded_size(1, 17) == (16, 18)
    assert coded_size(64, 48) == (64, 48)
