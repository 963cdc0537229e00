"""External ids of a table <-> dense rows, one request at a time.

Integers are found by halving the sorted ids themselves. A few hundred thousand strings are kept as Python objects, in a
dictionary: that is fastest, and takes some 180 bytes each. More strings take some 40 bytes each: they are found by halving
their sorted 128-bit hashes; the low half finds the place, the high half says whether it is the one.

The strings of an answer are made anew from an array of letters, where none is long: reading a hundred objects scattered over memory
takes three times as long as that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from shortlist.errors import BadRequestError

Id = str | int
Rows = NDArray[np.int64]
KEPT = 300_000  # strings up to which Python objects are no burden
FEW = 4  # strings below which looking them up one by one is quicker
GUESSES = 4  # places a string, at least: few share one
SHORT = 24  # letters up to which all strings are kept as letters, too: 4 bytes each
_HASH_SEED = 43
_digest = xxhash.xxh3_128_digest
_BLOCK = 1 << 16  # strings that are Python objects at a time
_INT64 = np.iinfo(np.int64)


class IdTable(ABC):
    """The ids of a table by row. Sizes: M ids, none twice."""

    id_type: type[str] | type[int]
    what: str  # "item", "user": for messages

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def ids_of(self, rows: Rows) -> list[Id]:
        """The id at each row."""

    @abstractmethod
    def place_of(self, asked: Id) -> int:
        """How many ids of the table come before `asked` in the catalogue's order. The table must be sorted."""

    @abstractmethod
    def _found(self, asked: Sequence[Id]) -> Rows: ...

    def rows_of(self, asked: Sequence[Id]) -> Rows:
        """(n,) the row of each id, -1 = unknown. Raises BadRequestError for an id of another type than the table's."""
        if not asked:
            return np.zeros(0, np.int64)
        if {*map(type, asked)} != {self.id_type}:
            self.refuse(next(value for value in asked if type(value) is not self.id_type))
        return self._found(asked)

    def row_of(self, asked: Id) -> int:
        """The row of one id, as `rows_of`."""
        return int(self.rows_of((asked,))[0])

    def refuse(self, value: object) -> None:
        """Raises BadRequestError for a value of another type. The value is not repeated: it may be somebody's name."""
        wanted = "a string" if self.id_type is str else "an integer"
        raise BadRequestError(
            f"ids of {self.what}s must be of the version's type, {wanted}: got {type(value).__name__}; send it as {wanted}"
        )


def open_ids(ids: pl.Series, what: str) -> IdTable:
    """The table of `ids`, whose place in the series is their row."""
    if ids.dtype.is_integer():
        return IntegerIds(ids.to_numpy(), what)
    return KeptIds(ids, what) if len(ids) <= KEPT else HashedIds(ids, what)


class IntegerIds(IdTable):
    """Integers: the ids themselves, and their order where they are not sorted."""

    id_type = int

    def __init__(self, ids: NDArray[np.integer], what: str) -> None:
        self.what = what
        self._ids = ids.astype(np.int64)
        is_sorted = bool((self._ids[1:] > self._ids[:-1]).all())
        self._order = None if is_sorted else np.argsort(self._ids, kind="stable")
        self._sorted = self._ids if self._order is None else self._ids[self._order]

    def __len__(self) -> int:
        return len(self._ids)

    def ids_of(self, rows: Rows) -> list[Id]:
        """The id at each row."""
        found: list[Id] = self._ids[rows].tolist()
        return found

    def place_of(self, asked: Id) -> int:
        """How many ids are less."""
        return int(np.searchsorted(self._sorted, asked))

    def _found(self, asked: Sequence[Id]) -> Rows:
        if not len(self._sorted):
            return np.full(len(asked), -1, np.int64)
        try:
            values = np.array(asked, np.int64)
        except OverflowError:  # larger than any id
            values = np.array([value if _INT64.min <= int(value) <= _INT64.max else _INT64.max for value in asked], np.int64)
            fits = np.array([_INT64.min <= int(value) <= _INT64.max for value in asked])
            return np.where(fits, self._places(values), -1)
        return self._places(values)

    def _places(self, values: Rows) -> Rows:
        place = np.minimum(self._sorted.searchsorted(values), len(self._sorted) - 1)
        row = place if self._order is None else self._order[place]
        return np.where(self._sorted[place] == values, row, -1)


