"""Instants as text: read as Python reads them, a whole column or not at all, and written back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.instants import as_text, times_from_text

STEADY = property_settings(deadline=None, derandomize=True)


@STEADY
@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_iso_text_is_read_as_pythons_own_parser_does(moment: datetime, offset: int) -> None:
    sign = "-" if offset < 0 else "+"
    text = f"{moment.isoformat()}{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    times = times_from_text(pl.Series([text]))
    assert times is not None and times.to_list() == [datetime.fromisoformat(text)]


@pytest.mark.parametrize(
    "text",
    [
        ["2024-02-30"],  # no such day
        ["2024-01-01T24:00"],
        ["2024-01-01T10:00+24:00"],
        ["2024-01-01", "yesterday"],
        ["2024-01-01T10:00Z", "2024-01-01T10:00"],  # a zone here and none there
        ["20240101"],
    ],
)
def test_one_value_that_is_no_time_makes_the_column_none(text: list[str]) -> None:
    assert times_from_text(pl.Series(text)) is None


def test_days_alone_stay_days_and_missing_values_stay_missing() -> None:
    days = times_from_text(pl.Series(["2024-02-29", None]))
    assert days is not None and days.to_list() == [date(2024, 2, 29), None]
    mixed = times_from_text(pl.Series(["2024-02-29", "2024-02-29 01:30", None]))
    assert mixed is not None and mixed.to_list() == [datetime(2024, 2, 29), datetime(2024, 2, 29, 1, 30), None]


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (86_400_000_000 + 1_500_000, "1970-01-02T00:00:01.500000+00:00"),  # a day and 1.5 s
        (2**63 - 1, "9223372036854775807 microseconds since 1970"),  # the year 294247: Python's dates end in 9999
    ],
)
def test_microseconds_are_written_as_iso_text(time_us: int, text: str) -> None:
    assert as_text(time_us) == text


@STEADY
@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_what_is_written_is_read_back(moment: datetime) -> None:
    time_us = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    times = times_from_text(pl.Series([as_text(time_us)]))
    assert times is not None and times.to_list() == [moment.replace(tzinfo=UTC)]
