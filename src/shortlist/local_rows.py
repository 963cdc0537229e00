"""A batch's features as small arrays: the entries that are needed, their table rows renumbered from 0.

numpy, or the same in compiled passes where there are some (compiled.py): to the byte, at a quarter of the time, a feature a thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shortlist.compiled import library
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids


@dataclass(frozen=True)
class Wanted:
    """The entries of some features that a batch needs.

    columns   whole, by feature
    embedded  by feature that has a table: its rows and its width
    rows      (n,) which entries, -1 = the last; None = all
    shown     by feature: the n ids that stand for those of the column
    """

    columns: Mapping[str, FeatureArray]
    embedded: Mapping[str, tuple[int, int | None]]
    rows: NDArray[np.signedinteger] | None = None
    shown: Mapping[str, Ids] = field(default_factory=dict)

    def part(self, name: str, column: Ids | Bag) -> _Part:
        """What is to be renumbered of a column that has a table."""
        shown, size = self.shown.get(name), self.embedded[name][0]
        return _Part(column, self.rows, size) if shown is None else _Part(shown, None, size)


@dataclass(frozen=True)
class Features:
    """Feature arrays of some entries, their table rows renumbered to `table_rows`, the rows that are needed."""

    columns: dict[str, FeatureArray]
    table_rows: dict[str, NDArray[np.int64]]  # by feature: the rows of its table that occur, rising
    transposed: dict[str, Bag]  # by feature that is a bag: of each of those rows, the entries that hold it


def localise(sides: Sequence[Wanted], *, shares_out: bool = False) -> list[Features]:
    """Of each side, the wanted entries, with table rows renumbered from 0.

    shares_out  where the passes are compiled: all of torch's threads take part, a feature each
    Raises      IndexError where an entry names a row outside its table
    """
    parts = [side.part(name, column) for side in sides for name, column in side.columns.items() if not isinstance(column, Dense)]
    passes = library()
    numbered = iter([part.numbered() for part in parts] if passes is None else _numbered_at_once(passes, parts, shares_out))
    return [_features(side, numbered) for side in sides]


def _features(side: Wanted, numbered: Iterator[_Numbered]) -> Features:
    """What of `numbered` comes next is this side's."""
    made = Features({}, {}, {})
    for name, column in side.columns.items():
        if isinstance(column, Dense):
            made.columns[name] = column if side.rows is None else column.take(side.rows)
            continue
        made.columns[name], made.table_rows[name], transposed = next(numbered)
        if transposed is not None:
            made.transposed[name] = transposed
    return made


_Numbered = tuple[Ids | Bag, NDArray[np.int64], Bag | None]  # the column, its table rows, and of a bag the entries by these rows


@dataclass(frozen=True)
class _Part:
    """Entries of one column whose table has `size` rows."""

    column: Ids | Bag
    rows: NDArray[np.signedinteger] | None
    size: int

    def numbered(self) -> _Numbered:
        """By numpy. Raises IndexError for a row outside the table."""
        column = self.column if self.rows is None else self.column.take(self.rows)
        _refuse_outside(column.values, self.size)
        present = np.zeros(self.size, bool)
        present[column.values] = True
        table_rows = np.flatnonzero(present)
        place = np.empty(self.size, np.int32)
        place[table_rows] = np.arange(len(table_rows), dtype=np.int32)
        values = place[column.values]
        if isinstance(column, Ids):
            return Ids(values), table_rows, None
        bag = Bag(values, column.offsets, column.weights)
        return bag, table_rows, bag.transposed(len(table_rows))


def _numbered_at_once(passes: ctypes.CDLL, parts: Sequence[_Part], shares_out: bool) -> list[_Numbered]:
    """`numbered` of each part, to the byte."""
    orders = [_Order.of_ids(part) if isinstance(part.column, Ids) else _Order.of_bags(part.column, part) for part in parts]
    numbers = np.array([order.numbers for order in orders], np.int64).reshape(len(orders), _NUMBERS)
    passes.localise(numbers.ctypes.data, len(orders), int(shares_out))
    return [order.filled(found) for order, found in zip(orders, numbers[:, -1].tolist(), strict=True)]


