"""Random damage ends in an ArchiveError or in equal content: nothing else, quickly, in little memory."""

from __future__ import annotations

import dataclasses
import random
import struct
import time
import tracemalloc
from typing import Any

import pytest

from s2vc_ray.archive import ArchiveIndex, ArchiveReader, GopRecord, IndexEntry
from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.fields import put_varint
from s2vc_ray.errors import ArchiveError, CorruptArchive
from s2vc_ray.fixity import crc32c
from tests.archives import GOPS, PASSTHROUGH, archive_bytes, header
from tests.fuzz.damage import damage

ROUNDS = 4000
# Opening an intact archive of this size peaks at about a tenth of it.
MEMORY_LIMIT = 1 << 20


def read_all(data: bytes) -> None:
    """Whatever can be read must be equal to what was written."""
    reader = ArchiveReader(data)
    assert reader.header == header()
    assert tuple(reader.gops()) == GOPS
    assert b"".join(reader.passthrough()) == PASSTHROUGH
    reader.verify()


def salvage_all(data: bytes) -> None:
    """Salvage only ever yields GOPs that were written, in order, and a leading part of the passthrough."""
    reader = ArchiveReader(data, salvage=True)
    found = list(reader.gops())
    assert found == [gop for gop in GOPS if gop in found]
    assert PASSTHROUGH.startswith(b"".join(reader.passthrough()))
    if not reader.damage:
        assert tuple(found) == GOPS


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_an_archive_error_or_harmless(seed: int) -> None:
    rng = random.Random(seed)
    data = archive_bytes()
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(ROUNDS // 4):
            broken = damage(data, rng)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            for attempt in (read_all, salvage_all):
                try:
                    attempt(broken)
                except ArchiveError:
                    refused += attempt is read_all
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_LIMIT
    finally:
        tracemalloc.stop()
    assert refused > ROUNDS // 4 * 0.9, "the damage was not damage"


def test_every_single_flipped_bit_is_noticed() -> None:
    data = archive_bytes()
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1 << (at % 8)
        with pytest.raises(ArchiveError):
            read_all(bytes(broken))


def _forged(blocks: list[tuple[bytes, bytes]]) -> tuple[bytes, int]:
    """An archive whose checksums are all right and whose content is not."""
    out, seed = fmt.pack_prologue(header())
    for tag, body in blocks:
        out += fmt.pack_block(tag, body, seed)
    return out, seed


def _varints(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        put_varint(out, value)
    return bytes(out)


@pytest.mark.parametrize(
    "body",
    [
        _varints(1 << 60),
        _varints(1, 1 << 40, 0, 0, 0, 1, 0, 0, 0),
        _varints(1, 16, 1, 0, 0, 1, 0, 0, 0),
        _varints(0, 1 << 30, 1 << 50),
        _varints(0, 0, 5),
        _varints(0, 0, 0) + b"x",
        b"",
    ],
)
def test_a_forged_index_allocates_nothing(body: bytes) -> None:
    data, seed = _forged([])
    footer = fmt.pack_block(fmt.TAG_INDEX, body, seed)
    data += footer + fmt.TRAILER.pack(len(data), len(footer), crc32c(footer), fmt.END_MAGIC)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="index at byte"):
            ArchiveReader(data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        _varints(0, 0) + b"\x40\x04s2vc" + _varints(1, 0),
        _varints(0, 0) + b"\x01\xffs2vc" + _varints(1, 0),
        _varints(0, 0) + b"\x01\x04s2\xffc" + _varints(1, 0),
        _varints(0, 0) + b"\x01\x04s2vc" + _varints(0, 0),
        _varints(0, 0) + b"\x01\x04s2vc" + _varints(1 << 40, 0, 1 << 40, 1),
        _varints(0, 0) + b"\x01\x04s2vc" + _varints(60_000, 0, 60_000, 1),
        _varints(0, 0) + b"\x01\x04s2vc" + _varints(3, 0, 2, 1 << 63),
        _varints(0, 0) + b"\x01\x04s2vc" + _varints(3, 0, 0, 1),
    ],
)
def test_a_forged_gop_is_corrupt(body: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"^here"):
        fmt.unpack_gop(body, "here")
    data, _ = _forged([(fmt.TAG_GOP, body)])
    assert list(ArchiveReader(data, salvage=True).gops()) == []


