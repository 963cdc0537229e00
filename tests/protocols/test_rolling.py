"""Windows of days, by hand."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_log import DAY, at, config_of, hourly, log_of

from shortlist.errors import DataError
from shortlist.log import EventLog
from shortlist.protocols.configured import splits
from shortlist.protocols.days import days_of
from shortlist.protocols.rolling import latest_window, rolling_days, rolling_split


def test_seven_shifts_test_the_last_seven_days_each_after_its_own_window() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 20)  # the first to the twentieth of January
    found = list(splits(log, config_of(log, protocol="rolling", train_days=5, test_days=1, shifts=7)))
    assert [split.name for split in found] == [f"2024-01-{day}" for day in range(14, 21)]
    for split, day in zip(found, range(14, 21), strict=True):
        times = split.log.frame["time"].to_numpy()
        train, test = times[~split.test], times[split.test]
        assert (len(train), len(test)) == (5 * 24, 24)
        first_tested = at(f"2024-01-{day}T00:00:00")
        assert (train.min(), train.max()) == (first_tested - 5 * DAY, first_tested - 3_600_000_000)
        assert (test.min(), test.max()) == (first_tested, first_tested + DAY - 3_600_000_000)
        assert train.max() < test.min()
        assert split.remembered.all()  # a query at noon knows what was chosen at eleven
        assert split.train_log.frame["time"].to_list() == train.tolist()


def test_a_day_begins_at_midnight_utc_to_the_microsecond() -> None:
    edge = at("2024-03-10T00:00:00")
    log = log_of(item=[0, 1, 2, 3, 4, 5], time=[edge - DAY - 1, edge - DAY, edge - 1, edge, edge + DAY - 1, edge + DAY], seed=[0] * 6)
    split = rolling_split(log, date(2024, 3, 10), train_days=1, test_days=1)
    assert split.log.frame["item"].to_list() == [1, 2, 3, 4]
    assert split.test.tolist() == [False, False, True, True]


def test_the_last_shift_ends_with_the_last_day_of_the_log_or_with_the_day_that_is_set() -> None:
    log = log_of(item=[1, 2], user=[1, 1], time=[at("2024-02-01T05:00:00"), at("2024-02-29T23:59:59")])
    assert rolling_days(log, config_of(log, shifts=3)) == [date(2024, 2, 27), date(2024, 2, 28), date(2024, 2, 29)]
    assert rolling_days(log, config_of(log, shifts=2, test_days=3)) == [date(2024, 2, 26), date(2024, 2, 27)]
    assert rolling_days(log, config_of(log, shifts=1, last_day=date(2024, 2, 10))) == [date(2024, 2, 10)]


def test_times_before_1970_have_days_too() -> None:
    log = log_of(item=[1, 2], user=[1, 1], time=[-DAY - 1, -1])
    assert rolling_days(log, config_of(log, shifts=1)) == [date(1969, 12, 31)]
    assert rolling_split(log, date(1969, 12, 31), 1, 1).test.tolist() == [False, True]  # a microsecond before the day


def test_longer_tests_overlap_but_never_reach_into_their_own_training() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 12)
    for split in splits(log, config_of(log, train_days=3, test_days=2, shifts=4)):
        times = split.log.frame["time"].to_numpy()
        assert times[~split.test].max() < times[split.test].min()
        assert (int(split.test.sum()), int((~split.test).sum())) == (48, 72)


@pytest.mark.parametrize(
    ("train_days", "last_day", "got"), [(2, date(2024, 1, 1), "0 to learn from and 24"), (2, date(2024, 1, 6), "0 to test")]
)
def test_a_window_that_is_empty_on_a_side_is_an_error_that_names_the_split(train_days: int, last_day: date, got: str) -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 4)
    config = config_of(log, train_days=train_days, shifts=1, last_day=last_day)
    with pytest.raises(
        DataError, match=rf"split {last_day} needs events on both sides: got .*{got}.*; check \[evaluate\] train_days, test_days"
    ):
        list(splits(log, config))


def test_splits_come_one_at_a_time_oldest_first() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 6)
    days = [datetime.fromisoformat(split.name) for split in splits(log, config_of(log, train_days=2, shifts=3))]
    assert days == [days[0] + timedelta(days=shift) for shift in range(3)]


def test_the_window_to_publish_from_ends_with_the_last_day() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 12)
    window = latest_window(log, config_of(log, train_days=3, shifts=2))
    assert (window.frame["time"].min(), window.frame["time"].max()) == (at("2024-01-10T00:00:00"), at("2024-01-12T23:00:00"))
    earlier = latest_window(log, config_of(log, train_days=3, shifts=2, last_day=date(2024, 1, 7)))
    assert (earlier.frame["time"].min(), earlier.frame["time"].max()) == (at("2024-01-05T00:00:00"), at("2024-01-07T23:00:00"))
    assert latest_window(log, config_of(log, protocol="holdout")) is log


# --- days with events


def shop(*days: int) -> EventLog:
    """Two events at 9 and 21 o'clock on these days of January 2024; user and item are the day."""
    times = [at(f"2024-01-{day:02d}T{hour:02d}:00:00") for day in days for hour in (9, 21)]
    both = [day for day in days for _ in range(2)]
    return log_of(user=both, item=both, time=times)


