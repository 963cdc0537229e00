"""Conditions on the columns of the items table -> a mask over its rows, remembered: most requests ask one of a few questions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import reduce
from operator import and_
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import BadRequestError
from shortlist.files import inner_type
from shortlist.serve.messages import Predicate

Mask = NDArray[np.bool_]
Made = TypeVar("Made")
_INT64 = range(-(2**63), 2**63)
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


class PredicateMasks(Generic[Made]):
    """What was made of the masks of one table's rows, the most recently used kept. Safe to call from several threads."""

    def __init__(self, frame: pl.DataFrame, limit_bytes: int, *, make: Callable[[Mask], Made], size_bytes: Callable[[Made], int]) -> None:
        self._frame, self._limit, self._make, self._size = frame, limit_bytes, make, size_bytes
        self._kept: OrderedDict[bytes, tuple[Made, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, where: Sequence[Predicate]) -> Made:
        """What `make` makes of the mask of the rows where all predicates hold. Raises BadRequestError for one that does not fit."""
        key = msgspec.json.encode(where)
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept[0]
        made = self._make(holding(self._frame, where))
        size = self._size(made) + len(key)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = (made, size)
                self._bytes += size
            while self._bytes > self._limit:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed
        return made


def holding(frame: pl.DataFrame, where: Sequence[Predicate]) -> Mask:
    """(rows,) where all predicates hold. Raises BadRequestError for one that does not fit the table."""
    mask = np.ones(frame.height, bool)
    for predicate in where:
        mask &= frame.select(_condition(predicate, frame.schema).alias("holds"))["holds"].to_numpy()
    return mask


def _condition(predicate: Predicate, schema: pl.Schema) -> pl.Expr:
    """An expression without nulls: a missing value never holds."""
    dtype = schema.get(predicate.column)
    if dtype is None:
        raise BadRequestError(
            f"filters.where must name a column of the items table, {', '.join(sorted(schema))}: got {predicate.column[:64]!r}"
        )
    column = pl.col(predicate.column)
    parts = []
    if predicate.any_of is not None:
        parts.append(_is_among(column, predicate.any_of, dtype, predicate.column))
    if predicate.none_of is not None:
        parts.append(_is_among(column, predicate.none_of, dtype, predicate.column).not_() & column.is_not_null())
    if predicate.at_least is not None:
        parts.append(_number(column, dtype, predicate.column) >= predicate.at_least)
    if predicate.at_most is not None:
        parts.append(_number(column, dtype, predicate.column) <= predicate.at_most)
    if not parts:
        raise BadRequestError(f"a predicate on {predicate.column!r} must ask something: name any_of, none_of, at_least or at_most")
    return reduce(and_, parts).fill_null(False)


def _is_among(column: pl.Expr, values: Sequence[Any], dtype: pl.DataType, name: str) -> pl.Expr:
    inner = inner_type(dtype)
    known = _fitting(values, inner or dtype, name)
    if inner is None:
        return _comparable(column, dtype).is_in(known).fill_null(False)
    lists = column.arr.to_list() if isinstance(dtype, pl.Array) else column
    common = lists.list.eval(_comparable(pl.element(), inner).is_in(known).fill_null(False)).list.any()
    return common.fill_null(False)


def _fitting(values: Sequence[Any], dtype: pl.DataType, name: str) -> pl.Series:
    """The values as a series to be compared with `_comparable` ones. Raises BadRequestError for values of another type."""
    if dtype in _TEXTS:
        _refuse_other(values, {str}, "strings", name)
        return pl.Series(values, dtype=pl.String)
    if dtype == pl.Boolean:
        _refuse_other(values, {bool}, "true or false", name)
        return pl.Series(values, dtype=pl.Boolean)
    if dtype.is_integer():
        _refuse_other(values, {int}, "integers", name)
        return pl.Series([value for value in values if value in _INT64], dtype=pl.Int64)
    if dtype.is_float():
        _refuse_other(values, {int, float}, "numbers", name)
        return pl.Series([_rounded(value) for value in values], dtype=pl.Float64)
    raise BadRequestError(f"column {name!r} of {dtype} cannot be compared with single values: use at_least and at_most, or leave it out")


def _refuse_other(values: Sequence[Any], fitting: set[type], wanted: str, name: str) -> None:
    types = {type(value) for value in values}
    if not types <= fitting:
        got = ", ".join(sorted(kind.__name__ for kind in types))
        raise BadRequestError(f"values for column {name!r} must be {wanted}, as the items table has them: got {got}")


def _rounded(value: float) -> float:
    """The nearest float64; one beyond all of them is infinite, and equals nothing in the table."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _comparable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype in _TEXTS:
        return column.cast(pl.String)
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    return column.cast(pl.Float64) if dtype.is_float() else column


def _number(column: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """The column as float64; times in seconds since 1970."""
    if dtype.is_numeric():
        return column.cast(pl.Float64)
    if dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    raise BadRequestError(f"column {name!r} must hold numbers or times for at_least and at_most: it holds {dtype}; use any_of")
