"""What is made of proposed rows has the bits and the order that the exact index gives to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import normal, same

from shortlist.index.contract import best_of_one, score_rows
from shortlist.index.refining import best_of_rows, leading

SIZE, DIM = 997, 23


def largest(query: np.ndarray, vectors: np.ndarray) -> float:
    return float(np.linalg.norm(query) * np.linalg.norm(vectors, axis=1).max()) * 1.001


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), k=st.integers(1, 30), times=st.integers(1, 7), ties=st.booleans(), scale=st.sampled_from([1e-30, 1, 1e12]))
def test_the_best_of_rows_are_those_of_plain_scoring_and_sorting(seed: int, k: int, times: int, ties: bool, scale: float) -> None:
    random = np.random.default_rng(seed)
    vectors, query = normal(seed, SIZE, DIM), normal(seed + 1, DIM)
    if ties:  # small integers: equal scores everywhere, zeros of both signs among them
        vectors, query = np.sign(np.rint(vectors)).astype(np.float32), np.sign(np.rint(query)).astype(np.float32)
    vectors *= np.float32(scale)
    rows = random.permutation(SIZE)[: k * times]
    most = largest(query, vectors)
    found = best_of_rows(query, vectors, rows, k, most)
    assert same(found, best_of_one(rows, score_rows(query, vectors, rows, most), k))
    assert not np.signbit(found[1][found[1] == 0]).any()


def test_rows_whose_sums_lie_at_the_edge_of_rounding_get_the_canonical_score() -> None:
    """1 + 2^-24 lies halfway between two float32: which one it becomes hangs on the last bit of the sum."""
    query = np.array([1, 2.0**-12, 2.0**-30], np.float32)
    vectors = np.array([[1, 2.0**-12, 0], [1, 2.0**-12, 2.0**-22], [1, 2.0**-12, -(2.0**-22)], [0.5, 0, 0]], np.float32)
    rows, scores = best_of_rows(query, vectors, np.array([3, 0, 2, 1]), 4, 1e3)  # a bound that makes all of them unsure
    assert rows.tolist() == [1, 0, 2, 3]
    assert scores.tolist() == [1 + 2.0**-23, 1.0, 1.0, 0.5]  # halves go to the even neighbour, 1


@pytest.mark.parametrize("count", [1, 10, 199, 200, 201])
def test_the_leading_rows_hold_the_best_and_hardly_more(count: int) -> None:
    vectors, query = normal(1, SIZE, DIM), normal(2, DIM)
    rows = np.random.default_rng(3).permutation(SIZE)[:200]
    most = largest(query, vectors)
    kept = leading(query, vectors, rows, count, most)
    best, _ = best_of_one(rows, score_rows(query, vectors, rows, most), min(count, 200))
    assert set(best) <= set(kept) and len(kept) <= min(count + 1, 200)
