"""What is learned from and what is tested, by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.config import Config, config_from_tree
from shortlist.errors import DataError
from shortlist.files import Places
from shortlist.log import EventLog
from shortlist.protocols import Split, holdout_split, leave_last_split, rolling_days, rolling_split, splits

DAY = 86_400_000_000


def at(text: str) -> int:
    """Microseconds since 1970 of an instant in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def log_of(**columns: Any) -> EventLog:
    frame = pl.DataFrame(columns)
    return EventLog(frame, Places(("e",), (0,)), "e", {name: name for name in frame.columns})


def settings(log: EventLog, **evaluate: Any) -> Config:
    columns = {role: role for role in ("item", "user", "time", "seed") if role in log.frame.columns}
    return config_from_tree({"data": {"events": "e"}, "columns": columns, "evaluate": evaluate})


def hourly(first: str, hours: int) -> EventLog:
    """One event an hour, of user (hour mod 7) and item (hour mod 11)."""
    start = at(first)
    return log_of(
        user=[hour % 7 for hour in range(hours)],
        item=[hour % 11 for hour in range(hours)],
        time=[start + hour * 3_600_000_000 for hour in range(hours)],
    )


# --- rolling windows


def test_seven_shifts_test_the_last_seven_days_each_after_its_own_window() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 20)  # the first to the twentieth of January
    found = list(splits(log, settings(log, protocol="rolling", train_days=5, test_days=1, shifts=7)))
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
    assert rolling_days(log, settings(log, shifts=3)) == [date(2024, 2, 27), date(2024, 2, 28), date(2024, 2, 29)]
    assert rolling_days(log, settings(log, shifts=2, test_days=3)) == [date(2024, 2, 26), date(2024, 2, 27)]
    assert rolling_days(log, settings(log, shifts=1, last_day=date(2024, 2, 10))) == [date(2024, 2, 10)]


def test_times_before_1970_have_days_too() -> None:
    log = log_of(item=[1, 2], user=[1, 1], time=[-DAY - 1, -1])
    assert rolling_days(log, settings(log, shifts=1)) == [date(1969, 12, 31)]
    assert rolling_split(log, date(1969, 12, 31), 1, 1).test.tolist() == [False, True]  # a microsecond before the day


def test_longer_tests_overlap_but_never_reach_into_their_own_training() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 12)
    for split in splits(log, settings(log, train_days=3, test_days=2, shifts=4)):
        times = split.log.frame["time"].to_numpy()
        assert times[~split.test].max() < times[split.test].min()
        assert (int(split.test.sum()), int((~split.test).sum())) == (48, 72)


@pytest.mark.parametrize(
    ("train_days", "last_day", "got"), [(2, date(2024, 1, 1), "0 to learn from and 24"), (2, date(2024, 1, 6), "0 to test")]
)
def test_a_window_that_is_empty_on_a_side_is_an_error_that_names_the_split(train_days: int, last_day: date, got: str) -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 4)
    config = settings(log, train_days=train_days, shifts=1, last_day=last_day)
    with pytest.raises(
        DataError, match=rf"split {last_day} needs events on both sides: got .*{got}.*; check \[evaluate\] train_days, test_days"
    ):
        list(splits(log, config))


# --- holdout


def test_a_share_of_rows_is_held_out_the_same_for_the_same_seed() -> None:
    log = hourly("2024-01-01T00:00:00", 10_007)
    one, again, other = (holdout_split(log, "rows", 0.1, seed) for seed in (4, 4, 5))
    # 1000.7 expected, standard deviation sqrt(10007 * .1 * .9) = 30
    assert abs(int(one.test.sum()) - 1001) < 150
    assert one.test.tolist() == again.test.tolist() != other.test.tolist()
    assert one.remembered.tolist() == (~one.test).tolist()
    assert one.name == "10% of rows"


