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

from shortlist.config import FeatureSettings
from shortlist.features.arrays import Bag, Ids

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

    def rows(self, values: pl.Series) -> NDArray[np.int32]:
        """(n,) table row of each value."""
        values = _plain(values)
        if self.values.dtype != values.dtype and len(self.values) and values.dtype != pl.Null:
            values = values.cast(self.values.dtype, strict=False)
        known = pl.DataFrame({"value": self.values, "row": np.arange(len(self.values), dtype=np.int32)})
        if values.dtype == pl.Null or not len(self.values):
            found = pl.Series([None] * len(values), dtype=pl.Int32)
        else:
            found = pl.DataFrame({"value": values}).join(known, on="value", how="left", maintain_order="left")["row"]
        rows = found.fill_null(-1).to_numpy().astype(np.int32) + (FIRST_UNKNOWN_ROW + self.unknown_buckets)
        unknown = (found.is_null() & values.is_not_null()).to_numpy()
        rows[unknown] = self.unknown_rows(values.filter(pl.Series(unknown)))
        rows[values.is_null().to_numpy()] = MISSING_ROW
        return rows

    def unknown_rows(self, values: pl.Series) -> NDArray[np.int32]:
        """(n,) the rows the values have, or would have, as unknown ones: what id dropout shows instead."""
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
        """n bags."""
        exploded = pl.DataFrame({"list": values}).with_row_index("entry").explode("list", empty_as_null=True)
        rows = self.vocabulary.rows(exploded["list"])
        lengths = np.bincount(exploded["entry"].to_numpy(), minlength=len(values))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        weights = np.repeat(1.0 / lengths, lengths).astype(np.float32)
        return Bag(rows, offsets, weights)


def _plain(values: pl.Series) -> pl.Series:
    """Values as strings or 64-bit integers, the two types a vocabulary has."""
    if values.dtype == pl.Boolean or values.dtype.is_integer():
        return values.cast(pl.Int64)
    if values.dtype in (pl.Categorical, pl.Enum):
        return values.cast(pl.String)
    return values
