"""Numbers and precomputed vectors: standardised, bucketed, missing told apart, never NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from shortlist.errors import DataError
from shortlist.features.number import NumberEncoder, VectorEncoder, fit_number, fit_vector
from shortlist.sections import FeatureSettings


def fitted(values: Sequence[float | None], buckets: int | None = None) -> NumberEncoder:
    return fit_number(pl.Series("n", values, dtype=pl.Float64), FeatureSettings(kind="number", buckets=buckets))


def test_standardised_value_and_missing_flag_by_hand() -> None:
    encoder = fitted([2.0, None, 4.0, 9.0])
    # mean 5; squares 9 + 1 + 16 = 26; deviation sqrt(26 / 3) = 2.94392
    assert (encoder.mean, encoder.deviation) == pytest.approx((5.0, 2.94392), abs=1e-5)
    found = encoder.encode(pl.Series("n", [8.0, None, 5.0])).values
    assert found.dtype == np.float32
    assert found.tolist() == [[pytest.approx(3 / 2.94392, abs=1e-5), 0], [0, 1], [0, 0]]


def test_integers_and_booleans_are_numbers_and_nan_is_missing() -> None:
    encoder = fitted([0.0, 1.0])  # mean 1/2, deviation 1/2
    assert encoder.encode(pl.Series("n", [0, 1, None, 3])).values.tolist() == [[-1, 0], [1, 0], [0, 1], [5, 0]]
    assert encoder.encode(pl.Series("n", [True, None, False])).values.tolist() == [[1, 0], [0, 1], [-1, 0]]
    assert encoder.encode(pl.Series("n", [math.nan, None])).values.tolist() == [[0, 1], [0, 1]]
    assert encoder.encode(pl.Series("n", [None, None])).values.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1, 1e-30, -7e15])
def test_a_constant_column_has_deviation_1(constant: float) -> None:
    encoder = fitted([constant] * 7)  # the mean of seven 0.1 is not 0.1, and their deviation not 0
    assert encoder.deviation == 1.0
    assert encoder.encode(pl.Series("n", [constant])).values[0, 0] == pytest.approx(0, abs=1e-6)


def test_a_column_without_a_number_has_harmless_statistics() -> None:
    encoder = fitted([None, None], buckets=4)
    assert (encoder.mean, encoder.deviation, len(encoder.edges)) == (0.0, 1.0, 0)
    assert encoder.encode(pl.Series("n", [2.0, None])).values.tolist() == [[2, 0], [0, 1]]


def test_quantile_buckets_by_hand() -> None:
    encoder = fitted([5.0, 1.0, 3.0, 2.0, 4.0, None], buckets=4)
    assert encoder.edges.tolist() == [2.0, 3.0, 4.0]  # the quartiles of 1..5
    assert encoder.table_rows == 5  # missing, and four buckets
    asked = pl.Series("n", [-9.0, 1.9, 2.0, 2.5, 3.0, 4.0, 99.0, None])
    assert encoder.encode_buckets(asked).values.tolist() == [1, 1, 2, 2, 3, 4, 4, 0]


def test_equal_edges_are_one_edge() -> None:
    encoder = fitted([0.0] * 9 + [1.0], buckets=5)
    assert encoder.edges.tolist() == [0.0]  # quantiles .2, .4, .6 and .8 are all 0
    assert encoder.encode_buckets(pl.Series("n", [-1.0, 0.0, 1.0, None])).values.tolist() == [1, 2, 2, 0]
    assert encoder.table_rows == 3


def test_buckets_hold_equal_shares_of_distinct_values() -> None:
    values = np.random.default_rng(5).permutation(13 * 17).astype(float)
    rows = fitted(values.tolist(), buckets=13).encode_buckets(pl.Series("n", values)).values
    assert np.bincount(rows).tolist() == [0] + [17] * 13


def test_alone_and_in_bulk_a_number_has_the_same_bits() -> None:
    values = pl.Series("n", np.random.default_rng(2).normal(size=101) * 1e9)
    encoder = fit_number(values, FeatureSettings(kind="number", buckets=7))
    alone = [encoder.encode(values[row : row + 1]).values for row in range(101)]
    assert np.concatenate(alone).tobytes() == encoder.encode(values).values.tobytes()


@pytest.mark.parametrize("wild", [math.inf, -math.inf, 1e300])
def test_what_float32_cannot_hold_is_refused_by_row(wild: float) -> None:
    with pytest.raises(DataError, match=r"column 'n' row 2 must be a finite number: got"):
        fitted([1.0, 2.0]).encode(pl.Series("n", [1.0, wild]))


def test_text_is_no_number_even_where_it_looks_like_one() -> None:
    with pytest.raises(DataError, match="column 'n' must hold numbers: got String; convert it"):
        fitted([1.0]).encode(pl.Series("n", ["7"]))


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.List(pl.Float32), pl.Array(pl.Float32, 3)])
def test_vectors_come_as_they_are_with_a_missing_flag(dtype: pl.DataType) -> None:
    values = pl.Series("v", [None, [1.0, 2.5, -3.0], [0.0, 0.0, 0.0]], dtype=dtype)
    encoder = fit_vector(values)
    assert encoder == VectorEncoder(3)
    assert encoder.encode(values).values.tolist() == [[0, 0, 0, 1], [1, 2.5, -3, 0], [0, 0, 0, 0]]


def test_columns_without_a_vector_are_missing_in_every_row() -> None:
    for nothing in (pl.Series("v", [None, None]), pl.Series("v", [None, None], dtype=pl.List(pl.Float64))):
        assert VectorEncoder(2).encode(nothing).values.tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("wrong", [[1.0], [1.0, 2.0, 3.0], []])
def test_a_vector_of_another_width_is_refused_by_row(wrong: list[float]) -> None:
    values = pl.Series("v", [[1.0, 2.0], None, wrong], dtype=pl.List(pl.Float64))
    with pytest.raises(DataError, match=rf"column 'v' row 3: a vector must have 2 numbers, as in training: got {len(wrong)}"):
        VectorEncoder(2).encode(values)


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_a_vector_with_a_hole_is_refused_by_row(hole: float | None) -> None:
    with pytest.raises(DataError, match="column 'v' row 2: a vector must have finite numbers; write null for none"):
        VectorEncoder(2).encode(pl.Series("v", [[1.0, 2.0], [hole, 1.0]], dtype=pl.List(pl.Float64)))


def test_a_window_without_a_vector_cannot_be_fitted_and_other_columns_are_refused() -> None:
    with pytest.raises(DataError, match="column 'v' must hold a vector in the training window: got none; take the feature out"):
        fit_vector(pl.Series("v", [None], dtype=pl.List(pl.Float64)))
    with pytest.raises(DataError, match="column 'v' must hold lists of numbers, as in training: got Float64"):
        VectorEncoder(2).encode(pl.Series("v", [1.0]))
