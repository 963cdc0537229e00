"""Context values of one request -> the numbers that the query tower reads, bit for bit those of `QueryEncoder.encode` and `look_up`.

A frame of one row costs as much as the whole search; so every context feature is prepared once a version, and takes plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import BadRequestError, DataError
from shortlist.features.arrays import Bag
from shortlist.features.encoder import BUCKET_SUFFIX, Feature, TableEncoder
from shortlist.features.number import NumberEncoder, VectorEncoder
from shortlist.features.text import TextEncoder
from shortlist.features.vocabulary import MISSING_ROW, CategoriesEncoder, CategoryEncoder, Vocabulary
from shortlist.serve.ids import Id, open_ids

Floats = NDArray[np.float32]
Tables = Mapping[str, NDArray[np.float32]]
Reader = Callable[[Any], list[Floats]]  # a value -> its pieces of the input, one after the other
_FEW_VALUES = 4096  # known values up to which a dictionary of Python objects is no burden
_LARGEST = float(np.finfo(np.float32).max)


class ContextReader:
    """The context features of one version."""

    def __init__(self, encoder: TableEncoder, tables: Tables) -> None:
        self._readers = [(feature.column, _reader(name, feature, tables)) for name, feature in encoder.features.items()]
        self._columns = {column for column, _ in self._readers}

    def read(self, context: Mapping[str, Any]) -> list[Floats]:
        """The pieces of one query's context, in the order of the features; what is not named is missing.

        Raises BadRequestError for a name that no feature has, or a value that training could not have seen.
        """
        if not context.keys() <= self._columns:
            unknown = min(context.keys() - self._columns)
            raise BadRequestError(
                f"context must name columns that this version knows, {', '.join(sorted(self._columns)) or 'none'}: "
                f"got {unknown[:64]!r}; leave it out"
            )
        pieces = []
        for column, reader in self._readers:
            try:
                pieces += reader(context.get(column))
            except DataError as error:
                raise BadRequestError(f"context {column!r} does not fit: {error}") from None
        return pieces


def _reader(name: str, feature: Feature, tables: Tables) -> Reader:
    match feature.encoder:
        case CategoryEncoder(vocabulary):
            return _category(vocabulary, tables[f"context/{name}"])
        case CategoriesEncoder(vocabulary):
            return _categories(vocabulary, tables[f"context/{name}"])
        case TextEncoder() as text:
            return _text(text, tables[f"context/{name}"])
        case NumberEncoder() as number:
            return _number(number, tables.get(f"context/{name}{BUCKET_SUFFIX}"))
        case VectorEncoder() as vector:
            return _vector(vector)


def _category(vocabulary: Vocabulary, table: Floats) -> Reader:
    row_of = _row_finder(vocabulary)
    return lambda value: [table[row_of(value)]]


def _categories(vocabulary: Vocabulary, table: Floats) -> Reader:
    row_of = _row_finder(vocabulary)

    def read(values: Any) -> list[Floats]:
        if values is not None and not isinstance(values, list):
            raise DataError(f"it must be a list of values: got {type(values).__name__}")
        rows = [row_of(value) for value in values or [None]]
        return [pooled(Bag(np.array(rows, np.int32), np.array([0, len(rows)]), np.full(len(rows), 1.0 / len(rows), np.float32)), table)]

    return read


def _text(encoder: TextEncoder, table: Floats) -> Reader:
    def read(value: Any) -> list[Floats]:
        if value is not None and not isinstance(value, str):
            raise DataError(f"it must be text: got {type(value).__name__}")
        return [pooled(encoder.encode_one(value), table)]

    return read


def _number(encoder: NumberEncoder, buckets: Floats | None) -> Reader:
    def read(value: Any) -> list[Floats]:
        number = _float(value)
        missing = np.isnan(number)
        standard = 0.0 if missing else (number - encoder.mean) / encoder.deviation
        if not abs(standard) <= _LARGEST:
            raise DataError("it must be a finite number that float32 holds")
        pieces = [np.array([standard, missing], np.float32)]
        if buckets is not None:
            pieces.append(buckets[0 if missing else 1 + np.searchsorted(encoder.edges, number, side="right")])
        return pieces

    return read


def _vector(encoder: VectorEncoder) -> Reader:
    missing = np.zeros(encoder.width + 1, np.float32)
    missing[-1] = 1

    def read(value: Any) -> list[Floats]:
        if value is None:
            return [missing]
        if not isinstance(value, list) or len(value) != encoder.width:
            raise DataError(f"it must be a list of {encoder.width} numbers, as in training")
        numbers = np.array([*map(_float, value), 0.0], np.float64)
        with np.errstate(over="ignore"):
            narrow = numbers.astype(np.float32)
        if not np.isfinite(narrow).all():
            raise DataError("a vector must have finite numbers; send null for none at all")
        return [narrow]

    return read


def _float(value: Any) -> float:
    """A number as float64, NaN where it is missing."""
    if value is None:
        return float("nan")
    if not isinstance(value, (int, float)):
        raise DataError(f"it must be a number: got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise DataError("it must be a finite number that float32 holds") from None


def _row_finder(vocabulary: Vocabulary) -> Callable[[Any], int]:
    """Value -> table row, as `Vocabulary.rows` gives it."""
    first_known = vocabulary.unknown.stop
    place_of, known_type = _place_finder(vocabulary.values)

    def row_of(value: Any) -> int:
        if value is None:
            return MISSING_ROW
        plain: Id = int(value) if isinstance(value, bool) else value
        if type(plain) is not known_type and (known_type is not None or not isinstance(plain, (str, int))):
            wanted = "a string or an integer" if known_type is None else "a string" if known_type is str else "an integer"
            raise DataError(f"it must be {wanted}, as in training: got {type(value).__name__}")
        place = place_of(plain)
        return first_known + place if place >= 0 else int(vocabulary.unknown_rows(pl.Series([plain]))[0])

    return row_of


def _place_finder(values: pl.Series) -> tuple[Callable[[Id], int], type[str] | type[int] | None]:
    """(known value -> its place, -1 = unknown; the type of the values, None where there are none)."""
    if not len(values):
        return lambda value: -1, None
    if len(values) > _FEW_VALUES:
        table = open_ids(values, "context value")
        return table.row_of, table.id_type
    places = {value: place for place, value in enumerate(values)}
    return lambda value: places.get(value, -1), int if values.dtype.is_integer() else str


def pooled(bag: Bag, table: Floats) -> Floats:
    """(width,) the weighted sum of one bag's rows, in the order in which `look_up` adds them."""
    total: Floats = np.add.reduceat(table[bag.values] * bag.weights[:, None], bag.offsets[:-1], axis=0)[0]
    return total
