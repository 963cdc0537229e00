"""The three shapes an encoded feature can take. Each holds one entry a row and knows how to `take` rows.

Not here: where the values come from (the encoders), or what is learned for them (tables.py, towers.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ids:
    """One row of an embedding table for each entry."""

    values: NDArray[np.int32]  # (n,)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.integer]) -> Ids:
        """The entries at `rows`, in that order; -1 is the last entry."""
        return Ids(self.values[rows])

    def cut(self, rows: slice) -> Ids:
        """The entries of a range of rows, without a copy."""
        return Ids(self.values[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What has to be saved, by part name."""
        return {"values": self.values}


@dataclass(frozen=True)
class Bag:
    """A weighted bag of table rows for each entry: entry i is values[offsets[i]:offsets[i + 1]]; never empty."""

    values: NDArray[np.int32]  # (total,)
    offsets: NDArray[np.int64]  # (n + 1,)
    weights: NDArray[np.float32]  # (total,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.integer]) -> Bag:
        """The entries at `rows`, in that order; -1 is the last entry."""
        rows = np.where(rows < 0, rows + len(self), rows)
        positions, offsets = ragged_positions(self.offsets[rows], self.offsets[rows + 1])
        return Bag(self.values[positions], offsets, self.weights[positions])

    def cut(self, rows: slice) -> Bag:
        """The entries of a range of rows, of which only the offsets are copied."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        inside = slice(offsets[0], offsets[-1])
        return Bag(self.values[inside], offsets - offsets[0], self.weights[inside])

    def transposed(self, table_rows: int) -> Bag:
        """The same weights by table row: entry r holds the entries in which row r occurs, rising; it may hold none."""
        from scipy.sparse import csr_array  # training alone transposes: a server holds 18 MB less

        by_row = csr_array((self.weights, self.values, self.offsets.astype(np.int32)), shape=(len(self), table_rows)).tocsc()
        return Bag(by_row.indices, by_row.indptr.astype(np.int64), by_row.data)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What has to be saved, by part name."""
        return {"values": self.values, "offsets": self.offsets, "weights": self.weights}


@dataclass(frozen=True)
class Dense:
    """Plain numbers for each entry."""

    values: NDArray[np.float32]  # (n, width)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.integer]) -> Dense:
        """The entries at `rows`, in that order; -1 is the last entry."""
        return Dense(self.values[rows])

    def cut(self, rows: slice) -> Dense:
        """The entries of a range of rows, without a copy."""
        return Dense(self.values[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What has to be saved, by part name."""
        return {"values": self.values}


FeatureArray = Ids | Bag | Dense
_SHAPES: dict[str, type[Ids] | type[Bag] | type[Dense]] = {"ids": Ids, "bag": Bag, "dense": Dense}


def ragged_positions(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All positions start..end-1 of every range, one after the other, and the (n + 1,) offsets that part them."""
    lengths = ends - starts
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    positions = np.arange(offsets[-1], dtype=np.int64)
    positions += np.repeat(starts - offsets[:-1], lengths)
    return positions, offsets


def flat_arrays(columns: dict[str, FeatureArray]) -> dict[str, NDArray[np.generic]]:
    """The columns as plain arrays with self-describing names (`title.bag.offsets`), to be saved."""
    names = {shape: name for name, shape in _SHAPES.items()}
    return {
        f"{feature}.{names[type(column)]}.{part}": array for feature, column in columns.items() for part, array in column.arrays().items()
    }


def columns_from_flat(arrays: dict[str, NDArray[np.generic]]) -> dict[str, FeatureArray]:
    """The inverse of `flat_arrays`; features in order of first appearance."""
    parts: dict[tuple[str, str], dict[str, NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        feature, shape, part = name.rsplit(".", 2)
        parts.setdefault((feature, shape), {})[part] = array
    return {feature: _SHAPES[shape](**values) for (feature, shape), values in parts.items()}  # type: ignore[arg-type]  # the names were written by flat_arrays
