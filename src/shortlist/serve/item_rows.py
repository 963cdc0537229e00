"""Rows of the items table as they come in a request <-> frames of a version's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from shortlist.errors import BadRequestError
from shortlist.files import inner_type, shown

_UNFIT = (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError)
_TIMES: dict[type[pl.DataType], type[date]] = {pl.Date: date, pl.Datetime: datetime}


def frame_of(rows: Sequence[Mapping[str, Any]], schema: pl.Schema) -> pl.DataFrame:
    """One row each, with the columns and types of `schema`; a column that a row does not name is missing there.

    Dates and times may be ISO 8601 text.
    Raises BadRequestError for a column that is not in `schema`, or a value that is not of its type
    """
    unknown = {name for row in rows for name in row} - set(schema)
    if unknown:
        raise BadRequestError(f"an item has the columns {', '.join(schema)}: got {shown(min(unknown))}; leave it out")
    return pl.DataFrame([_column(name, dtype, [row.get(name) for row in rows]) for name, dtype in schema.items()])


def _column(name: str, dtype: pl.DataType, values: list[Any]) -> pl.Series:
    try:
        series = _series(name, dtype, values)
    except _UNFIT:
        unfit = next(value for value in values if not _is_fit(name, dtype, value))
        raise BadRequestError(f"column {name!r} of an item must be {dtype}: got {shown(unfit)}; convert it") from None
    _refuse_non_finite(series)
    return series


def _series(name: str, dtype: pl.DataType, values: list[Any]) -> pl.Series:
    _refuse_lookalikes(values, dtype)
    wanted = next((kind for base, kind in _TIMES.items() if dtype == base), None)
    if wanted is not None:
        values = [wanted.fromisoformat(value) if isinstance(value, str) else value for value in values]
    return pl.Series(name, values, dtype=dtype, strict=True)


def _is_fit(name: str, dtype: pl.DataType, value: Any) -> bool:
    try:
        _series(name, dtype, [value])
    except _UNFIT:
        return False
    return True


def _refuse_lookalikes(values: list[Any], dtype: pl.DataType) -> None:
    """Raises TypeError for what the table library would take for something else: true for 1, text for a list of letters."""
    is_list, is_number = inner_type(dtype) is not None, dtype.is_numeric()
    for value in values:
        if (is_list and not isinstance(value, (list, type(None)))) or (is_number and isinstance(value, bool)):
            raise TypeError


def _refuse_non_finite(series: pl.Series) -> None:
    flat = series.explode(empty_as_null=False, keep_nulls=False) if inner_type(series.dtype) is not None else series
    if flat.dtype.is_float() and not np.isfinite(flat.drop_nulls().to_numpy()).all():
        raise BadRequestError(
            f"column {series.name!r} of an item must hold finite numbers: got NaN or infinity; send null for a missing one"
        )
