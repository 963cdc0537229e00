"""Where values stand among known ones: the one way from ids to dense rows, for the items table, vocabularies and users alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.pace import step

ROWS_AT_ONCE = 1 << 20  # of a log: what is made of a block of this many rows stays small, whatever the log
_FEW = 16  # below one value per this many known ones, halving is cheaper than hashing all that is known
_SPREAD = 4  # integers that span at most this many numbers a value are looked up in a table


def places_among(known: pl.Series, values: pl.Series) -> NDArray[np.int32]:
    """(n,) the place of each value among `known`, which is rising and without doubles or nulls; -1 where it is not, and for nulls.

    Both are strings, or both 64-bit integers. Beside the answer it takes the memory of a block, not of all values.
    """
    if not len(known):
        return np.full(len(values), -1, np.int32)
    if len(values) * _FEW < len(known):
        return _by_halving(known, values)
    look_up = _by_table(known, len(values)) if known.dtype.is_integer() else None
    places = np.empty(len(values), np.int32)
    for rows in row_blocks(len(values), max(ROWS_AT_ONCE, 4 * len(known))):
        block = values[rows]
        places[rows] = _by_join(known, block) if look_up is None else _in_table(look_up, int(known[0]), block)
        step()
    return places


def row_blocks(count: int, size: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """The rows 0..count-1 in slices of `size`, the last one shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _by_halving(known: pl.Series, values: pl.Series) -> NDArray[np.int32]:
    places = np.minimum(np.asarray(known.search_sorted(values), np.int64), len(known) - 1)
    is_there = (known[places] == values).fill_null(False).to_numpy()
    return np.where(is_there, places, -1).astype(np.int32)


def _by_join(known: pl.Series, values: pl.Series) -> NDArray[np.int32]:
    rows = pl.DataFrame({"id": known, "place": np.arange(len(known), dtype=np.int32)})
    found = values.alias("id").to_frame().join(rows, on="id", how="left", maintain_order="left")
    places: NDArray[np.int32] = found["place"].fill_null(-1).to_numpy()
    return places


def _by_table(known: pl.Series, asked: int) -> NDArray[np.int32] | None:
    """(span,) the place of each number from the lowest known to the highest, -1 = unknown; None where the span is too wide."""
    numbers = known.to_numpy()
    span = int(numbers[-1]) - int(numbers[0]) + 1
    if span > _SPREAD * asked:
        return None
    table = np.full(span, -1, np.int32)
    table[numbers - numbers[0]] = np.arange(len(numbers), dtype=np.int32)
    return table


def _in_table(table: NDArray[np.int32], lowest: int, values: pl.Series) -> NDArray[np.int32]:
    inside: NDArray[np.bool_] = values.is_between(lowest, lowest + len(table) - 1).fill_null(False).to_numpy()
    numbers: NDArray[np.int64] = values.fill_null(lowest).to_numpy()
    if inside.all():
        return table[numbers - lowest]
    return np.where(inside, table[np.where(inside, numbers - lowest, 0)], np.int32(-1))