@pytest.mark.parametrize("asker", ["user", "seed"])
def test_all_rows_of_a_pair_are_on_one_side(asker: str) -> None:
    rng = np.random.default_rng(2)
    who, item = rng.integers(0, 31, 5003), rng.integers(0, 17, 5003)
    log = log_of(**{asker: [None if who_ == 30 else f"u{who_}" for who_ in who]}, item=item)
    split = holdout_split(log, "pairs", 0.2, seed=0)
    sides: dict[tuple[int, int], set[bool]] = {}
    for pair_who, pair_item, tested in zip(who, item, split.test, strict=True):
        sides.setdefault((int(pair_who), int(pair_item)), set()).add(bool(tested))
    assert all(len(side) == 1 for side in sides.values())
    held_out = sum(side == {True} for side in sides.values())
    # 31 * 17 = 527 pairs, 105 expected, standard deviation 9.2
    assert len(sides) == 527 and abs(held_out - 105) < 46
    assert split.test.tolist() == holdout_split(log, "pairs", 0.2, seed=0).test.tolist()
    assert split.test.tolist() != holdout_split(log, "pairs", 0.2, seed=1).test.tolist()


def test_pairs_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(8)
    user, item = rng.integers(0, 13, 499), rng.integers(0, 11, 499)
    order = rng.permutation(499)
    plain = holdout_split(log_of(user=user, item=item), "pairs", 0.3, seed=2).test
    assert holdout_split(log_of(user=user[order], item=item[order]), "pairs", 0.3, seed=2).test.tolist() == plain[order].tolist()


def test_pairs_need_somebody_to_pair_with() -> None:
    with pytest.raises(DataError, match='holdout = "pairs" needs a user or a seed column to pair items with: got neither; use "rows"'):
        holdout_split(log_of(item=[1, 2], day=["x", "y"]), "pairs", 0.5, seed=0)


def test_a_holdout_of_nothing_or_of_everything_is_an_error() -> None:
    log = log_of(user=[1, 2, 3], item=[1, 2, 3])
    for fraction in (1e-9, 1 - 1e-9):
        with pytest.raises(
            DataError, match=r"needs events on both sides: got \d to learn from and \d to test; check \[evaluate\] holdout_fraction"
        ):
            list(splits(log, settings(log, protocol="holdout", holdout_fraction=fraction)))


def test_a_holdout_is_one_split_of_the_whole_log() -> None:
    log = log_of(user=[1, 2, 3] * 101, item=[1, 2, 3] * 101)
    (split,) = splits(log, settings(log, protocol="holdout", holdout_fraction=0.3))
    assert len(split.log) == 303 and len(split.train_log) + int(split.test.sum()) == 303


# --- the last event of each user


def test_the_last_event_of_every_user_with_two_is_tested() -> None:
    log = log_of(user=["u", "v", "u", None, "w", "v", None, "u"], item=list(range(8)), time=list(range(8)))
    split = leave_last_split(log)
    # u: 0, 2, 7; v: 1, 5; w has one event; nobody's events are learned from
    assert np.flatnonzero(split.test).tolist() == [5, 7]
    assert split.remembered.all()
    assert split.train_log.frame["item"].to_list() == [0, 1, 2, 3, 4, 6]


def test_of_equal_times_the_last_in_the_file_is_the_last() -> None:
    assert leave_last_split(log_of(user=[1, 1, 1], item=[5, 6, 7], time=[3, 3, 3])).test.tolist() == [False, False, True]


def test_without_a_second_event_of_anybody_nothing_can_be_tested() -> None:
    log = log_of(user=[1, 2, 3], item=[1, 2, 3], time=[1, 2, 3])
    with pytest.raises(DataError, match=r"got 3 to learn from and 0 to test; check .* no user may have a second event"):
        list(splits(log, settings(log, protocol="leave_last")))


def test_the_training_log_counts_what_is_held_out() -> None:
    log = log_of(user=[1, 1, 2], item=[1, 2, 3], time=[1, 2, 3])
    split = Split("s", log, np.array([False, True, False]), np.ones(3, bool))
    assert split.train_log.left_out == {"held out for testing": 1} and log.left_out == {}


def test_splits_come_one_at_a_time_oldest_first() -> None:
    log = hourly("2024-01-01T00:00:00", 24 * 6)
    days = [datetime.fromisoformat(split.name) for split in splits(log, settings(log, train_days=2, shifts=3))]
    assert days == [days[0] + timedelta(days=shift) for shift in range(3)]