_NUMBERS = 13  # that kernels.c is told of a part, and tells: the last


@dataclass(frozen=True)
class _Order:
    """A part as kernels.c is told of it, and the arrays that it fills."""

    size: int
    read: tuple[NDArray[np.generic], ...]  # the values first
    column: Ids | Bag
    table_rows: NDArray[np.int64]  # and some room behind them
    transposed: Bag | None  # likewise its offsets

    @staticmethod
    def of_ids(part: _Part) -> _Order:
        values = np.ascontiguousarray(part.column.values if part.rows is None else part.column.values[part.rows])
        return _Order(part.size, (values,), Ids(np.empty(len(values), np.int32)), _room(part.size, len(values)), None)

    @staticmethod
    def of_bags(bag: Bag, part: _Part) -> _Order:
        starts, offsets = bag.offsets[:-1], bag.offsets
        if part.rows is not None:
            rows = np.where(part.rows < 0, part.rows + len(bag), part.rows).astype(np.int64, copy=False)
            starts, offsets = bag.offsets.take(rows), np.zeros(len(rows) + 1, np.int64)
            np.cumsum(bag.offsets.take(rows + 1) - starts, out=offsets[1:])
        total = int(offsets[-1])
        table_rows = _room(part.size, total)
        column = Bag(np.empty(total, np.int32), offsets, np.empty(total, np.float32))
        transposed = Bag(np.empty(total, np.int32), np.empty(len(table_rows), np.int64), np.empty(total, np.float32))
        return _Order(part.size, (bag.values, bag.weights, starts), column, table_rows, transposed)

    @property
    def numbers(self) -> list[int]:
        """Where everything lies and how long it is, in the order of kernels.c."""
        column, by_row = self.column, self.transposed
        if not isinstance(column, Bag) or by_row is None:
            ids = _at(self.read[0], np.int32)
            return [ids, 0, 0, 0, len(column), self.size, _at(column.values, np.int32), 0, _at(self.table_rows, np.int64), 0, 0, 0, 0]
        values, weights, starts = self.read
        return [
            *(_at(values, np.int32), _at(weights, np.float32), _at(starts, np.int64)),
            *(_at(column.offsets, np.int64), len(column), self.size, _at(column.values, np.int32), _at(column.weights, np.float32)),
            _at(self.table_rows, np.int64),
            *(_at(by_row.offsets, np.int64), _at(by_row.values, np.int32), _at(by_row.weights, np.float32)),
            0,
        ]

    def filled(self, found: int) -> _Numbered:
        """What the arrays hold, now that `found` rows occur. Raises IndexError, MemoryError for what kernels.c says instead."""
        if found == -1:
            _refuse_outside(self.read[0], self.size)
        if found < 0:
            raise MemoryError(f"{self.size} table rows must fit into memory: got none")
        by_row = self.transposed
        transposed = None if by_row is None else Bag(by_row.values, by_row.offsets[: found + 1], by_row.weights)
        return self.column, self.table_rows[:found], transposed


def _room(size: int, total: int) -> NDArray[np.int64]:
    """For the rows that occur, and one more."""
    return np.empty(min(size, total) + 1, np.int64)


def _refuse_outside(values: NDArray[np.generic], size: int) -> None:
    if len(values) and not 0 <= values.min() <= values.max() < size:
        raise IndexError(f"a table row must be in [0, {size}): got {values.min()} to {values.max()}")


def _at(array: NDArray[np.generic], kind: type[np.generic]) -> int:
    """Where it lies; it must be contiguous and of this type."""
    assert array.flags.c_contiguous and array.dtype == kind, (array.dtype, array.strides)
    return array.ctypes.data
