"""CDF tables: valid counts for every scale, near the distribution they stand for, refused when damaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from s2vc_model.errors import WeightsError
from s2vc_model.prior import OCTAVE_ZERO, PER_OCTAVE, SCALES, SKIP_BELOW
from s2vc_model.tables import PRECISION, CdfTables, build_tables, laplace_counts, to_counts
from s2vc_model.weight_files import load_weights
from tests.s2vc_model.networks import TINY, tiny_network

TOTAL = 1 << PRECISION
ROWS = SCALES + TINY.hyper


@pytest.fixture(scope="module")
def tables() -> CdfTables:
    return build_tables(tiny_network().intra_prior)


def assert_valid(tables: CdfTables) -> None:
    for row, used in zip(tables.cdf, tables.length, strict=True):
        counts = row[:used]
        assert counts[0] == 0
        assert counts[-1] == TOTAL
        assert (np.diff(counts) >= 1).all()
        assert used >= 3, "no room for a value and the escape"
        assert not row[used:].any()


def test_rows_rise_strictly_to_the_total(tables: CdfTables) -> None:
    assert tables.cdf.shape[0] == ROWS
    assert_valid(tables)
    for packaged in load_weights("small").tables.values():
        assert_valid(packaged)


def test_scale_rows_are_centred_and_end_in_an_escape(tables: CdfTables) -> None:
    reach = -tables.offset[:SCALES]
    assert (tables.length[:SCALES] == 2 * reach + 3).all()
    escape = np.array([row[n - 1] - row[n - 2] for row, n in zip(tables.cdf, tables.length, strict=True)])
    assert (escape >= 1).all()


def test_rows_match_the_laplace_of_their_scale() -> None:
    rng = np.random.default_rng(0)
    for index in range(SKIP_BELOW, SCALES - 6, 9):
        scale = 2.0 ** (index / PER_OCTAVE - OCTAVE_ZERO)
        counts, first = laplace_counts(0.0, scale)
        drawn = np.rint(rng.laplace(0, scale, 200_000)).astype(int)
        width = counts.size - 2
        inside = (drawn >= first) & (drawn < first + width)
        seen = np.bincount(drawn[inside] - first, minlength=width) / drawn.size
        assert np.abs(seen - np.diff(counts)[:-1] / TOTAL).max() < 0.006


@pytest.mark.parametrize("mean", [-3.7, 0.0, 0.5, 11.2])
def test_mean_shifts_the_row(mean: float) -> None:
    counts, first = laplace_counts(mean, 0.6)
    assert first + int(np.argmax(np.diff(counts))) in (np.floor(mean), np.ceil(mean))


def test_counts_of_lopsided_probabilities_still_add_up() -> None:
    counts = to_counts(np.array([1.0] + [1e-12] * 500))
    assert counts[-1] == TOTAL
    assert (np.diff(counts) >= 1).all()


def test_round_trip(tables: CdfTables) -> None:
    back = CdfTables.from_tensors(tables.to_tensors(), ROWS)
    assert np.array_equal(back.cdf, tables.cdf)
    assert np.array_equal(back.length, tables.length)
    assert np.array_equal(back.offset, tables.offset)


def poke(at: tuple[int, ...], value: int) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        out = tensor.clone()
        out[at] = value
        return out

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("values", poke((10, 0), 1)),
        ("values", poke((10, 1), 0)),
        ("values", poke((10, 1), -5)),
        ("values", poke((10, 1), TOTAL)),
        ("values", lambda v: v + 1),
        ("values", lambda v: v[:-1]),
        ("values", lambda v: v[:, 0]),
        ("values", lambda v: v.double() + 0.25),
        ("values", lambda v: torch.full_like(v.double(), float("nan"))),
        ("length", poke((10,), 2)),
        ("length", poke((10,), -1)),
        ("length", poke((10,), 100_000)),
        ("length", lambda n: n - 1),
        ("length", lambda n: n + 1),
        ("length", lambda n: n[:-1]),
        ("length", lambda n: n.double()),
        ("offset", lambda n: n[:-1]),
        ("offset", poke((10,), 100_000)),
        ("offset", lambda n: n.double() + 0.5),
    ],
)
def test_damaged_tables_are_refused(tables: CdfTables, name: str, change: Callable[[Tensor], Tensor]) -> None:
    tensors = tables.to_tensors()
    tensors[f"cdf.{name}"] = change(tensors[f"cdf.{name}"])
    with pytest.raises(WeightsError):
        CdfTables.from_tensors(tensors, ROWS)


@pytest.mark.parametrize("name", ["values", "length", "offset"])
def test_missing_tables_are_refused(tables: CdfTables, name: str) -> None:
    tensors = tables.to_tensors()
    del tensors[f"cdf.{name}"]
    with pytest.raises(WeightsError, match=name):
        CdfTables.from_tensors(tensors, ROWS)
