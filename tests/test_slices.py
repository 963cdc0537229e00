"""Bands of popularity and age, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from small_evaluation import dataset_of, examples_of

from shortlist.catalogue import Catalogue
from shortlist.files import Places
from shortlist.log import EventLog
from shortlist.slices import NEVER, item_age, popularity_band, slices_of, slices_of_age, slices_of_unseen
from shortlist.times import DAY_US


def test_head_mid_and_tail_by_hand() -> None:
    # 12 choices: items 3, 1, 0, 4, 5 were chosen 4, 3, 2, 2, 1 times, item 2 never.
    # Above them stand 0, 4, 7, 9, 11 choices: 0 < 4 head; 4 <= 4, 7 < 8 mid; 9, 11 tail.
    slices = slices_of(dataset_of([2, 3, 0, 4, 2, 1], [0]), examples_of([0, 1, 2, 3, 4, 5]))
    bands = {name: np.flatnonzero(mask).tolist() for name, mask in slices.items() if name.endswith("items")}
    assert bands == {"head items": [3], "mid items": [0, 1], "tail items": [4, 5], "unseen items": [2]}


def test_an_item_on_the_border_belongs_to_the_higher_band() -> None:
    # 3 choices; above stand 0, 1, 2 of them; the first begins in the head and ends on its border
    slices = slices_of(dataset_of([1, 1, 1], [0]), examples_of([0, 1, 2]))
    assert [np.flatnonzero(slices[name]).tolist() for name in ("head items", "mid items", "tail items")] == [[0], [1], [2]]
    # one item drew nearly all: it is head alone, and no item is mid
    slices = slices_of(dataset_of([9, 1], [0]), examples_of([0, 1]))
    assert [np.flatnonzero(slices[name]).tolist() for name in ("head items", "mid items", "tail items")] == [[0], [], [1]]


def test_every_query_is_in_one_band_and_one_kind_of_user() -> None:
    rng = np.random.default_rng(6)
    dataset = dataset_of(rng.integers(0, 5, 53).tolist(), [1, 2, 3])
    slices = slices_of(dataset, examples_of(rng.integers(0, 53, 211).tolist(), askers=rng.integers(-1, 6, 211).tolist()))
    assert (np.sum([mask for name, mask in slices.items() if name.endswith("items")], axis=0) == 1).all()
    deciles = np.sum([mask for name, mask in slices.items() if name.startswith("popularity decile")], axis=0)
    assert (deciles == ~slices["unseen items"]).all()
    assert (slices["known users"] ^ slices["unseen users"]).all()


def test_nobody_is_not_a_known_user() -> None:
    slices = slices_of(dataset_of([1], [5, -1]), examples_of([0, 0, 0], askers=[5, 6, -1]))
    assert (slices["known users"].tolist(), slices["unseen users"].tolist()) == ([True, False, False], [False, True, True])


def test_deciles_are_tenths_of_the_choices_and_not_of_the_items() -> None:
    # 20 choices: item 3 drew 9, items 0 and 4 drew 4 each, 1 drew 2, 2 drew 1, 5 none.
    # Above them: 0, 9, 13, 17, 19 of 20, in tenths 0, 4.5, 6.5, 8.5, 9.5
    assert popularity_band(np.array([4, 2, 1, 9, 4, 0]), 10).tolist() == [5, 9, 10, 1, 7, 0]
    assert popularity_band(np.zeros(3, np.int64), 10).tolist() == [0, 0, 0]


def test_ten_equal_items_are_one_decile_each_exactly() -> None:
    assert popularity_band(np.full(10, 7), 10).tolist() == list(range(1, 11))
    assert popularity_band(np.full(30, 1), 10).tolist() == np.repeat(np.arange(1, 11), 3).tolist()


def log_of(item: list[int], time: list[int]) -> EventLog:
    frame = pl.DataFrame({"item": item, "time": time})
    return EventLog(frame, Places(("e",), (0,)), "e", {})


def test_an_item_is_as_old_as_its_first_event_before_the_query() -> None:
    items = Catalogue(pl.DataFrame({"item": [10, 20, 30, 40]}), "item", "items")
    log = log_of([20, 10, 20, 10, 30, 99], [3, 5, 6, 8, 8, 9])  # 99 is no candidate
    examples = replace(examples_of([0, 0, 0, 1, 2, 3, 1]), time=np.array([8, 5, 6, 6, 8, 9, 2]))
    # item 10 (first at 5): asked at 8 -> 3; at 5 its own first event -> never; at 6 -> 1. 20 (first at 3): at 6 -> 3.
    # 30: first at 8, asked at 8. 40: no event. 20 asked at 2, before its first.
    age = item_age(log, items, examples)
    assert age is not None and age.tolist() == [3, NEVER, 1, 3, NEVER, NEVER, NEVER]


def test_a_log_without_times_has_no_ages() -> None:
    log = EventLog(pl.DataFrame({"item": [1], "user": [1]}), Places(("e",), (0,)), "e", {})
    assert item_age(log, dataset_of([1], [0]).items, examples_of([0])) is None


def test_every_age_is_in_one_band() -> None:
    ages = np.array([NEVER, 1, DAY_US - 1, DAY_US, 7 * DAY_US - 1, 7 * DAY_US, 30 * DAY_US, 365 * DAY_US - 1, 365 * DAY_US, 10**17])
    bands = slices_of_age(ages)
    assert np.sum(list(bands.values()), axis=0).tolist() == [1] * len(ages)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in bands.items()} == {
        "item age under a day": [1, 2],
        "item age 1 to 7 days": [3, 4],
        "item age 7 to 30 days": [5],
        "item age 30 to 365 days": [6, 7],
        "item age 365 days or more": [8, 9],
        "item never chosen before": [0],
    }


def test_an_item_that_nobody_chose_is_told_from_one_that_training_did_not_have() -> None:
    dataset = dataset_of([2, 0, 0, 1], [0])  # items 0, 10, 20, 30
    trained_on = Catalogue(pl.DataFrame({"item": [0, 10, 25]}), "item", "items")
    slices = slices_of_unseen(dataset, examples_of([0, 1, 2, 3]), trained_on)
    # item 30 is new to training's corpus and yet chosen there: an item of the log alone; it is not unseen
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()} == {
        "unseen items: never chosen": [1],
        "unseen items: new since training": [2],
    }
