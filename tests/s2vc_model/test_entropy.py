"""rANS streams: exact round trips with escapes, and damage that ends in an error and never in a crash."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_model.entropy import Checksum, Coder, StreamReader, StreamWriter, Symbols
from s2vc_model.errors import BitstreamError
from s2vc_model.prior import RESIDUAL_MAX, SCALES, SKIP_BELOW
from s2vc_model.tables import build_tables
from tests.s2vc_model.networks import TINY, tiny_network

ROWS = SCALES + TINY.hyper
CODER = Coder(build_tables(tiny_network().intra_prior))


def write(*blocks: tuple[Symbols, Symbols]) -> bytes:
    writer = StreamWriter()
    for symbols, rows in blocks:
        writer.put(symbols, rows, CODER)
    return writer.finish()


def drawn(count: int, seed: int = 0) -> tuple[Symbols, Symbols]:
    """Symbols of random rows, spread as their rows expect."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(SKIP_BELOW, SCALES, count).astype(np.int32)
    symbols = (
        np.rint(rng.laplace(0, 2.0 ** (rows / 6 - 4.5))).clip(-RESIDUAL_MAX, RESIDUAL_MAX).astype(np.int32)
    )
    return symbols, rows


@given(st.lists(st.tuples(st.integers(-RESIDUAL_MAX, RESIDUAL_MAX), st.integers(0, ROWS - 1)), max_size=200))
def test_any_symbol_in_any_row_round_trips(pairs: list[tuple[int, int]]) -> None:
    symbols, rows = (np.array(v, np.int32) for v in (zip(*pairs) if pairs else ((), ())))
    reader = StreamReader(write((symbols, rows)))
    assert np.array_equal(reader.take(rows, CODER), symbols)


def test_escapes_reach_the_largest_residual_in_every_row() -> None:
    ends = np.array([RESIDUAL_MAX, -RESIDUAL_MAX, 0, RESIDUAL_MAX - 1], np.int32)
    symbols, rows = np.tile(ends, ROWS), np.repeat(np.arange(ROWS, dtype=np.int32), ends.size)
    reader = StreamReader(write((symbols, rows)))
    assert np.array_equal(reader.take(rows, CODER), symbols)


def test_blocks_of_several_coders_come_back_in_order() -> None:
    other = Coder(build_tables(tiny_network(seed=7).inter_prior))
    blocks = [
        (drawn(n, n), coder) for n, coder in ((40, CODER), (0, other), (1, other), (300, CODER), (17, other))
    ]
    writer = StreamWriter()
    for (symbols, rows), coder in blocks:
        writer.put(symbols, rows, coder)
    reader = StreamReader(writer.finish())
    for (symbols, rows), coder in blocks:
        assert np.array_equal(reader.take(rows, coder), symbols)


def test_streams_of_very_few_costly_symbols_round_trip() -> None:
    """CompressAI's encoder alone corrupts memory here."""
    rarest = np.argmin(np.where(CODER._bits > 0, -CODER._bits, 0), axis=1).astype(np.int32)
    for count in range(1, 6):
        rows = np.arange(SCALES, dtype=np.int32)[-count:]
        symbols = rarest[rows] + np.array(CODER.offset, np.int32)[rows]
        reader = StreamReader(write((symbols, rows)))
        assert np.array_equal(reader.take(rows, CODER), symbols)


def test_large_stream_costs_what_its_tables_say() -> None:
    symbols, rows = drawn(200_000)
    reach = -np.array(CODER.offset, np.int32)[rows]
    symbols = symbols.clip(-reach, reach)
    data = write((symbols, rows))
    cost = CODER.cost(symbols.astype(np.int64), rows)
    assert 0 < 8 * len(data) - cost < 64 + 200_000 * 2**-14
    reader = StreamReader(data)
    for at in range(0, rows.size, 1000):
        assert np.array_equal(reader.take(rows[at : at + 1000], CODER), symbols[at : at + 1000])


def test_certain_symbols_by_the_million_are_not_taken_for_damage() -> None:
    rows = np.zeros(1_000_000, np.int32)
    reader = StreamReader(write((np.zeros_like(rows), rows)))
    assert not reader.take(rows, CODER).any()


def test_empty_streams() -> None:
    nothing = np.empty(0, np.int32)
    assert write() == b""
    assert write((nothing, nothing), (nothing, nothing)) == b""
    reader = StreamReader(b"")
    assert reader.take(nothing, CODER).size == 0
    with pytest.raises(BitstreamError, match="empty stream"):
        reader.take(np.full(1, 20, np.int32), CODER)


@pytest.mark.parametrize("size", [1, 4, 7, 9, 10, 11])
def test_streams_that_are_not_whole_words_are_refused(size: int) -> None:
    with pytest.raises(BitstreamError, match="not whole"):
        StreamReader(bytes(size))


def test_reading_on_past_the_end_is_an_error() -> None:
    """The rANS coder itself would read whatever memory follows."""
    symbols, rows = drawn(500)
    data = write((symbols, rows))
    reader = StreamReader(data)
    for _ in range(10):
        reader.take(rows[:50], CODER)
    narrow = np.full(50, 25, np.int32)
    taken = 0
    with pytest.raises(BitstreamError):  # noqa: PT012
        while taken < 8 * len(data):
            taken += reader.take(narrow, CODER).size


def test_truncated_streams_end_in_an_error_or_in_other_symbols() -> None:
    symbols, rows = drawn(400)
    data = write((symbols, rows))
    for size in range(8, len(data), 4):
        reader = StreamReader(data[:size])
        try:
            read = reader.take(rows, CODER)
        except BitstreamError:
            continue
        assert not np.array_equal(read, symbols)


def test_a_claimed_picture_size_costs_no_memory() -> None:
    """Rows that no stream of 400 bytes can fill: an error after what it can, not a reserve for all of them."""
    data = write(drawn(500))
    rows = np.full(20_000_000, 25, np.int32)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            StreamReader(data).take(rows, CODER)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


GARBAGE = """
import random
import numpy as np
from s2vc_model.errors import BitstreamError
from s2vc_model.entropy import StreamReader
from tests.s2vc_model.test_entropy import CODER, ROWS, drawn, write

rng = random.Random(5)
valid = write(drawn(300))
errors = 0
for n in range(600):
    size = 4 * rng.randrange(2, 40)
    begun = valid[: len(valid) // 8 * 4] + rng.randbytes(size)
    data = (rng.randbytes(size), b"\\xff" * size, bytes(size), begun)[n % 4]
    most = rng.choice((1, 30, 500))
    reader = StreamReader(data)
    row = rng.choice((None, 5, 25, 40, 63, 64))
    try:
        for _ in range(40):
            rows = np.full(most, row or 0, np.int32) if row else np.arange(most, dtype=np.int32) % ROWS
            reader.take(rows, CODER)
    except BitstreamError:
        errors += 1
print("errors", errors)
"""


def test_garbage_never_crashes_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GARBAGE], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 300


def test_checksum_rolls_over_little_endian_digests() -> None:
    total = Checksum(0)
    total.add(0x01020304)
    total.add(0xFFFFFFFF)
    assert total.value == google_crc32c.value(b"\x04\x03\x02\x01\xff\xff\xff\xff")
    assert total.low_byte == total.value & 0xFF
