"""Instants as text: ISO 8601 in the user's files to times, and the microseconds of our tables to ISO 8601.

Called by csv_files.py (is this column a column of times?), times.py (the column that plays the role time) and whoever prints a time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import polars as pl

INSTANT = re.compile(r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)? ?(Z|UTC|[+-]\d\d:?(?:\d\d)?)?$")


def times_from_text(text: pl.Series) -> pl.Series | None:
    """ISO 8601 text as Date, as Datetime, or as Datetime in UTC if every value has an offset; None if any value is otherwise.

    Digits below a microsecond are cut off (times are whole microseconds).
    """
    parts = text.str.extract_groups(INSTANT.pattern).struct.unnest()
    parts.columns = ["day", "hour", "minute", "second", "fraction", "offset"]
    missing = text.null_count()
    day = parts["day"].str.to_date("%Y-%m-%d", strict=False)
    offsets = len(text) - parts["offset"].null_count()
    if day.null_count() > missing or (offsets and offsets < len(text) - missing):
        return None
    if parts["hour"].null_count() == len(text) and not offsets:
        return day.alias(text.name)
    times = parts.select(_instant(day)).to_series().alias(text.name)
    if times.null_count() > missing:  # an hour of 25
        return None
    return times.dt.replace_time_zone("UTC") if offsets else times


def as_text(time_us: int) -> str:
    """The instant as ISO 8601 text in UTC."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).isoformat()
    except OverflowError:  # beyond Python's years, as an epoch number may be
        return f"{time_us} microseconds since 1970"


def _instant(day: pl.Series) -> pl.Expr:
    hour, minute, second = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second"))
    micros = pl.col("fraction").str.pad_end(6, "0").str.head(6).cast(pl.Int64).fill_null(0)
    sign = pl.when(pl.col("offset").str.starts_with("-")).then(-1).otherwise(1)
    digits = pl.col("offset").str.replace_all("[^0-9]", "").str.pad_end(4, "0")  # "+05:30" -> "0530", "+05" -> "0500", "Z" -> "0000"
    offset = (sign * (digits.str.head(2).cast(pl.Int64) * 60 + digits.str.slice(2, 2).cast(pl.Int64))).fill_null(0)
    valid = (hour < 24) & (minute < 60) & (second < 60) & (offset.abs() < 24 * 60)
    elapsed = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros
    return pl.when(valid).then(pl.lit(day).cast(pl.Datetime("us")) + pl.duration(microseconds=elapsed))