def test_a_header_longer_than_the_file_is_not_believed() -> None:
    data = fmt.PROLOGUE.pack(fmt.MAGIC, 1, 0, 65536, 0)
    with pytest.raises(ArchiveError, match=r"needs bytes 20\.\.65556 of an archive of 20 bytes"):
        ArchiveReader(data)
    with pytest.raises(ArchiveError, match="long"):
        ArchiveReader(fmt.PROLOGUE.pack(fmt.MAGIC, 1, 0, 0xFFFFFFFF, 0) + bytes(100))


def _reindexed(blocks: list[tuple[bytes, bytes]], gops: list[GopRecord], chunk_bytes: int = 0) -> bytes:
    """Blocks behind a right header, and an index that calls the first of them ``gops``."""
    prologue, seed = fmt.pack_prologue(header())
    packed = [fmt.pack_block(tag, body, seed) for tag, body in blocks]
    at = len(prologue)
    entries = []
    for gop, block in zip(gops, packed):
        entries.append(IndexEntry.of(gop, at, len(block)))
        at += len(block)
    index = ArchiveIndex(tuple(entries), at, len(blocks) - len(gops), chunk_bytes)
    footer = fmt.pack_block(fmt.TAG_INDEX, fmt.pack_index(index), seed)
    trailer = fmt.TRAILER.pack(index.end, len(footer), crc32c(footer), fmt.END_MAGIC)
    return prologue + b"".join(packed) + footer + trailer


@pytest.mark.parametrize(
    "changes",
    [{"index": 1}, {"first_frame": 1}, {"pts": (5, 6)}, {"pts": (7,)}, {"codec": "s2", "payload": b"abcde"}],
)
def test_a_record_that_contradicts_its_index_entry_is_corrupt(changes: dict[str, Any]) -> None:
    told = GopRecord(0, 0, 1, (5,), b"abc")
    held = fmt.pack_gop(dataclasses.replace(told, **changes))
    reader = ArchiveReader(_reindexed([(fmt.TAG_GOP, held)], [told]))
    with pytest.raises(CorruptArchive, match=r"GOP 0 at byte .*: differs from its index entry"):
        reader.gop(0)


def test_an_index_past_the_declared_frames_is_corrupt() -> None:
    gop = GopRecord(0, 100, 1, (5,), b"abc")
    with pytest.raises(CorruptArchive, match="GOP 0 reaches past the 100 frames"):
        ArchiveReader(_reindexed([(fmt.TAG_GOP, fmt.pack_gop(gop))], [gop]))


def test_overlapping_time_stamps_fail_verification() -> None:
    gops = [GopRecord(0, 0, 1, (5, 9), b""), GopRecord(1, 2, 1, (8,), b"")]
    reader = ArchiveReader(_reindexed([(fmt.TAG_GOP, fmt.pack_gop(gop)) for gop in gops], gops))
    assert list(reader.gops()) == gops
    with pytest.raises(CorruptArchive, match="GOP 1: its time stamps overlap"):
        reader.verify()


def test_passthrough_chunks_out_of_turn_are_corrupt() -> None:
    chunks = [fmt.CHUNK_HEAD.pack(1) + bytes(fmt.CHUNK_BYTES), fmt.CHUNK_HEAD.pack(0) + b"end"]
    data = _reindexed([(fmt.TAG_CHUNK, body) for body in chunks], [], fmt.CHUNK_BYTES + 3)
    with pytest.raises(CorruptArchive, match=r"passthrough chunk 0 at byte .*: says that it is chunk 1"):
        list(ArchiveReader(data).passthrough())


def test_nested_forged_blocks_do_not_take_quadratic_time() -> None:
    data, seed = _forged([])
    count = 30_000
    for left in range(count, 0, -1):
        start = struct.pack("<4sII", fmt.TAG_GOP, (left - 1) * fmt.BLOCK_HEAD.size, 0)
        data += start + struct.pack("<I", crc32c(start, seed))
    begin = time.monotonic()
    with pytest.raises(ArchiveError, match="too damaged"):
        ArchiveReader(data, salvage=True)
    assert time.monotonic() - begin < 5
