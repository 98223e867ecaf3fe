"""The GOP payload: exact round trip, and damage that ends in BitstreamError or in another value, never otherwise."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_model.bitstream import MAX_FRAMES, MAX_SIDE, EncodedGop
from s2vc_model.errors import BitstreamError
from s2vc_model.picture_scale import SCALES

GOP = EncodedGop(352, 288, 3, 40, b"intra stream", b"inter stream of two frames", b"\x01\x80\xff", 0xDEADBEEF)


@st.composite
def gops(draw: st.DrawFn) -> EncodedGop:
    """Any value the layout can hold."""
    frames, scale = draw(st.integers(1, 300)), draw(st.integers(0, 3))
    return EncodedGop(
        width=draw(st.integers(1, MAX_SIDE)),
        height=draw(st.integers(1, MAX_SIDE)),
        frames=frames,
        q=draw(st.integers(SCALES[scale].coarser, 63)),
        intra=draw(st.binary(max_size=300)),
        inter=draw(st.binary(max_size=300)),
        checks=draw(st.binary(min_size=frames, max_size=frames)),
        symbol_crc=draw(st.integers(0, 2**32 - 1)),
        scale=scale,
    )


@given(gops())
def test_round_trip(gop: EncodedGop) -> None:
    payload = gop.to_payload()
    assert EncodedGop.from_payload(payload) == gop
    assert gop.bits_i + gop.bits_p == 8 * len(payload)
    assert gop.bits_p == 8 * len(gop.inter)


def test_layout_is_the_documented_one() -> None:
    expected = bytes.fromhex("6001 2001 28 03 0c efbeadde 0180ff") + GOP.intra + GOP.inter
    assert GOP.to_payload() == expected


@pytest.mark.parametrize(("scale", "byte"), [(0, 0x28), (1, 0x68), (2, 0xA8), (3, 0xE8)])
def test_the_scale_stands_above_the_quality(scale: int, byte: int) -> None:
    payload = dataclasses.replace(GOP, scale=scale).to_payload()
    assert payload[:4] + payload[5:] == GOP.to_payload()[:4] + GOP.to_payload()[5:]
    assert payload[4] == byte


@pytest.mark.parametrize(("scale", "least"), [(0, 0), (1, 11), (2, 19), (3, 14)])
def test_a_scale_has_coarser_quantisers_and_no_quality_that_lacks_them(scale: int, least: int) -> None:
    gop = dataclasses.replace(GOP, q=least, scale=scale)
    assert gop.quantiser == 0
    assert EncodedGop.from_payload(gop.to_payload()) == gop
    if least:
        with pytest.raises(BitstreamError, match="implausible"):
            EncodedGop.from_payload(dataclasses.replace(gop, q=least - 1).to_payload())


@pytest.mark.parametrize(
    ("scale", "size"), [(0, (143, 176)), (1, (215, 264)), (2, (286, 352)), (3, (215, 264))]
)
def test_coded_sizes_are_rounded_up(scale: int, size: tuple[int, int]) -> None:
    gop = dataclasses.replace(GOP, width=176, height=143, scale=scale)
    assert gop.coded_size == size


@pytest.mark.parametrize("fine", range(4))
@pytest.mark.parametrize(("q", "scale"), [(0, 0), (62, 0), (14, 3), (63, 1)])
def test_quarters_of_a_quality_round_trip(q: int, scale: int, fine: int) -> None:
    gop = dataclasses.replace(GOP, q=q, scale=scale, fine=fine)
    assert EncodedGop.from_payload(gop.to_payload()) == gop
    assert gop.table_row == gop.quantiser + 64 * fine
    assert len(gop.to_payload()) == len(GOP.to_payload()) + (2 if fine else 0)


@pytest.mark.parametrize(("q", "fine"), [(63, 1), (63, 3), (30, 4), (30, 200)])
def test_quarters_that_no_table_has_are_refused(q: int, fine: int) -> None:
    with pytest.raises(BitstreamError, match="quarters"):
        EncodedGop.from_payload(dataclasses.replace(GOP, q=q, fine=fine).to_payload())


@pytest.mark.parametrize("fine", [0, 3])
def test_longest_gop_round_trips(fine: int) -> None:
    gop = dataclasses.replace(GOP, frames=MAX_FRAMES, checks=bytes(MAX_FRAMES), fine=fine)
    assert EncodedGop.from_payload(gop.to_payload()) == gop


def parses_to_another(payload: bytes) -> bool:
    try:
        return EncodedGop.from_payload(payload) != GOP
    except BitstreamError:
        return True


def test_every_truncation_is_an_error_or_another_value() -> None:
    payload = GOP.to_payload()
    assert all(parses_to_another(payload[:n]) for n in range(len(payload)))
    intra_end = len(payload) - len(GOP.inter)
    for n in range(intra_end):
        with pytest.raises(BitstreamError):
            EncodedGop.from_payload(payload[:n])


def test_every_bit_flip_is_an_error_or_another_value() -> None:
    payload = GOP.to_payload()
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parses_to_another(bytes(damaged)), f"bit {bit} does not matter"


@given(st.binary(max_size=64))
def test_garbage_parses_or_raises_one_error(garbage: bytes) -> None:
    try:
        gop = EncodedGop.from_payload(garbage)
    except BitstreamError:
        return
    assert len(gop.checks) == gop.frames
    assert len(gop.intra) + len(gop.inter) <= len(garbage)


@pytest.mark.parametrize(
    "change",
    [{"width": 0}, {"height": 0}, {"frames": 0, "checks": b""}, {"frames": MAX_FRAMES + 1}],
    ids=lambda change: next(iter(change)),
)
def test_implausible_headers_are_refused(change: dict[str, int]) -> None:
    gop = dataclasses.replace(GOP, **change)  # type: ignore[arg-type]
    with pytest.raises(BitstreamError, match="implausible"):
        EncodedGop.from_payload(gop.to_payload() + bytes(MAX_FRAMES))


def test_overlong_and_unfinished_varints_are_refused() -> None:
    head = GOP.to_payload()[:5]
    with pytest.raises(BitstreamError, match="over-long"):
        EncodedGop.from_payload(head + b"\x80" * 6)
    with pytest.raises(BitstreamError, match="inside a varint"):
        EncodedGop.from_payload(head + b"\x80")
