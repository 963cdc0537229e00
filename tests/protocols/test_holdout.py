"""Random holdouts and the last event of each user, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_log import config_of, hourly, log_of

from shortlist.errors import DataError
from shortlist.protocols.configured import splits
from shortlist.protocols.holdout import holdout_split, leave_last_split
from shortlist.protocols.split import Split


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
            list(splits(log, config_of(log, protocol="holdout", holdout_fraction=fraction)))


def test_a_holdout_is_one_split_of_the_whole_log() -> None:
    log = log_of(user=[1, 2, 3] * 101, item=[1, 2, 3] * 101)
    (split,) = splits(log, config_of(log, protocol="holdout", holdout_fraction=0.3))
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
        list(splits(log, config_of(log, protocol="leave_last")))


def test_the_training_log_counts_what_is_held_out() -> None:
    log = log_of(user=[1, 1, 2], item=[1, 2, 3], time=[1, 2, 3])
    split = Split("s", log, np.array([False, True, False]), np.ones(3, bool))
    assert split.train_log.left_out == {"held out for testing": 1} and log.left_out == {}


# --- cold users and cold items


@pytest.mark.parametrize(("unit", "column", "values"), [("users", "user", 31), ("items", "item", 17)])
def test_a_held_out_user_or_item_is_held_out_with_all_its_events(unit: str, column: str, values: int) -> None:
    rng = np.random.default_rng(2)
    log = log_of(user=rng.integers(0, 31, 997), item=rng.integers(0, 17, 997))
    split = holdout_split(log, unit, 0.3, seed=1)  # type: ignore[arg-type]
    of = log.frame[column].to_numpy()
    held_out, kept = set(of[split.test].tolist()), set(of[~split.test].tolist())
    assert not held_out & kept and len(held_out | kept) == values
    assert 0 < len(held_out) < values
    assert not held_out & set(split.train_log.frame[column].to_list())
    assert split.name == f"30% of {unit}"
    assert split.test.tolist() != holdout_split(log, unit, 0.3, seed=2).test.tolist()  # type: ignore[arg-type]


def test_the_share_is_of_the_users_and_not_of_their_events() -> None:
    # user 0 has 5,000 of 7,000 events; of 2,001 users, a tenth is 200.1, with a standard deviation of 13.4
    log = log_of(user=[0] * 5000 + list(range(1, 2001)), item=[1] * 7000)
    split = holdout_split(log, "users", 0.1, seed=0)
    assert abs(log.frame["user"].to_numpy()[split.test & (log.frame["user"].to_numpy() > 0)].size - 200) < 60


@pytest.mark.parametrize("unit", ["users", "items"])
def test_who_is_held_out_does_not_depend_on_the_order_of_the_rows(unit: str) -> None:
    rng = np.random.default_rng(8)
    user, item = rng.integers(0, 13, 499), rng.integers(0, 11, 499)
    order = rng.permutation(499)
    plain = holdout_split(log_of(user=user, item=item), unit, 0.3, seed=2).test  # type: ignore[arg-type]
    assert holdout_split(log_of(user=user[order], item=item[order]), unit, 0.3, seed=2).test.tolist() == plain[order].tolist()  # type: ignore[arg-type]


def test_nobody_is_no_user_that_could_be_held_out() -> None:
    log = log_of(user=[None, 1, None, 2, 3] * 11, item=list(range(55)))
    split = holdout_split(log, "users", 0.999, seed=0)
    assert split.test.tolist() == log.frame["user"].is_not_null().to_list()


def test_users_and_items_remember_what_their_queries_may_know() -> None:
    log = log_of(user=[1, 2] * 50, item=list(range(20)) * 5, time=list(range(100)))
    users, items = (holdout_split(log, unit, 0.5, seed=0) for unit in ("users", "items"))
    assert users.remembered.all()  # a cold user's queries come with the history
    assert items.remembered.tolist() == (~items.test).tolist()


def test_users_cannot_be_held_out_of_a_log_without_any() -> None:
    for log in (log_of(seed=[1, 2], item=[1, 2]), log_of(user=[None, None], seed=[1, 2], item=[1, 2])):
        with pytest.raises(DataError, match='holdout = "users" needs events of users: got none in e; use "pairs", "items" or "rows"'):
            holdout_split(log, "users", 0.5, seed=0)
