"""GOPs of different codecs in one archive are decoded, checked and refused in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import BitstreamError, ModelError, SymbolMismatch
from s2vc_ray.archive import GopRecord
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.errors import ArchiveError, CorruptArchive
from s2vc_ray.fallback import encode_av1
from s2vc_ray.gop_decoder import AnyGop, check_symbols, codec_name, coded_gop, iter_decode
from tests.archives import header
from tests.fakes import FakeCodec, load_fake
from tests.media import pictures

HEADER = header(width=64, height=48)


@pytest.fixture
def codec() -> FakeCodec:
    return load_fake("fake", "cpu")


def ours(codec: FakeCodec, frames: int, seed: int = 0) -> EncodedGop:
    (gop,) = codec.encode_gops([pictures(frames, 64, 48, seed)], 32)
    return gop


def theirs(frames: int, seed: int = 0) -> Av1Gop:
    return encode_av1(pictures(frames, 64, 48, seed), 8)


def stacked(codec: FakeCodec, gops: list[AnyGop]) -> list[npt.NDArray[np.uint8]]:
    found: list[list[npt.NDArray[np.uint8]]] = [[] for _ in gops]
    for at, shown in enumerate(iter_decode(codec, gops)):
        for number, picture in shown.items():
            assert len(found[number]) == at
            found[number].append(picture)
    return [np.stack(frames) for frames in found]


def test_codecs_side_by_side_give_each_gop_its_own_pictures(codec: FakeCodec) -> None:
    gops: list[AnyGop] = [theirs(3), ours(codec, 5), theirs(6, seed=1), ours(codec, 2, seed=2)]
    together = stacked(codec, gops)
    assert [len(frames) for frames in together] == [3, 5, 6, 2]
    for gop, frames in zip(gops, together, strict=True):
        assert (stacked(codec, [gop])[0] == frames).all()
    assert np.abs(together[2].astype(int) - pictures(6, 64, 48, seed=1)).mean() < 8


def test_only_its_own_gops_reach_the_codec() -> None:
    class Strict(FakeCodec):
        def check_symbols(self, gops: object) -> None:
            raise AssertionError("not asked for")

        iter_decode = check_symbols  # type: ignore[assignment]

    strict = Strict("fake", "cpu")
    assert [len(frames) for frames in stacked(strict, [theirs(2), theirs(1)])] == [2, 1]
    check_symbols(strict, [theirs(2)])


def test_symbols_and_planes_are_checked(codec: FakeCodec) -> None:
    gops: list[AnyGop] = [ours(codec, 2), theirs(2)]
    check_symbols(codec, gops)
    with pytest.raises(SymbolMismatch):
        check_symbols(codec, [gops[0], replace(theirs(2), units=theirs(2, seed=1).units)])
    with pytest.raises(ModelError):
        check_symbols(codec, [replace(ours(codec, 2), symbol_crc=1), gops[1]])


def test_a_record_is_parsed_by_its_codecs_name(codec: FakeCodec) -> None:
    for name, gop in (("s2vc", ours(codec, 2)), ("av1", theirs(2))):
        record = GopRecord(7, 0, gop.q, (0, 1), gop.to_payload(), name)
        assert coded_gop(record, HEADER) == gop
        assert codec_name(gop) == name
        with pytest.raises(CorruptArchive, match=r"GOP 7: its payload holds 2 frames of 64x48, its record 3"):
            coded_gop(replace(record, pts=(0, 1, 2)), HEADER)
        with pytest.raises(CorruptArchive):
            coded_gop(record, header(width=48, height=64))
        with pytest.raises(BitstreamError):
            coded_gop(replace(record, payload=gop.to_payload()[:12]), HEADER)
    with pytest.raises(ArchiveError, match="GOP 7 is coded by 'vvc', which this version cannot decode"):
        coded_gop(replace(record, codec="vvc"), HEADER)
