"""What never-chosen items account for: counted, ranked without, and where they stand, by hand numbers."""

from __future__ import annotations

import numpy as np
import pytest
from small_evaluation import Scores, examples_of

from shortlist.study.never_chosen import ChosenOnly, CountedLists, mean_place

NEVER = np.array([False, True, False, True, False])
SCORES = Scores(np.array([0.5, 0.4, 0.3, 0.2, 0.1], np.float32))  # ranks the rows 0, 1, 2, 3, 4
QUERIES = examples_of([0, 2, 4]).queries


def test_never_chosen_items_among_the_first_k_are_counted() -> None:
    counted = CountedLists(SCORES, NEVER, 3)
    rows, _ = counted.retrieve(QUERIES, 5)
    assert rows[0].tolist() == [0, 1, 2, 3, 4]  # the answer passes unchanged
    assert counted.share == pytest.approx(1 / 3)  # rows 0, 1, 2: one of three
    assert CountedLists(SCORES, NEVER, 5).name == "fixed"


def test_padding_is_no_item() -> None:
    counted = CountedLists(SCORES, NEVER, 7)
    counted.retrieve(QUERIES, 7, [np.array([0, 2, 4])] * 3)  # only the rows 1 and 3 are left, and both were never chosen
    assert counted.share == 1.0


def test_among_chosen_items_the_others_close_up_and_seen_ones_stay_out() -> None:
    only = ChosenOnly(SCORES, NEVER)
    rows, scores = only.retrieve(QUERIES, 4)
    assert rows[0].tolist() == [0, 2, 4, -1] and np.isneginf(scores[0, 3])
    rows, _ = only.retrieve(QUERIES, 4, [np.array([2]), np.array([], np.int64), np.array([-1, 0])])
    assert rows.tolist() == [[0, 4, -1, -1], [0, 2, 4, -1], [2, 4, -1, -1]]


def test_the_mean_place_is_0_on_top_and_1_at_the_end() -> None:
    # row 1 has one of three chosen items above it, row 3 two: (1/3 + 2/3) / 2
    assert mean_place(SCORES, QUERIES, NEVER) == pytest.approx(0.5)
    assert mean_place(Scores(np.array([1, 9, 2, 8, 3], np.float32)), QUERIES, NEVER) == 0.0
    assert mean_place(Scores(np.array([7, 0, 8, 1, 9], np.float32)), QUERIES, NEVER) == 1.0


@pytest.mark.parametrize("never", [np.zeros(5, bool), np.ones(5, bool)])
def test_there_is_no_place_where_all_or_none_were_chosen(never: np.ndarray) -> None:
    assert mean_place(SCORES, QUERIES, never) is None
