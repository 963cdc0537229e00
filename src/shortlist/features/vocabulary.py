"""Ids and categories -> rows of an embedding table, one at a time or in bags.

Row 0 means "missing", rows 1..H are shared by the values that training did not see (chosen by a seeded hash), known
values follow. So an unknown value has a vector that was learned, and a missing one has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from shortlist.errors import DataError
from shortlist.features.arrays import Bag, Ids
from shortlist.id_places import places_among
from shortlist.sections import FeatureSettings

MISSING_ROW = 0
FIRST_UNKNOWN_ROW = 1
_HASH_SEED = 17


@dataclass(frozen=True)
class Vocabulary:
    """Known values, in order; value v has row 1 + H + its place in that order."""

    values: pl.Series  # distinct, sorted, strings or integers
    unknown_buckets: int  # H

    @property
    def table_rows(self) -> int:
        """Rows of the embedding table: missing, unknown buckets, known values."""
        return FIRST_UNKNOWN_ROW + self.unknown_buckets + len(self.values)

    @property
    def unknown(self) -> range:
        """The table rows of the unknown buckets."""
        return range(FIRST_UNKNOWN_ROW, FIRST_UNKNOWN_ROW + self.unknown_buckets)

    def rows(self, values: pl.Series) -> NDArray[np.int32]:
        """(n,) table row of each value. Raises DataError for values of another type than in training: 7 is not "07"."""
        values = _plain(values)
        missing = values.is_null().to_numpy()
        if values.dtype == pl.Null:
            return np.full(len(values), MISSING_ROW, np.int32)
        if len(self.values) and self.values.dtype != values.dtype:
            raise DataError(f"column {values.name!r} must hold {self.values.dtype} values, as in training: got {values.dtype}; convert it")
        place = places_among(self.values, values)
        rows = place + np.int32(FIRST_UNKNOWN_ROW + self.unknown_buckets)
        unknown = (place < 0) & ~missing
        rows[unknown] = self.unknown_rows(values.filter(pl.Series(unknown)))
        rows[missing] = MISSING_ROW
        return rows

    def unknown_rows(self, values: pl.Series) -> NDArray[np.int32]:
        """(n,) the rows the values have as unknown ones: one of the unknown buckets, by a seeded hash."""
        if self.unknown_buckets == 1:
            return np.full(len(values), FIRST_UNKNOWN_ROW, np.int32)
        hashes = [xxhash.xxh3_64_intdigest(str(value).encode(), seed=_HASH_SEED) % self.unknown_buckets for value in values]
        return np.asarray(hashes, np.int32) + FIRST_UNKNOWN_ROW


def fit_vocabulary(values: pl.Series, settings: FeatureSettings) -> Vocabulary:
    """The vocabulary of the values that occur at least `min_count` times; nulls do not count."""
    values = _plain(values).drop_nulls()
    if settings.min_count > 1:
        counts = values.value_counts(name="times")
        values = counts.filter(pl.col("times") >= settings.min_count)[values.name]
    return Vocabulary(values.unique().sort(), settings.unknown_buckets)


@dataclass(frozen=True)
class CategoryEncoder:
    """`id` and `category`: one table row a value."""

    vocabulary: Vocabulary

    def encode(self, values: pl.Series) -> Ids:
        """(n,) table rows."""
        return Ids(self.vocabulary.rows(values))


@dataclass(frozen=True)
class CategoriesEncoder:
    """`categories`: a bag of table rows a value, equal weights that add up to 1; an empty list is missing."""

    vocabulary: Vocabulary

    def encode(self, values: pl.Series) -> Bag:
        """n bags; a null inside a list is a missing value among the others."""
        lists = _lists(values)
        rows = self.vocabulary.rows(lists.explode(empty_as_null=True, keep_nulls=True))
        lengths = np.maximum(lists.list.len().fill_null(0).to_numpy(), 1)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        weights = np.repeat(1.0 / lengths, lengths).astype(np.float32)
        return Bag(rows, offsets, weights)


def list_values(values: pl.Series) -> pl.Series:
    """All values of all lists, one after the other. Raises DataError as `CategoriesEncoder.encode` does."""
    return _lists(values).explode(empty_as_null=False, keep_nulls=False)


def _lists(values: pl.Series) -> pl.Series:
    """The values as a list column. Raises DataError for what is none; a column without any value is one of null lists."""
    if values.dtype == pl.Null:
        return values.cast(pl.List(pl.Null))
    if isinstance(values.dtype, pl.Array):
        return values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        raise DataError(f"column {values.name!r} must hold lists, as in training: got {values.dtype}; write one list a row")
    return values


def _plain(values: pl.Series) -> pl.Series:
    """Values as strings or 64-bit integers, the two types a vocabulary has. Raises DataError for other types."""
    if values.dtype == pl.Boolean or values.dtype.is_integer():
        return values.cast(pl.Int64)
    if values.dtype in (pl.Categorical, pl.Enum):
        return values.cast(pl.String)
    if values.dtype not in (pl.String, pl.Null):
        raise DataError(f"column {values.name!r} must hold strings, integers or booleans: got {values.dtype}; convert it")
    return values
