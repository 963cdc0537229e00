"""Numbers and precomputed vectors -> plain numbers; a missing one is its own value, told by a flag beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.config import FeatureSettings
from shortlist.errors import DataError
from shortlist.features.arrays import Dense, Ids


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
        """(n, 2) standardised value (0 where missing), missing flag."""
        numbers = _floats(values)
        missing = np.isnan(numbers)
        standard = np.where(missing, 0.0, (numbers - self.mean) / self.deviation)
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
    return NumberEncoder(float(numbers.mean()), float(numbers.std()) or 1.0, edges)


@dataclass(frozen=True)
class VectorEncoder:
    """`vector`: the numbers as they are, and a missing flag."""

    width: int

    def encode(self, values: pl.Series) -> Dense:
        """(n, width + 1). Raises DataError where a vector has another width than in training."""
        numbers = np.zeros((len(values), self.width + 1), np.float32)
        for row, value in enumerate(values):
            if value is None:
                numbers[row, -1] = 1
                continue
            if len(value) != self.width:
                raise DataError(
                    f"column {values.name!r} row {row + 1}: a vector must have {self.width} numbers, as in training: got {len(value)}"
                )
            numbers[row, :-1] = value
        return Dense(numbers)


def fit_vector(values: pl.Series) -> VectorEncoder:
    """The encoder for vectors as wide as the first one that is there."""
    present = values.drop_nulls()
    return VectorEncoder(len(present[0]) if len(present) else 0)


def _floats(values: pl.Series) -> NDArray[np.float64]:
    """(n,) float64 with NaN for missing; real NaN were refused when the table was read."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
