"""Numbers and precomputed vectors -> plain numbers; a missing one is its own value, told by a flag beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import DataError
from shortlist.features.arrays import Dense, Ids
from shortlist.sections import FeatureSettings


@dataclass(frozen=True)
class NumberEncoder:
    """`number`: (value - mean) / deviation and a missing flag; with buckets, a table row by quantile as well."""

    mean: float
    deviation: float
    edges: NDArray[np.float64]  # (buckets - 1,) rising; empty = no buckets

    @property
    def table_rows(self) -> int:
        """Rows of the bucket table: missing, then the buckets."""
        return len(self.edges) + 2

    def encode(self, values: pl.Series) -> Dense:
        """(n, 2) standardised value (0 where missing), missing flag. Raises DataError for what is no number, or too large for one."""
        numbers = _floats(values)
        missing = np.isnan(numbers)
        standard = np.where(missing, 0.0, (numbers - self.mean) / self.deviation)
        too_large = np.flatnonzero(~(np.abs(standard) <= np.finfo(np.float32).max))
        if len(too_large):
            row = int(too_large[0])
            raise DataError(f"column {values.name!r} row {row + 1} must be a finite number: got {values[row]}; correct it")
        return Dense(np.stack([standard, missing], axis=1).astype(np.float32))

    def encode_buckets(self, values: pl.Series) -> Ids:
        """(n,) 0 where missing, else 1 + the number of edges at or below the value."""
        numbers = _floats(values)
        rows = 1 + np.searchsorted(self.edges, numbers, side="right")
        return Ids(np.where(np.isnan(numbers), 0, rows).astype(np.int32))


def fit_number(values: pl.Series, settings: FeatureSettings) -> NumberEncoder:
    """Mean, deviation and quantile edges of the values that are there; a constant column has deviation 1."""
    numbers = _floats(values)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return NumberEncoder(0.0, 1.0, np.zeros(0))
    edges = np.zeros(0)
    if settings.buckets:
        edges = np.unique(np.quantile(numbers, np.arange(1, settings.buckets) / settings.buckets))
    deviation = float(numbers.std()) if numbers.min() < numbers.max() else 1.0  # the std of equal numbers need not round to 0
    return NumberEncoder(float(numbers.mean()), deviation, edges)


@dataclass(frozen=True)
class VectorEncoder:
    """`vector`: the numbers as they are, and a missing flag."""

    width: int

    def encode(self, values: pl.Series) -> Dense:
        """(n, width + 1). Raises DataError for another width than in training, and for a vector with a hole or an infinity."""
        lists = _vectors(values)
        missing = lists.is_null().to_numpy()
        wrong = np.flatnonzero((lists.list.len() != self.width).fill_null(False).to_numpy())
        if len(wrong):
            row = int(wrong[0])
            rule = f"column {values.name!r} row {row + 1}: a vector must have {self.width} numbers, as in training"
            raise DataError(f"{rule}: got {len(lists[row])}; make it with the same model")
        numbers = np.zeros((len(values), self.width + 1), np.float32)
        present = lists.drop_nulls().explode(empty_as_null=False, keep_nulls=False).cast(pl.Float32).fill_null(float("nan"))
        numbers[~missing, :-1] = present.to_numpy().reshape(-1, self.width)
        holes = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(holes):
            raise DataError(
                f"column {values.name!r} row {int(holes[0]) + 1}: a vector must have finite numbers; write null for none at all"
            )
        numbers[missing, -1] = 1
        return Dense(numbers)


def fit_vector(values: pl.Series) -> VectorEncoder:
    """The encoder for vectors as wide as the first one that is there. Raises DataError where none is."""
    present = _vectors(values).drop_nulls()
    if not len(present):
        raise DataError(f"column {values.name!r} must hold a vector in the training window: got none; take the feature out")
    return VectorEncoder(len(present[0]))


def _vectors(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list()
    if values.dtype == pl.Null:
        return values.cast(pl.List(pl.Float32))
    if not isinstance(values.dtype, pl.List):
        raise DataError(f"column {values.name!r} must hold lists of numbers, as in training: got {values.dtype}; write one list a row")
    return values


def _floats(values: pl.Series) -> NDArray[np.float64]:
    """(n,) float64 with NaN for missing. Raises DataError for text and the like: "7" may be a code, not a quantity."""
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"column {values.name!r} must hold numbers: got {values.dtype}; convert it")
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