# the shop is closed on 6, 7 (a weekend), 10 and 13, 14
OPEN = shop(2, 3, 4, 5, 8, 9, 11, 12, 15)


def test_active_days_skip_the_days_on_which_the_shop_is_closed() -> None:
    config = config_of(OPEN, days="active", train_days=3, test_days=1, shifts=4)
    found = list(splits(OPEN, config))
    assert [split.name for split in found] == ["2024-01-09", "2024-01-11", "2024-01-12", "2024-01-15"]
    learned = [sorted(set(split.train_log.frame["item"])) for split in found]
    assert learned == [[4, 5, 8], [5, 8, 9], [8, 9, 11], [9, 11, 12]]
    tested = [sorted(set(split.log.frame["item"].filter(pl.Series(split.test)))) for split in found]
    assert tested == [[9], [11], [12], [15]]


def test_active_test_days_may_have_closed_days_between_them() -> None:
    config = config_of(OPEN, days="active", train_days=2, test_days=2, shifts=2)
    found = list(splits(OPEN, config))
    assert [split.name for split in found] == ["2024-01-11", "2024-01-12"]
    assert [sorted(set(split.train_log.frame["item"])) for split in found] == [[8, 9], [9, 11]]
    assert [sorted(set(split.log.frame["item"].filter(pl.Series(split.test)))) for split in found] == [[11, 12], [12, 15]]


def test_where_no_day_is_empty_active_days_are_calendar_days() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 9)
    by_count = [list(splits(log, config_of(log, days=count, train_days=4, test_days=2, shifts=3))) for count in ("calendar", "active")]
    for calendar, active in zip(*by_count, strict=True):
        assert calendar.name == active.name and calendar.test.tolist() == active.test.tolist()
        assert calendar.log.frame.equals(active.log.frame)


@given(days=st.sets(st.integers(1, 28), min_size=1), train_days=st.integers(1, 5), test_days=st.integers(1, 3), shifts=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_active_windows_have_as_many_days_as_asked_or_say_why_not(days: set[int], train_days: int, test_days: int, shifts: int) -> None:
    log = shop(*sorted(days))
    config = config_of(log, days="active", train_days=train_days, test_days=test_days, shifts=shifts)
    if len(days) < train_days + test_days + shifts - 1:
        with pytest.raises(DataError, match="days with events are needed"):
            list(splits(log, config))
        return
    found = list(splits(log, config))
    assert len(found) == shifts
    for shift, split in enumerate(reversed(found)):
        window = sorted(days)[len(days) - shift - test_days - train_days : len(days) - shift]
        assert sorted(set(split.log.frame["item"])) == window
        assert sorted(set(split.train_log.frame["item"])) == window[:train_days]


def test_the_last_day_may_be_one_on_which_the_shop_is_closed() -> None:
    config = config_of(OPEN, days="active", train_days=1, shifts=2, last_day=date(2024, 1, 14))
    assert rolling_days(OPEN, config) == [date(2024, 1, 11), date(2024, 1, 12)]
    assert sorted(set(latest_window(OPEN, config).frame["item"])) == [12]
    config = config_of(OPEN, days="active", train_days=3, shifts=1)
    assert sorted(set(latest_window(OPEN, config).frame["item"])) == [11, 12, 15]


def test_an_empty_day_is_an_error_that_names_it_and_the_way_out() -> None:
    config = config_of(OPEN, train_days=3, shifts=3)
    with pytest.raises(DataError, match=r'0 to test; .* No event is of 2024-01-13: if the shop was closed, set days = "active"'):
        list(splits(OPEN, config))
    config = config_of(OPEN, train_days=3, test_days=2, shifts=1, last_day=date(2024, 1, 7))
    with pytest.raises(DataError, match="No event is of 2024-01-06 to 2024-01-07: if"):
        list(splits(OPEN, config))


def test_a_window_that_is_empty_behind_its_test_day_says_nothing_of_closed_shops() -> None:
    with pytest.raises(DataError, match="got 0 to learn from and 2 to test") as failure:
        list(splits(OPEN, config_of(OPEN, train_days=2, shifts=1, last_day=date(2024, 1, 2))))
    assert "active" not in str(failure.value)


def test_too_few_days_with_events_are_counted_in_the_error() -> None:
    with pytest.raises(DataError, match=r"7 days with events are needed up to 2024-01-08: got 5 in e; lower train_days, .* \"calendar\""):
        rolling_split(OPEN, date(2024, 1, 9), train_days=7, test_days=1, days="active")
    with pytest.raises(DataError, match="3 days with events are needed from 2024-01-12 on: got 2 in e"):
        rolling_split(OPEN, date(2024, 1, 12), train_days=1, test_days=3, days="active")
    with pytest.raises(DataError, match="12 days with events are needed up to 2024-01-15: got 9"):
        rolling_days(OPEN, config_of(OPEN, days="active", train_days=1, shifts=12))
    with pytest.raises(DataError, match="10 days with events are needed up to 2024-01-15: got 9"):
        latest_window(OPEN, config_of(OPEN, days="active", train_days=10))


def test_days_before_1970_are_days() -> None:
    assert days_of(log_of(item=[1, 2, 3], user=[1, 1, 1], time=[-DAY - 1, -1, 0]), "active").active == [
        *(date(1969, 12, 30), date(1969, 12, 31), date(1970, 1, 1))
    ]