class KeptIds(IdTable):
    """Strings: a dictionary of them, and arrays that answer for many at a time.

    A look into a dictionary of this size waits for memory five times, one after the other; twenty of them cost as much as the search.
    So for many ids each row is guessed by the hash, all at once, and what the row's id shows to be wrong is looked up.
    """

    id_type = str

    def __init__(self, ids: pl.Series, what: str) -> None:
        self.what = what
        values = ids.to_list()
        self._rows = dict(zip(values, range(len(values)), strict=True))
        is_short = all(len(value) <= SHORT and "\0" not in value for value in values)  # numpy drops zero letters at an end
        self._ids: NDArray[Any] = np.array(values, np.str_ if is_short else object)
        self._guesses = np.zeros(1 << (GUESSES * len(values)).bit_length(), np.int32)
        self._guesses[self._places(values)] = np.arange(len(values))

    def __len__(self) -> int:
        return len(self._ids)

    def ids_of(self, rows: Rows) -> list[Id]:
        """The id at each row."""
        found: list[Id] = self._ids.take(rows).tolist()
        return found

    def place_of(self, asked: Id) -> int:
        """How many ids have lesser code points."""
        return bisect_left(self._ids, asked)

    def _found(self, asked: Sequence[Id]) -> Rows:
        if len(asked) < FEW or not self._rows:
            return np.fromiter(map(self._rows.get, asked, repeat(-1)), np.int64, len(asked))
        rows = self._guesses.take(self._places(asked)).astype(np.int64)
        known = self.ids_of(rows)
        if known != asked:
            for place, (value, guessed) in enumerate(zip(asked, known, strict=True)):
                if value != guessed:
                    rows[place] = self._rows.get(value, -1)
        return rows

    def _places(self, values: Sequence[Id]) -> Rows:
        """(n,) where each value's row is guessed."""
        hashes = np.fromiter(map(hash, values), np.int64, len(values))
        hashes &= len(self._guesses) - 1
        return hashes


class HashedIds(IdTable):
    """Strings: their bytes in one Arrow array, and their hashes."""

    id_type = str

    def __init__(self, ids: pl.Series, what: str) -> None:
        self.what = what
        self._ids = ids.to_arrow().cast(pa.large_string())
        halves = [_halves(ids[start : start + _BLOCK].to_list()) for start in range(0, len(ids), _BLOCK)]
        low, high = (np.concatenate([np.zeros(0, np.uint64), *(pair[half] for pair in halves)]) for half in (0, 1))
        order = np.argsort(low, kind="stable")
        self._low, self._high, self._row = low[order], high[order], order.astype(np.int32)
        assert not (self._low[1:] == self._low[:-1]).any(), "two ids share 64 bits of hash: choose another _HASH_SEED"

    def __len__(self) -> int:
        return len(self._ids)

    def ids_of(self, rows: Rows) -> list[Id]:
        """The id at each row."""
        found: list[Id] = self._ids.take(pa.array(rows)).to_pylist()
        return found

    def place_of(self, asked: Id) -> int:
        """How many ids have lesser UTF-8 bytes (which sort as code points do)."""
        return bisect_left(range(len(self)), asked, key=lambda row: self._ids[row].as_py())

    def _found(self, asked: Sequence[Id]) -> Rows:
        if not len(self._low):
            return np.full(len(asked), -1, np.int64)
        low, high = _halves(asked)
        place = self._low.searchsorted(low)
        place[place == len(self._low)] = 0  # beyond the last: another one's place
        rows = self._row[place].astype(np.int64)
        rows[(self._low[place] != low) | (self._high[place] != high)] = -1
        return rows


def _halves(ids: Sequence[Id]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two 64-bit halves of each string's hash."""
    try:
        digests = [_digest(value.encode(), _HASH_SEED) for value in ids]  # type: ignore[union-attr]  # all are strings
    except UnicodeEncodeError:  # lone surrogates, which no table holds
        digests = [_digest(str(value).encode("utf-8", "surrogatepass"), _HASH_SEED) for value in ids]
    both = np.frombuffer(b"".join(digests), np.uint64)
    return both[0::2], both[1::2]
