"""rANS over integer tables: symbols of one stream in, bytes out, and back.

The coder is CompressAI's: it takes integer CDF tables as they lie in the weights file and codes out-of-range values
behind an escape itself. Constriction's measured faster, but builds its tables from floats; here nothing about a
stored stream may hang on how a float is rounded, and with 3 to 9 % of symbols coded (q 32 to 63 on the demo's clip) it
takes under 1 % of the time of encoding on a CPU.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType

import google_crc32c
import numpy as np
import numpy.typing as npt

from s2vc_model.errors import BitstreamError
from s2vc_model.prior import RESIDUAL_MAX
from s2vc_model.tables import PRECISION, CdfTables

Symbols = npt.NDArray[np.int32]


def _load_ans() -> ModuleType:
    """`compressai.ans` without `compressai`, whose own imports take 150 MB and 2.6 s and are not needed here."""
    name = "compressai.ans"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("compressai")
    places = package.submodule_search_locations if package else None
    spec = importlib.machinery.PathFinder.find_spec(name, places) if places else None
    if spec is None or spec.loader is None:
        raise ImportError("the rANS coder is missing: pip install compressai")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # So that a process which does import all of compressai finds this one instead of a second.
    sys.modules[name] = module
    return module


ans = _load_ans()

_WORD = 4
"""Bytes rANS reads at a time, and the most that one symbol inside its table's range can consume."""
_ESCAPE_BITS = 4
"""Escaped values travel in groups of this many bits, behind at least one group that counts them."""
_ROUNDING = 2.0**-14
"""Bits a symbol may cost less than its table says: the coder's state is an integer of at least 31 bits."""
_AT_ONCE = 1 << 16
"""Symbols read before their cost is held against what there is, so that no claimed picture size costs memory."""
_LONGEST_ESCAPE = 32
"""Bytes of reserve per byte of data: an escape may claim to be this many times longer than its own bits."""
_FEWEST = 4
"""CompressAI's encoder gives itself one word a symbol, and writes past them when there are fewer symbols than this."""


class Coder:
    """The tables of one frame type in the form the rANS coder reads."""

    def __init__(self, tables: CdfTables) -> None:
        self.cdf: list[list[int]] = [
            row[:n].tolist() for row, n in zip(tables.cdf, tables.length.tolist(), strict=True)
        ]
        self.length: list[int] = tables.length.tolist()
        self.offset: list[int] = tables.offset.tolist()
        self._offset, self._escape = tables.offset, tables.length - 2
        used = np.arange(tables.cdf.shape[1] - 1) < tables.length[:, None] - 1
        counts = np.where(used, np.diff(tables.cdf, axis=1), 1)
        self._bits: npt.NDArray[np.float64] = PRECISION - np.log2(counts)

    def cost(self, symbols: npt.NDArray[np.int64], rows: Symbols) -> float:
        """Bits that rANS consumes to read these symbols, at least."""
        place, escape = symbols - self._offset[rows], self._escape[rows]
        escaped = (place < 0) | (place >= escape)
        bits = float(self._bits[rows, np.where(escaped, escape, place)].sum())
        return bits + _ESCAPE_BITS * int(np.count_nonzero(escaped))


class StreamWriter:
    """Collects the symbols of one stream. Each block is coded with its own coder's tables."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Symbols, Symbols, Coder]] = []

    def put(self, symbols: Symbols, rows: Symbols, coder: Coder) -> None:
        """Append symbols, each with the table row that codes it."""
        self._blocks.append((symbols, rows, coder))

    def finish(self) -> bytes:
        """The stream's bytes; empty when nothing was put."""
        count = sum(s.size for s, _, _ in self._blocks)
        if not count:
            return b""
        out = ans.BufferedRansEncoder()
        for symbols, rows, coder in self._blocks:
            out.encode_with_indexes(symbols.tolist(), rows.tolist(), coder.cdf, coder.length, coder.offset)
        if count < _FEWEST:
            spare = _FEWEST - count
            out.encode_with_indexes(
                [coder.offset[0]] * spare, [0] * spare, coder.cdf, coder.length, coder.offset
            )
        data: bytes = out.flush()
        return data


class StreamReader:
    """Reads the symbols of one stream back, block by block.

    The coder does not know where its input ends. So the stream is followed by as many zero bytes as 65536 symbols (and
    overlong escapes) can consume, and after so many the bits that they cost are held against the bits there are.
    """

    def __init__(self, data: bytes) -> None:
        if data and (len(data) % 4 or len(data) < 8):
            raise BitstreamError(f"an rANS stream of {len(data)} bytes is not whole")
        self._empty = not data
        self._left = 8.0 * len(data)
        self._decoder = ans.RansDecoder()
        if data:
            self._decoder.set_stream(data + bytes(_WORD * _AT_ONCE + _LONGEST_ESCAPE * len(data) + 64))

    def take(self, rows: Symbols, coder: Coder) -> Symbols:
        """The next ``rows.size`` symbols.

        Raises:
            BitstreamError: the stream has no symbols, fewer than asked for, or one out of range.
        """
        if rows.size == 0:
            return np.empty(0, np.int32)
        if self._empty:
            raise BitstreamError("symbols are expected of an empty stream")
        parts = [self._take(rows[at : at + _AT_ONCE], coder) for at in range(0, rows.size, _AT_ONCE)]
        return np.concatenate(parts)

    def _take(self, rows: Symbols, coder: Coder) -> Symbols:
        values = self._decoder.decode_stream(rows.tolist(), coder.cdf, coder.length, coder.offset)
        symbols = np.asarray(values, np.int64)
        self._left += rows.size * _ROUNDING - coder.cost(symbols, rows)
        if self._left < 0:
            raise BitstreamError(
                "more symbols were read than the stream can hold: it is damaged or cut short"
            )
        if (np.abs(symbols) > RESIDUAL_MAX).any():
            raise BitstreamError("a decoded symbol is out of range: the stream is damaged")
        return symbols.astype(np.int32)


class Checksum:
    """Rolling CRC-32C of a GOP's scale, where its pictures were enlarged, and its frame digests."""

    def __init__(self, scale: int) -> None:
        self.value = google_crc32c.value(bytes([scale])) if scale else 0

    def add(self, digest: int) -> None:
        """Fold one frame's 32-bit digest in, little-endian."""
        self.value = google_crc32c.extend(self.value, digest.to_bytes(4, "little"))

    @property
    def low_byte(self) -> int:
        """The byte stored per frame."""
        return self.value & 0xFF
