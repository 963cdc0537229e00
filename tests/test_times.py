"""The column of times: microseconds since 1970 UTC however they were written, and every doubt an error that names its row."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.errors import DataError
from shortlist.files import Places, SourceFrame
from shortlist.times import read_time

STEADY = property_settings(deadline=None, derandomize=True)
START = datetime(2024, 3, 1, 12, 0, 0)
START_S = 1_709_294_400  # 2024-03-01 12:00:00 UTC: 19783 days * 86400 + 43200


def source_of(values: pl.Series) -> SourceFrame:
    return SourceFrame(values.alias("t").to_frame(), Places(("e.parquet",), (0,)), "events", "e.parquet")


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        (pl.Series([START, START + timedelta(seconds=1)], dtype=pl.Datetime("ms")), "timestamps (no zone: taken as UTC)"),
        (pl.Series([START, START + timedelta(seconds=1)], dtype=pl.Datetime("ns")), "timestamps (no zone: taken as UTC)"),
        (pl.Series([START, START + timedelta(seconds=1)]).dt.replace_time_zone("UTC"), "timestamps (UTC)"),
        (pl.Series([START_S, START_S + 1]), "epoch seconds"),
        (pl.Series([START_S, START_S + 1], dtype=pl.UInt32), "epoch seconds"),
        (pl.Series([START_S, START_S + 1], dtype=pl.Float64), "epoch seconds"),
        (pl.Series([START_S * 10**3, START_S * 10**3 + 1_000]), "epoch milliseconds"),
        (pl.Series([START_S * 10**6, START_S * 10**6 + 10**6]), "epoch microseconds"),
        (pl.Series([START_S * 10**9, START_S * 10**9 + 10**9]), "epoch nanoseconds"),
        (pl.Series(["2024-03-01 12:00:00", "2024-03-01T12:00:01"]), "ISO 8601 text (no zone: taken as UTC)"),
        (pl.Series(["2024-03-01T12:00:00Z", "2024-03-01T14:00:01+02:00"]), "ISO 8601 text (UTC)"),
    ],
)
def test_one_instant_reads_the_same_however_it_is_written(values: pl.Series, read_as: str) -> None:
    times, facts = read_time(source_of(values), "t")
    assert times.dtype == pl.Int64
    assert times.to_list() == [START_S * 1_000_000, (START_S + 1) * 1_000_000]
    assert facts == {"time_read_as": read_as}


def test_dates_are_midnight_utc_and_zones_are_converted() -> None:
    times, _ = read_time(source_of(pl.Series([date(2024, 3, 1), date(1969, 12, 31)])), "t")
    assert times.to_list() == [(START_S - 43_200) * 1_000_000, -86_400_000_000]
    noon_in_delhi = pl.Series([START]).dt.replace_time_zone("Asia/Kolkata")  # 5:30 ahead
    assert read_time(source_of(noon_in_delhi), "t")[0].to_list() == [(START_S - 19_800) * 1_000_000]


@STEADY
@given(st.lists(st.integers(10**11, 10**14 - 1), min_size=1, max_size=11))
def test_epoch_milliseconds_round_trip_exactly_as_integers_and_floats(times: list[int]) -> None:
    for dtype in (pl.Int64, pl.Float64):
        assert read_time(source_of(pl.Series(times, dtype=dtype)), "t")[0].to_list() == [time * 1_000 for time in times]


def test_fractions_of_a_second_are_kept_to_the_microsecond_and_finer_digits_are_counted() -> None:
    assert read_time(source_of(pl.Series([START_S + 0.25])), "t")[0].to_list() == [START_S * 1_000_000 + 250_000]
    fine = pl.Series([START_S * 10**9 + 1_999, START_S * 10**9 + 2_000]).cast(pl.Datetime("ns"))
    times, facts = read_time(source_of(fine), "t")
    assert times.to_list() == [START_S * 1_000_000 + 1, START_S * 1_000_000 + 2]
    assert facts["times_cut_to_microseconds"] == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pl.Series([1, None]), "e.parquet row 2: column 't' plays the role time and must have a value in every row: got nothing"),
        (pl.Series([1.0, float("nan")]), "e.parquet row 2: column 't' plays the role time and must hold finite numbers: got nan"),
        (pl.Series([1.0, 2.0, float("inf")]), "e.parquet row 3: column 't' plays the role time and must hold finite numbers: got inf"),
        (
            pl.Series([START_S, START_S + 1, START_S * 1000]),
            "must be of one unit: got 1709294400 in e.parquet row 1 (seconds), 1709294400000 in e.parquet row 3 (milliseconds)",
        ),
        (pl.Series([START_S], dtype=pl.Float32), "as Float32, which cannot hold epoch times"),
        (
            pl.Series([0, 2**62]).cast(pl.Datetime("ms")),
            "e.parquet row 2: column 't' plays the role time and must lie in the years 1 to 9999",
        ),
        (pl.Series([20240531, 20240601]), "holds dates written as numbers (20240531)"),
        (pl.Series([True]), "must hold timestamps, dates or epoch numbers: got Boolean"),
        (
            pl.Series(["2024-03-01", "2024-03-01T12:00Z", "2024-03-02"]),
            "got '2024-03-01T12:00Z' in e.parquet row 2 and '2024-03-01' in e.parquet row 1",
        ),
        (pl.Series(["2024-03-01", "01/03/2024"]), "e.parquet row 2: column 't' plays the role time and must be ISO 8601: got '01/03/2024'"),
        (pl.Series(["2024-03-01", "2024-02-29", "2023-02-29"]), "e.parquet row 3: column 't' plays the role time and must be a real time"),
    ],
)
def test_a_time_that_is_none_is_refused_by_row(values: pl.Series, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_time(source_of(values), "t")
    assert said in str(caught.value)
