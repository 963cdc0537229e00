"""External ids of a table <-> dense rows, one request at a time.

Integers are found by halving the sorted ids themselves. A few hundred thousand strings are kept as letters beside a table of
guesses: that is fastest, and takes some 70 bytes each. More strings take some 40 bytes each: they are found by halving
their sorted 128-bit hashes; the low half finds the place, the high half says whether it is the one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from shortlist.errors import BadRequestError
from shortlist.pace import step

Id = str | int
Rows = NDArray[np.int64]
Hashes = TypeVar("Hashes", int, NDArray[np.int64])
KEPT = 300_000  # strings up to which letters and guesses are no burden
ONE_BY_ONE = 8  # ids up to which a look for each costs less than arrays of them
GUESSES = 4  # places a string, at least: few share one
FIRST_BITS = (0, 21, 42)  # of a hash, of which KEPT strings need 21 each time
SHORT = 24  # letters up to which strings are kept as letters, 4 bytes each; Python objects where one is longer
_HASH_SEED = 43
_digest = xxhash.xxh3_128_digest
_BLOCK = 1 << 12  # strings that are Python objects at a time
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
        return int(self.rows_of([asked])[0])

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
    """Strings, as letters in one array, found by their hashes.

    A look into a dictionary of this size waits for memory five times, one after the other; twenty of them cost as much as the search.
    So the rows of many ids are guessed by some bits of their hashes, all at once. One guess in ten is another id's: for those that lose
    theirs there is a second table, by other bits, and a third for those that lose it there too; what is left, one in a thousand, is in a
    dictionary. Beside it there are no Python objects, unless an id is long: to make or free 20,000 at once stops every other thread.
    """

    id_type = str

    def __init__(self, ids: pl.Series, what: str) -> None:
        self.what = what
        size = len(ids)
        self._ids: NDArray[Any] = np.empty(size, _letters_of(ids))
        hashes = np.empty(size, np.int64)
        for start in range(0, size, _BLOCK):
            values = ids[start : start + _BLOCK].to_list()
            self._ids[start : start + _BLOCK] = values
            hashes[start : start + _BLOCK] = _hashes(values)
            step()
        self._guesses: list[tuple[NDArray[np.int32], int]] = []  # rows by hash, and from which bit on
        left = np.arange(size)
        for first_bit in FIRST_BITS:
            guesses = np.zeros(1 << (GUESSES * len(left)).bit_length(), np.int32)
            places = _bits(hashes[left], first_bit, len(guesses))
            guesses[places] = left
            self._guesses.append((guesses, first_bit))
            left = left[guesses[places] != left]
            step()
        self._others: dict[Id, int] = dict(zip(self.ids_of(left), left.tolist(), strict=True))

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
        if not len(self):
            return np.full(len(asked), -1, np.int64)
        hashes = _hashes(asked)
        guesses, first_bit = self._guesses[0]
        rows = guesses.take(_bits(hashes, first_bit, len(guesses))).astype(np.int64)
        known = self.ids_of(rows)
        if known == asked:
            return rows
        wrong = [place for place, (value, guessed) in enumerate(zip(asked, known, strict=True)) if value != guessed]
        if len(wrong) <= ONE_BY_ONE:
            for place in wrong:
                rows[place] = self._row_elsewhere(asked[place], hashes.item(place))
        else:
            self._find_elsewhere(asked, hashes, rows, wrong)
        return rows

    def _row_elsewhere(self, asked: Id, hashed: int) -> int:
        """The row of an id that lost its first guess to another, -1 = unknown."""
        for guesses, first_bit in self._guesses[1:]:
            row: int = guesses.item(_bits(hashed, first_bit, len(guesses)))
            if self._ids.item(row) == asked:
                return row
        return self._others.get(asked, -1)

    def _find_elsewhere(self, asked: Sequence[Id], hashes: NDArray[np.int64], rows: Rows, wrong: list[int]) -> None:
        """Nothing comes back: `rows` at the places `wrong` are what `_row_elsewhere` says, for many ids at once."""
        for guesses, first_bit in self._guesses[1:]:
            rows[wrong] = found = guesses.take(_bits(hashes[wrong], first_bit, len(guesses))).astype(np.int64)
            wrong = [place for place, guessed in zip(wrong, self.ids_of(found), strict=True) if asked[place] != guessed]
        for place in wrong:
            rows[place] = self._others.get(asked[place], -1)


class HashedIds(IdTable):
    """Strings: their bytes in one piece, and their hashes."""

    id_type = str

    def __init__(self, ids: pl.Series, what: str) -> None:
        self.what = what
        self._ids = _store_of(ids)
        halves = []
        for start in range(0, len(ids), _BLOCK):
            halves.append(_halves(ids[start : start + _BLOCK].to_list()))
            step()
        low, high = (np.concatenate([np.zeros(0, np.uint64), *(pair[half] for pair in halves)]) for half in (0, 1))
        order = np.argsort(low, kind="stable")
        self._low, self._high, self._row = low[order], high[order], order.astype(np.int32)
        assert not (self._low[1:] == self._low[:-1]).any(), "two ids share 64 bits of hash: choose another _HASH_SEED"
        step()

    def __len__(self) -> int:
        return len(self._low)

    def ids_of(self, rows: Rows) -> list[Id]:
        """The id at each row."""
        return self._ids.at(rows)

    def place_of(self, asked: Id) -> int:
        """How many ids have lesser UTF-8 bytes (which sort as code points do)."""
        return bisect_left(range(len(self)), asked, key=lambda row: self.ids_of(np.array([row]))[0])

    def _found(self, asked: Sequence[Id]) -> Rows:
        if not len(self._low):
            return np.full(len(asked), -1, np.int64)
        low, high = _halves(asked)
        place = self._low.searchsorted(low)
        place[place == len(self._low)] = 0  # beyond the last: another one's place
        rows = self._row[place].astype(np.int64)
        rows[(self._low[place] != low) | (self._high[place] != high)] = -1
        return rows


class _Strings(ABC):
    """Strings by row, without an object for each."""

    @abstractmethod
    def at(self, rows: Rows) -> list[Id]: ...


class _Padded(_Strings):
    """As wide as the longest, filled up with zeros."""

    def __init__(self, ids: pl.Series, width: int) -> None:
        self._bytes = np.zeros(len(ids), f"S{max(width, 1)}")
        for start in range(0, len(ids), _BLOCK):
            self._bytes[start : start + _BLOCK] = [value.encode() for value in ids[start : start + _BLOCK].to_list()]
            step()

    def at(self, rows: Rows) -> list[Id]:
        return [value.decode() for value in self._bytes[rows].tolist()]


class _Joined(_Strings):
    """One behind the other, and where each ends."""

    def __init__(self, ids: pl.Series) -> None:
        self._bytes = bytearray()
        for start in range(0, len(ids), _BLOCK):
            self._bytes += "".join(ids[start : start + _BLOCK].to_list()).encode()
            step()
        self._bounds = np.concatenate([[0], np.cumsum(ids.str.len_bytes().to_numpy(), dtype=np.int64)])
        if len(self._bytes) < 2**32:
            self._bounds = self._bounds.astype(np.uint32)

    def at(self, rows: Rows) -> list[Id]:
        text = self._bytes
        return [text[first:last].decode() for first, last in zip(self._bounds[rows].tolist(), self._bounds[rows + 1].tolist(), strict=True)]


def _store_of(ids: pl.Series) -> _Strings:
    """Padded is four times as fast: 7 us for 100 ids. Joined where padding takes more than it, or a zero at the end would be lost."""
    lengths = ids.str.len_bytes().to_numpy()
    width, total = int(lengths.max(initial=0)), int(lengths.sum())
    if len(ids) * width > total + 8 * len(ids) or ids.str.ends_with("\0").any():
        return _Joined(ids)
    return _Padded(ids, width)


def _letters_of(ids: pl.Series) -> np.dtype[Any]:
    """The type of an array that holds the strings just as they are."""
    longest = ids.str.len_chars().max() or 0
    assert isinstance(longest, int)
    if longest > SHORT or ids.str.contains("\0", literal=True).any():  # numpy drops zero letters at an end
        return np.dtype(object)
    return np.dtype((np.str_, max(longest, 1)))


def _bits(hashes: Hashes, first_bit: int, places: int) -> Hashes:
    """A place for each hash, of a power of two of them."""
    return hashes >> first_bit & (places - 1)


def _hashes(values: Sequence[Id]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, values), np.int64, len(values))


def _halves(ids: Sequence[Id]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two 64-bit halves of each string's hash."""
    try:
        digests = [_digest(value.encode(), _HASH_SEED) for value in ids]  # type: ignore[union-attr]  # all are strings
    except UnicodeEncodeError:  # lone surrogates, which no table holds
        digests = [_digest(str(value).encode("utf-8", "surrogatepass"), _HASH_SEED) for value in ids]
    both = np.frombuffer(b"".join(digests), np.uint64)
    return both[0::2], both[1::2]
