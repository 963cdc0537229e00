"""Shares of items, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.frequency import exact_frequency


def test_a_share_is_the_count_over_all_counts() -> None:
    frequency = exact_frequency(np.array([3, 0, 1, 4]))
    assert frequency.q.tolist() == [0.375, 0.0, 0.125, 0.5]  # of 8
    assert len(frequency) == 4


def test_an_item_four_times_as_frequent_has_four_times_the_share() -> None:
    # F1 of the pitfalls: counts must not saturate
    q = exact_frequency(np.array([4, 1, 1_000_000])).q
    assert q[0] == 4 * q[1]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50).filter(any))
def test_shares_add_up_to_one_and_follow_their_items_when_these_are_renumbered(counts: list[int]) -> None:
    order = np.random.default_rng(len(counts)).permutation(len(counts))
    q = exact_frequency(np.array(counts)).q
    assert q.sum() == pytest.approx(1.0)
    assert exact_frequency(np.array(counts)[order]).q.tolist() == q[order].tolist()  # F5: no meaning in the numbering


@pytest.mark.parametrize("counts", [[], [0, 0, 0]])
def test_without_a_positive_there_are_no_shares(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one positive: got none"):
        exact_frequency(np.array(counts, np.int64))
