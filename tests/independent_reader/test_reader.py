"""The product and a reader written from docs/format.md alone find the same in the same bytes, and refuse the same."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vc_ray.archive import ArchiveReader, GopRecord, write_archive
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.gop_decoder import coded_gop
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.shots import ShotsGop
from tests.archives import GOPS, archive_bytes
from tests.fakes import load_fake
from tests.fuzz.damage import damage
from tests.golden.clips import CLIPS
from tests.golden.record import SETS
from tests.independent_reader.rans import Stream
from tests.independent_reader.reader import Archive, Damaged, crc32c, read_archive, read_passthrough

FLIPS = 400


def goldens() -> list[Path]:
    return sorted(SETS.glob("*/*.s2vc"))


def generated(folder: Path) -> Iterator[bytes]:
    """What the product makes of the golden clips today; the codec stands aside."""
    for name, (draw, q, gop, _) in CLIPS.items():
        home = folder / name
        home.mkdir()
        none = MetricPolicy.parse("none")
        config = JobConfig(
            model="fake", quality=q, gop=gop, metrics=none, executor="local", device="cpu", allow_larger=True
        )
        compress([str(draw(home))], str(home / "out"), config, load_codec=load_fake)
        for path in (home / "out").glob("*.s2vc"):
            reader = ArchiveReader(path.read_bytes())
            yield _rewritten(reader, map(_renamed, reader.gops()))


def agree(data: bytes) -> Archive:
    """Both readers on one archive."""
    plain, reader = read_archive(data), ArchiveReader(data)
    reader.verify()
    parsed = json.loads(reader.header.to_json())
    assert plain.header == {name: parsed[name] for name in plain.header}
    records = list(reader.gops())
    told = [(r.index, r.first_frame, r.q, r.codec, tuple(r.pts), r.payload) for r in records]
    assert [(g.number, g.first_frame, g.q, g.codec, tuple(g.pts), g.payload) for g in plain.gops] == told
    for gop, record in zip(plain.gops, records, strict=True):
        if gop.coded is not None:
            ours = coded_gop(record, reader.header)
            assert gop.coded.size == (ours.width, ours.height, ours.frames)
            if isinstance(ours, ShotsGop):
                for shot, own in zip(gop.coded.shots, ours.shots, strict=True):
                    assert shot[1:] == (own.q, own.scale, own.symbol_crc, own.checks, own.intra, own.inter)
            elif isinstance(ours, Av1Gop):
                assert gop.coded[1:4] == (ours.q, ours.plane_crc, ours.checks)
                for theirs, unit in zip(gop.coded.units, ours.units, strict=True):
                    assert unit.endswith(theirs[-1][1])
                    assert len(unit) >= sum(2 + len(data) for _, data in theirs)
            else:
                assert gop.coded[1:] == (ours.q, ours.scale, ours.symbol_crc, ours.checks, ours.intra, ours.inter)
    assert plain.passthrough == b"".join(reader.passthrough())
    return plain


def agree_on_passthrough(data: bytes) -> None:
    plain, carried = read_passthrough(data), Passthrough.from_bytes(data)
    ours = [(*_times(p), dict(p.side), p.data) for p in carried.packets()]
    assert [(*_times(p), p.side, p.data) for p in plain.packets] == ours
    assert plain.files == [carried.attachment(n) for n in range(len(carried.head.attachments))]
    for name, value in asdict(carried.head).items():
        assert _as_json(value, plain.head[name]) == plain.head[name], name


def _times(packet: Any) -> tuple[Any, ...]:
    return (packet.stream, packet.flags, packet.pts, packet.dts, packet.duration)


def _as_json(value: Any, like: Any) -> Any:
    """``value`` in the JSON that ``like`` is; bytes, which are base64 there, are taken as they are."""
    if isinstance(value, bytes):
        return like
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, dict):
        return {key: _as_json(one, like[key]) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_as_json(one, other) for one, other in zip(value, like, strict=True)]
    return value


def test_crc_is_the_one_that_the_page_names() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@pytest.mark.parametrize("path", goldens(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_readers_agree_on_golden_archives(path: Path) -> None:
    plain = agree(path.read_bytes())
    assert all(gop.coded for gop in plain.gops)
    if plain.passthrough:
        agree_on_passthrough(plain.passthrough)


def test_readers_agree_on_archives_made_today(tmp_path: Path) -> None:
    found = [agree(data) for data in generated(tmp_path)]
    assert len(found) == len(CLIPS)
    for archive in found:
        if archive.passthrough:
            agree_on_passthrough(archive.passthrough)


def _renamed(record: GopRecord) -> GopRecord:
    """A record whose payload is not that of `s2vc`."""
    return replace(record, codec="fake")


def _rewritten(reader: ArchiveReader, gops: Iterable[GopRecord]) -> bytes:
    out = io.BytesIO()
    write_archive(out, reader.header, gops, reader.passthrough())
    return out.getvalue()


def test_readers_agree_on_what_is_salvaged_of_a_truncated_archive() -> None:
    """An archive that was cut, salvaged and written anew, and one with lost GOPs, equal times and a second codec."""
    path = next(path for path in goldens() if path.stem == "varying")
    cut = ArchiveReader(path.read_bytes()[:-60], salvage=True)
    assert cut.damage
    kept = list(cut.gops())
    assert kept
    assert agree(_rewritten(cut, kept)).header["frames"] >= sum(record.frames for record in kept)
    odd = agree(archive_bytes(map(_renamed, GOPS)))
    assert [gop.number for gop in odd.gops] == [0, 1, 3]


@pytest.mark.parametrize("path", goldens(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_damaged_byte_is_refused(path: Path) -> None:
    data, rng = path.read_bytes(), random.Random(path.stem)
    for _ in range(FLIPS if len(data) < 4096 else FLIPS // 8):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(Damaged):
            read_archive(bytes(broken))
    for _ in range(20):
        broken_otherwise = damage(data, rng)
        if broken_otherwise != data:
            with pytest.raises(Damaged):
                read_archive(broken_otherwise)


def test_symbols_come_out_of_a_stream_as_the_page_says() -> None:
    """Escapes included. Rows of later symbols come from the model, so here the tables are a test's."""
    from tests.s2vc_model.test_entropy import CODER, ROWS, drawn, write

    symbols, rows = drawn(600)
    far = np.array([1000, -1000, 0, 999, -37, 300], np.int32)
    symbols = np.concatenate((symbols, np.tile(far, ROWS)))
    rows = np.concatenate((rows, np.repeat(np.arange(ROWS, dtype=np.int32), len(far))))
    stream = Stream(write((symbols, rows)))
    found = [stream.symbol(CODER.cdf[row], CODER.offset[row]) for row in rows.tolist()]
    assert found == symbols.tolist()
