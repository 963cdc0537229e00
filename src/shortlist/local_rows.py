"""A batch's features as small arrays: the entries that are needed, their table rows renumbered from 0.

numpy, or the same in compiled passes where there are some (compiled.py): to the byte, at a quarter of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.compiled import library
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids


@dataclass(frozen=True)
class Features:
    """Feature arrays of some entries, their table rows renumbered to `table_rows`, the rows that are needed."""

    columns: dict[str, FeatureArray]
    table_rows: dict[str, NDArray[np.int64]]  # by feature: the rows of its table that occur, rising
    transposed: dict[str, Bag]  # by feature that is a bag: of each of those rows, the entries that hold it


def localise(columns: dict[str, FeatureArray], embedded: dict[str, tuple[int, int | None]]) -> Features:
    """The columns with table rows renumbered from 0, and which rows those are."""
    local: dict[str, FeatureArray] = {}
    table_rows, transposed = {}, {}
    for name, column in columns.items():
        if isinstance(column, Dense):
            local[name] = column
            continue
        table_rows[name], values = compact(column.values, embedded[name][0])
        if isinstance(column, Ids):
            local[name] = Ids(values)
            continue
        bag = local[name] = Bag(values, column.offsets, column.weights)
        transposed[name] = transposed_bag(bag, len(table_rows[name]))
    return Features(local, table_rows, transposed)


def taken(column: FeatureArray, rows: NDArray[np.signedinteger]) -> FeatureArray:
    """`column.take(rows)`."""
    passes = library()
    if passes is None or not isinstance(column, Bag):
        return column.take(rows)
    rows = np.where(rows < 0, rows + len(column), rows)
    starts = column.offsets.take(rows)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(column.offsets.take(rows + 1) - starts, out=offsets[1:])
    values, weights = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    places = (_at(column.values, np.int32), _at(column.weights, np.float32), _at(starts, np.int64), _at(offsets, np.int64))
    passes.take_bags(*places, len(rows), _at(values, np.int32), _at(weights, np.float32))
    return Bag(values, offsets, weights)


def compact(values: NDArray[np.int32], size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(the distinct values, rising; the place of each value among them), for values in [0, size), without sorting.

    Raises IndexError where a value is outside.
    """
    passes = library()
    if passes is None:
        present = np.zeros(size, bool)
        present[values] = True
        distinct = np.flatnonzero(present)
        place = np.empty(size, np.int32)
        place[distinct] = np.arange(len(distinct), dtype=np.int32)
        return distinct, place[values]
    distinct, local = np.empty(min(size, len(values)) + 1, np.int64), np.empty(len(values), np.int32)
    values = np.ascontiguousarray(values)
    found = passes.compact(_at(values, np.int32), len(values), size, _at(distinct, np.int64), _at(local, np.int32))
    if found == -1:
        raise IndexError(f"a table row must be in [0, {size}): got {values.min()} to {values.max()}")
    if found < 0:
        raise MemoryError(f"{size} table rows must fit into memory: got none")
    return distinct[:found], local


def transposed_bag(bag: Bag, table_rows: int) -> Bag:
    """`bag.transposed(table_rows)`."""
    passes = library()
    if passes is None:
        return bag.transposed(table_rows)
    by_row = np.empty(table_rows + 1, np.int64)
    entries, weights = np.empty(len(bag.values), np.int32), np.empty(len(bag.values), np.float32)
    places = (_at(bag.values, np.int32), _at(bag.weights, np.float32), _at(bag.offsets, np.int64))
    passes.transpose_bags(*places, len(bag), table_rows, _at(by_row, np.int64), _at(entries, np.int32), _at(weights, np.float32))
    return Bag(entries, by_row, weights)


def _at(array: NDArray[np.generic], kind: type[np.generic]) -> int:
    """Where it lies; it must be contiguous and of this type."""
    assert array.flags.c_contiguous and array.dtype == kind, (array.dtype, array.strides)
    return array.ctypes.data
