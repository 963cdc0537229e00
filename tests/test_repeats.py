"""Whether a log chooses again, by hand: the share, who it is of, and what the settings become."""

from __future__ import annotations

from typing import Any

import pytest
from small_log import config_of, log_of

import shortlist.repeats
from shortlist.log import EventLog
from shortlist.repeats import repeats_of, with_seen_items

ASKERS = 60


def share_of(log: EventLog) -> float | None:
    return repeats_of(log).of_any


def log_with(repeats: int, **others: Any) -> EventLog:
    """60 users with three choices each, so 120 that could have been repeats, of which the first so many are."""
    user = [number for number in range(ASKERS) for _ in range(3)]
    item = [3 * number + place for number in range(ASKERS) for place in range(3)]
    for place in range(repeats):  # the third, then the second choice of a user becomes the first
        item[3 * (place % ASKERS) + 2 - place // ASKERS] = 3 * (place % ASKERS)
    return log_of(user=user, item=item, **others)


@pytest.mark.parametrize(("repeats", "share"), [(0, 0.0), (3, 3 / 120), (61, 61 / 120), (120, 1.0)])
def test_the_share_counts_choices_whose_user_had_chosen_before(repeats: int, share: float) -> None:
    assert share_of(log_with(repeats)) == pytest.approx(share)


def test_seeds_ask_where_no_users_are() -> None:
    log = log_with(30)
    assert share_of(log_of(seed=log.frame["user"], item=log.frame["item"])) == pytest.approx(30 / 120)
    assert share_of(log_of(user=log.frame["user"], seed=[0] * 180, item=log.frame["item"])) == pytest.approx(30 / 120)


def test_choices_of_nobody_are_no_evidence() -> None:
    user, item = [None] * 500 + [1] * 102, [7] * 500 + list(range(102))
    assert share_of(log_of(user=user, item=item)) == 0.0
    assert share_of(log_of(item=item)) is None
    assert share_of(log_of(user=[None] * 500, item=[7] * 500)) is None


def test_too_few_choices_prove_nothing() -> None:
    assert share_of(log_of(user=[1] * 100, item=range(100))) is None  # 99 could have been repeats
    assert share_of(log_of(user=[1] * 101, item=range(101))) == 0.0
    assert share_of(log_of(user=range(500), item=range(500))) is None  # nobody came twice
    assert share_of(log_of(user=[], item=[])) is None


def test_of_a_large_log_whole_askers_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist.repeats, "_SAMPLED", 700)
    user = [number for number in range(1000) for _ in range(7)]
    item = [place % 5 for _ in range(1000) for place in range(7)]  # two of seven again: of six that could be, two are
    assert share_of(log_of(user=user, item=item)) == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("repeats", "evaluate", "seen_items"),
    [
        (0, {}, "exclude"),
        (2, {}, "exclude"),  # 1.7 %
        (3, {}, "exclude_seed"),  # 2.5 %, none of them twice in a row
        (60, {}, "exclude_seed"),
        (61, {}, "exclude_seed"),  # one in a row, of 120
        (63, {}, "rank"),  # three
        (0, {"repeats": "drop"}, "exclude"),
        (0, {"repeats": "apart"}, "exclude_seed"),  # repeats that are looked at could not be hit
        (0, {"repeats": "keep"}, "exclude_seed"),
        (3, {"repeats": "drop"}, "exclude_seed"),
        (0, {"seen_items": "rank"}, "rank"),
        (60, {"seen_items": "exclude"}, "exclude"),
    ],
)
def test_lists_leave_out_what_is_known_where_nobody_chooses_twice(repeats: int, evaluate: dict[str, Any], seen_items: str) -> None:
    log = log_with(repeats, time=range(180))
    assert with_seen_items(config_of(log, **evaluate), log).evaluate.seen_items == seen_items


def test_a_log_that_says_nothing_of_it_ranks_everything() -> None:
    log = log_of(item=[1, 2], time=[0, 1])
    assert with_seen_items(config_of(log), log).evaluate.seen_items == "rank"


def test_the_seed_is_the_choice_before_where_no_column_names_it() -> None:
    log = log_with(120)  # every user chooses one item three times
    assert repeats_of(log) == (1.0, 1.0)
    user, item = [*range(ASKERS)] * 3, [*range(ASKERS)] * 3  # the same, but users take turns: what is before is the user's own
    assert repeats_of(log_of(user=user, item=item)) == (1.0, 1.0)
    assert repeats_of(log_of(user=[0] * 102, item=[0, 1] * 51)) == (100 / 101, 0.0)


def test_a_seed_column_is_what_is_looked_at() -> None:
    seeds = [0] * 50 + [1] * 50 + [None] * 20
    log = log_of(seed=seeds, item=[0] * 10 + [*range(100, 210)])
    assert repeats_of(log).of_seed == 10 / 100
    assert repeats_of(log_of(seed=seeds, user=[5] * 120, item=[0] * 10 + [*range(100, 210)])).of_seed == 10 / 100
