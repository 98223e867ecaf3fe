"""rANS over integer tables: symbols of one stream in, bytes out, and back.

The coder is CompressAI's: it takes integer CDF tables as they lie in the weights file and codes out-of-range values
behind an escape itself. Constriction's measured faster, but builds its tables from floats; here nothing about a
stored stream may hang on how a float is rounded, and at 1 to 5 % of symbols coded the coder is not the bottleneck.
"""

from __future__ import annotations

import google_crc32c
import numpy as np
import numpy.typing as npt
from compressai import ans

from s2vc_model.errors import BitstreamError
from s2vc_model.prior import RESIDUAL_MAX
from s2vc_model.tables import CdfTables

Symbols = npt.NDArray[np.int32]


class Coder:
    """The tables of one frame type in the form the rANS coder reads."""

    def __init__(self, tables: CdfTables) -> None:
        self.cdf: list[list[int]] = [
            row[:n].tolist() for row, n in zip(tables.cdf, tables.length.tolist(), strict=True)
        ]
        self.length: list[int] = tables.length.tolist()
        self.offset: list[int] = tables.offset.tolist()


class StreamWriter:
    """Collects the symbols of one stream. Each block is coded with its own coder's tables."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Symbols, Symbols, Coder]] = []

    def put(self, symbols: Symbols, rows: Symbols, coder: Coder) -> None:
        """Append symbols, each with the table row that codes it."""
        self._blocks.append((symbols, rows, coder))

    def finish(self) -> bytes:
        """The stream's bytes; empty when nothing was put."""
        if not any(s.size for s, _, _ in self._blocks):
            return b""
        out = ans.BufferedRansEncoder()
        for symbols, rows, coder in self._blocks:
            out.encode_with_indexes(symbols.tolist(), rows.tolist(), coder.cdf, coder.length, coder.offset)
        data: bytes = out.flush()
        return data


class StreamReader:
    """Reads the symbols of one stream back, block by block.

    The coder does not know where its input ends, so the stream is followed by as many zero bytes as the symbols of
    one frame (and one overlong escape) can consume. The caller checks each frame's checksum before reading the next.

    Args:
        data: the stream.
        frame_symbols: most symbols one frame can have.
    """

    def __init__(self, data: bytes, frame_symbols: int) -> None:
        if data and (len(data) % 4 or len(data) < 8):
            raise BitstreamError(f"an rANS stream of {len(data)} bytes is not whole")
        self._empty = not data
        self._decoder = ans.RansDecoder()
        if data:
            self._decoder.set_stream(data + bytes(4 * frame_symbols + 16 * len(data) + 64))

    def take(self, rows: Symbols, coder: Coder) -> Symbols:
        """The next ``rows.size`` symbols.

        Raises:
            BitstreamError: the stream has no symbols, or one out of range.
        """
        if rows.size == 0:
            return np.empty(0, np.int32)
        if self._empty:
            raise BitstreamError("symbols are expected of an empty stream")
        values = self._decoder.decode_stream(rows.tolist(), coder.cdf, coder.length, coder.offset)
        symbols = np.asarray(values, np.int64)
        if (np.abs(symbols) > RESIDUAL_MAX).any():
            raise BitstreamError("a decoded symbol is out of range: the stream is damaged")
        return symbols.astype(np.int32)


class Checksum:
    """Rolling CRC-32C of a GOP's symbols."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, symbols: Symbols) -> None:
        """Fold symbols in, as little-endian int16."""
        self.value = google_crc32c.extend(self.value, symbols.astype("<i2").tobytes())

    @property
    def low_byte(self) -> int:
        """The byte stored per frame."""
        return self.value & 0xFF
