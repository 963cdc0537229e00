"""What a query shows of popularity, by hand; one query has the bits that it has among many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.features.content_codes import weights_by_age
from shortlist.features.shown_popularity import popularity_factor, popularity_factor_of_one, shown_popularity

BIAS = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def test_the_seed_counts_one_and_a_history_by_its_age() -> None:
    seed, history = np.array([0, 0, -1, -1]), np.array([[-1, -1], [1, 3], [2, -1], [-1, -1]])
    younger, older = 2.0**-0.25, 2.0**-0.5
    of_both = (1.0 - 2.0 * younger + 3.0 * older) / (1 + younger + older)
    found = shown_popularity(BIAS, seed, history)
    assert found[:3] == pytest.approx([1.0, of_both, 0.5], rel=1e-6)
    assert np.isnan(found[3])


def test_popularity_counts_as_for_everybody_where_nothing_is_shown() -> None:
    taste = np.array([0.5, -1.0], np.float32)
    assert popularity_factor(taste, np.array([-1.0, 1.0, -3.0, -9.0, np.nan], np.float32)).tolist() == [1.0, 2.0, 0.0, 0.0, 1.0]
    assert popularity_factor(np.zeros(2, np.float32), BIAS).tolist() == [1.0] * 4


@given(st.integers(-1, 3), st.lists(st.integers(0, 3), max_size=53), st.randoms(use_true_random=False))
def test_one_query_has_the_bits_that_it_has_among_many(seed: int, history: list[int], random: np.random.Generator) -> None:
    bias = np.array([random.random() - 0.7 for _ in range(4)], np.float32)
    padded = np.full((3, 53), -1)
    padded[1, : len(history)] = history
    taste = np.array([2 * random.random(), random.random() - 0.5], np.float32)  # below 0 at times
    among_many = popularity_factor(taste, shown_popularity(bias, np.array([2, seed, -1]), padded))[1]
    alone = popularity_factor_of_one(taste, None if seed < 0 else bias[seed], bias[history], weights_by_age(53)[: len(history)])
    assert alone.dtype == among_many.dtype == np.float32
    assert alone.tobytes() == among_many.tobytes()
