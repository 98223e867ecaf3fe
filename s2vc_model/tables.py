"""Integer CDF tables: made once when weights are exported, stored with them, only read afterwards.

A table is a row of the cumulative counts rANS works with: 2**16 in total, every symbol at least one, the last symbol
an escape for everything outside the row's range (coded behind it by the entropy coder itself).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2vc_model.errors import WeightsError
from s2vc_model.prior import OCTAVE_ZERO, PER_OCTAVE, SCALES, Prior

PRECISION = 16
"""Bits of a table's total."""
_TOTAL = 1 << PRECISION
_TAIL = 2.0**-12
_MAX_REACH = 255
_MAX_OFFSET = 1 << 12

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class CdfTables:
    """Tables of one frame type: 64 scale rows, then one row per hyper-latent channel.

    Attributes:
        cdf: (64 + Z, W) int32, each row's cumulative counts from 0 to 65536, padded with zeros.
        length: entries used of each row (symbols including the escape, plus one).
        offset: value of each row's first symbol.
    """

    cdf: IntArray
    length: IntArray
    offset: IntArray

    def to_tensors(self) -> dict[str, Tensor]:
        """For the weights file."""
        return {
            "cdf.values": torch.from_numpy(self.cdf.copy()),
            "cdf.length": torch.from_numpy(self.length.copy()),
            "cdf.offset": torch.from_numpy(self.offset.copy()),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], rows: int) -> CdfTables:
        """Read from a weights file and check every row.

        Raises:
            WeightsError: a table is missing, out of range, or not a strictly rising count to 65536.
        """
        try:
            cdf, length, offset = (tensors[f"cdf.{k}"].numpy() for k in ("values", "length", "offset"))
        except KeyError as error:
            raise WeightsError(f"the weights lack the table {error}") from error
        if any(t.dtype.kind != "i" for t in (cdf, length, offset)):
            raise WeightsError("CDF tables are not stored as integers")
        if cdf.ndim != 2 or cdf.shape[0] != rows or length.shape != (rows,) or offset.shape != (rows,):
            raise WeightsError(f"CDF tables of shape {cdf.shape} stored, {rows} rows expected")
        if (np.abs(offset.astype(np.int64)) > _MAX_OFFSET).any():
            raise WeightsError("a CDF table's first symbol is out of range")
        for row, used in zip(cdf, length, strict=True):
            counts = row[:used]
            if used < 3 or used > row.size or counts[0] != 0 or counts[-1] != _TOTAL or (np.diff(counts) < 1).any():
                raise WeightsError("a CDF table is not a strictly rising count from 0 to 65536")
        return cls(cdf.astype(np.int32), length.astype(np.int32), offset.astype(np.int32))


def laplace_counts(mean: float, scale: float) -> tuple[IntArray, int]:
    """Cumulative counts of a rounded Laplace, and the value of the first symbol."""
    reach = int(min(_MAX_REACH, max(1, np.ceil(-scale * np.log(_TAIL) + 0.5))))
    centre = int(np.rint(mean))
    values = np.arange(centre - reach, centre + reach + 1)
    pmf = _laplace_cdf(values + 0.5 - mean, scale) - _laplace_cdf(values - 0.5 - mean, scale)
    pmf = np.append(pmf, max(1.0 - pmf.sum(), 0.0))
    return to_counts(pmf), centre - reach


def _laplace_cdf(x: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    tail = 0.5 * np.exp(-np.abs(x) / scale)
    return np.where(x < 0, tail, 1 - tail)


def to_counts(pmf: npt.NDArray[np.float64]) -> IntArray:
    """Probabilities -> cumulative counts to 65536 with every symbol at least one; rounding falls on the largest."""
    counts = np.maximum(1, np.rint(pmf / pmf.sum() * _TOTAL)).astype(np.int64)
    counts[np.argmax(counts)] -= counts.sum() - _TOTAL
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)


def build_tables(prior: Prior) -> CdfTables:
    """Tables of a trained prior: a Laplace per scale index, and one per hyper-latent channel."""
    rows = [laplace_counts(0.0, 2.0 ** (i / PER_OCTAVE - OCTAVE_ZERO)) for i in range(SCALES)]
    means = prior.z_mean.detach().double().cpu().numpy()
    scales = np.exp(prior.z_log_scale.detach().double().cpu().numpy()) + 0.03
    rows += [laplace_counts(float(m), float(s)) for m, s in zip(means, scales, strict=True)]
    width = max(r.size for r, _ in rows)
    cdf = np.zeros((len(rows), width), np.int32)
    for row, (counts, _) in zip(cdf, rows, strict=True):
        row[: counts.size] = counts
    length = np.array([r.size for r, _ in rows], np.int32)
    return CdfTables(cdf, length, np.array([o for _, o in rows], np.int32))
