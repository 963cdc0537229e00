"""The column that plays the role time, as whole microseconds since 1970 UTC, however it was written; the user's doubts are errors.

Called by log.py alone. Epoch numbers have no unit of their own: it is taken from their magnitudes, on which all rows must agree.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NoReturn

import polars as pl

from shortlist.errors import DataError
from shortlist.files import SourceFrame, counted
from shortlist.instants import INSTANT, times_from_text

DAY_US = 86_400_000_000
EPOCH_UNITS = (  # name, smallest magnitude, microseconds in one: seconds up to the year 5138, the others from 1973 on
    ("seconds", 0, 1_000_000),
    ("milliseconds", 10**11, 1_000),
    ("microseconds", 10**14, 1),
    ("nanoseconds", 10**17, 0.001),
)
FLOAT32_WHOLE = 2**24  # above this a float32 skips whole numbers


def read_time(source: SourceFrame, name: str) -> tuple[pl.Series, dict[str, object]]:
    """The time column as Int64 microseconds since 1970 UTC, and what it was read as.

    Timestamps (naive means UTC), dates, ISO 8601 text, or epoch numbers whose unit all values' magnitudes agree on.
    Raises DataError naming the row of a null, a NaN, a text that is no time, or the rows that disagree.
    """
    series = source.column(name, "time")
    source.refuse(name, series.is_null(), "plays the role time and must have a value in every row", "fill it in or drop the row")
    read_as = "timestamps"
    if series.dtype == pl.String:
        parsed = times_from_text(series)
        if parsed is None:
            _explain_text_times(source, name, series)
        series = parsed
        read_as = "ISO 8601 text"
    if series.dtype in (pl.Datetime, pl.Date):
        _refuse_far_years(source, name, series)
    if isinstance(series.dtype, pl.Datetime):
        zone = "UTC" if series.dtype.time_zone else "no zone: taken as UTC"
        return _micros(series, series.dtype.time_unit), {"time_read_as": f"{read_as} ({zone})", **_finer(series)}
    if series.dtype == pl.Date:
        return series.cast(pl.Int64) * DAY_US, {"time_read_as": "dates (midnight UTC)"}
    if series.dtype.is_numeric():
        return _read_epoch(source, name, series)
    raise DataError(f"{source.source}: time column {name!r} must hold timestamps, dates or epoch numbers: got {series.dtype}; convert it")


def _micros(series: pl.Series, unit: str) -> pl.Series:
    ticks = series.cast(pl.Int64)
    return ticks * 1_000 if unit == "ms" else ticks // 1_000 if unit == "ns" else ticks


def _finer(series: pl.Series) -> dict[str, object]:
    """The count of times that had digits below a microsecond, which are cut off."""
    if series.dtype != pl.Datetime("ns", "*") and series.dtype != pl.Datetime("ns"):
        return {}
    finer = int((series.cast(pl.Int64) % 1_000 != 0).sum())
    return {"times_cut_to_microseconds": finer} if finer else {}


def _refuse_far_years(source: SourceFrame, name: str, series: pl.Series) -> None:
    """Microseconds and Python's own dates end before polars's timestamps do; the value itself cannot be shown."""
    rows = series.dt.year().is_between(1, 9999).fill_null(False).not_().arg_true()
    if len(rows):
        place = source.place(int(rows[0]))
        raise DataError(
            f"{place}: column {name!r} plays the role time and must lie in the years 1 to 9999: "
            f"got another ({counted(len(rows), 'such row')}); correct it"
        )


def _explain_text_times(source: SourceFrame, name: str, text: pl.Series) -> NoReturn:
    """Raise the DataError that says why the text is not a column of times."""
    source.refuse(
        name,
        ~text.str.contains(INSTANT.pattern),
        "plays the role time and must be ISO 8601",
        "write 2024-05-31 or 2024-05-31T09:30:00Z",
    )
    offset = text.str.extract(INSTANT.pattern, 6).is_not_null()
    if offset.any() and not offset.all():
        with_zone, without = (int(rows.arg_true()[0]) for rows in (offset, ~offset))
        raise DataError(
            f"column {name!r} plays the role time and must have a zone everywhere or nowhere: got {text[with_zone]!r} in "
            f"{source.place(with_zone)} and {text[without]!r} in {source.place(without)}; write one form (without a zone means UTC)"
        )
    row = bisect_left(range(1, len(text) + 1), True, key=lambda rows: times_from_text(text.head(rows)) is None)
    raise DataError(f"{source.place(row)}: column {name!r} plays the role time and must be a real time: got {text[row]!r}; correct it")


def _read_epoch(source: SourceFrame, name: str, series: pl.Series) -> tuple[pl.Series, dict[str, object]]:
    numbers = series if series.dtype.is_integer() else series.cast(pl.Float64)
    rule = "plays the role time and must hold finite numbers"
    if not series.dtype.is_integer():
        source.refuse(name, ~numbers.is_finite(), rule, "correct it or drop the row")
    size = numbers.cast(pl.Float64).abs()
    source.refuse(name, size >= 2**63, "plays the role time and must be an epoch in seconds to nanoseconds", "correct it")
    if series.dtype == pl.Float32 and (size >= FLOAT32_WHOLE).any():
        raise DataError(
            f"{source.source}: column {name!r} plays the role time as Float32, which cannot hold epoch times (1,700,000,000 comes in "
            "steps of 128); write it as Int64, Float64 or timestamps"
        )
    unit, per_unit = _epoch_unit(source, name, numbers, size)
    if unit == "seconds":
        _refuse_calendar_numbers(source, name, series)
    return _scaled(numbers, per_unit), {"time_read_as": f"epoch {unit}"}


def _epoch_unit(source: SourceFrame, name: str, numbers: pl.Series, size: pl.Series) -> tuple[str, float]:
    """The unit that the magnitudes of all values agree on."""
    found = [(unit, per_unit, rows) for unit, per_unit, rows in _rows_by_unit(size) if rows.any()]
    if len(found) > 1:
        rows = [(unit, int(rows.arg_true()[0])) for unit, _, rows in found]
        got = ", ".join(f"{numbers[row]} in {source.place(row)} ({unit})" for unit, row in rows)
        raise DataError(f"column {name!r} plays the role time and its numbers must be of one unit: got {got}; write timestamps")
    return found[0][0], found[0][1]


def _rows_by_unit(size: pl.Series) -> Iterator[tuple[str, float, pl.Series]]:
    ends = [smallest for _, smallest, _ in EPOCH_UNITS[1:]] + [2**64]
    for (unit, smallest, per_unit), end in zip(EPOCH_UNITS, ends, strict=True):
        yield unit, per_unit, (size >= smallest) & (size < end)


def _scaled(numbers: pl.Series, per_unit: float) -> pl.Series:
    whole = numbers.cast(pl.Int64)
    if not numbers.dtype.is_integer() and not (whole == numbers).all():
        return (numbers * per_unit).round().cast(pl.Int64)  # only fractions: a float product above 2**53 would not be exact
    return whole // 1_000 if per_unit < 1 else whole * int(per_unit)


def _refuse_calendar_numbers(source: SourceFrame, name: str, series: pl.Series) -> None:
    """20240531 is a date to people and 1970-08-23 to a clock."""
    if not series.dtype.is_integer() or not series.is_between(19_700_101, 21_001_231).all():
        return
    if series.cast(pl.String).str.to_date("%Y%m%d", strict=False).null_count() == 0:
        raise DataError(
            f"{source.source}: column {name!r} plays the role time and holds dates written as numbers ({series[0]}), which as epoch "
            "seconds are all in 1970; write dates (2024-05-31)"
        )
