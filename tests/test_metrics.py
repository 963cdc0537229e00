"""Metrics against hand numbers, and against slow versions that read the definitions aloud."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import ShapeError
from shortlist.metrics import (
    NOT_FOUND,
    bootstrap_interval,
    coverage,
    gini,
    mrr_at,
    ndcg_at,
    paired_interval,
    pessimistic_rank,
    recall_at,
    recall_per_group,
)


def lists(*found: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([[row for row, _ in line] for line in found], np.int64)
    scores = np.array([[score for _, score in line] for line in found], np.float32)
    return rows, scores


NONE = (-1, -math.inf)


# --- ranks


def test_a_rank_counts_the_candidates_above_and_beside_the_positive() -> None:
    rows, scores = lists([(4, 9.0), (1, 7.0), (2, 7.0), (0, 3.0)])
    rows, scores = np.repeat(rows, 5, axis=0), np.repeat(scores, 5, axis=0)
    positive = np.array([4, 1, 2, 0, 6])
    # 4: first. 1 and 2: one above, one beside -> 3. 0: ties with the end of a full list -> unknown. 6: not listed.
    assert pessimistic_rank(rows, scores, positive, 11).tolist() == [1, 3, 3, NOT_FOUND, NOT_FOUND]


def test_a_positive_outside_the_corpus_is_a_miss_even_in_a_padded_list() -> None:
    rows, scores = lists([(2, 1.0), NONE, NONE])
    assert pessimistic_rank(rows, scores, np.array([-1]), 5).tolist() == [NOT_FOUND]


def test_the_last_entry_counts_where_nothing_can_be_beyond_it() -> None:
    padded = lists([(3, 2.0), (1, 2.0), NONE])
    assert pessimistic_rank(*padded, np.array([3]), 1000).tolist() == [2]  # all that was eligible is listed: one beside
    whole = lists([(3, 2.0), (1, 2.0), (0, 2.0), (2, 1.0)])
    assert pessimistic_rank(*whole, np.array([3]), 4).tolist() == [3]
    assert pessimistic_rank(*whole, np.array([2]), 4).tolist() == [4]
    assert pessimistic_rank(*whole, np.array([2]), 5).tolist() == [NOT_FOUND]  # a fifth row may score 1.0 too


def test_a_model_that_scores_all_items_equal_has_recall_zero() -> None:
    size, k = 101, 10
    rows = np.tile(np.arange(k + 1), (7, 1))
    scores = np.zeros((7, k + 1), np.float32)
    ranks = pessimistic_rank(rows, scores, np.arange(7), size)
    assert ranks.tolist() == [NOT_FOUND] * 7
    assert recall_at(ranks, k).sum() == ndcg_at(ranks, k).sum() == mrr_at(ranks, k).sum() == 0.0


def test_no_queries_have_no_ranks() -> None:
    assert pessimistic_rank(np.empty((0, 3), np.int64), np.empty((0, 3), np.float32), np.empty(0, np.int64), 5).shape == (0,)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 13), levels=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_ranks_up_to_k_agree_with_a_ranking_of_the_whole_corpus(seed: int, k: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    size, count = 17, 5
    score = random.integers(levels, size=(count, size)).astype(np.float32)  # few levels: many ties
    rows = np.lexsort((np.broadcast_to(np.arange(size), score.shape), -score), axis=1)[:, : k + 1]
    positive = random.integers(-1, size, size=count)
    ranks = pessimistic_rank(rows, np.take_along_axis(score, rows, axis=1), positive, size)
    for query in range(count):
        truth = int((score[query] >= score[query, positive[query]]).sum()) if positive[query] >= 0 else NOT_FOUND
        assert ranks[query] == truth if truth <= k else ranks[query] > k


@pytest.mark.parametrize(
    ("found", "positive", "message"),
    [
        ([(1, 2.0), (0, math.nan)], 1, "NaN in query 0"),
        ([(1, 2.0), (0, 3.0)], 1, "got a rise in query 0"),
        ([(1, 2.0), (-1, 1.0)], 1, "go together"),
        ([(1, 2.0), (0, -math.inf)], 1, "go together"),
        ([(1, 2.0), (5, 1.0)], 1, r"-1\.\.4"),
        ([(1, 2.0), (1, 1.0)], 1, "a row once"),
        ([(1, 2.0), (0, 1.0)], 5, r"positive_row must lie in -1\.\.4"),
    ],
)
def test_a_list_that_no_index_returns_is_refused(found: list[tuple[int, float]], positive: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pessimistic_rank(*lists(found), np.array([positive]), 5)


def test_lists_and_positives_must_have_one_line_a_query() -> None:
    rows, scores = lists([(1, 2.0), (0, 1.0)])
    with pytest.raises(ShapeError, match=r"\(1, 2\), \(1, 2\) and \(2,\)"):
        pessimistic_rank(rows, scores, np.array([1, 0]), 5)
    with pytest.raises(ShapeError, match="signed integers: got float64"):
        pessimistic_rank(rows.astype(float), scores, np.array([1]), 5)


# --- metrics of ranks


def test_recall_ndcg_and_mrr_by_hand() -> None:
    rank = np.array([1, 2, 3, 4, NOT_FOUND])
    assert recall_at(rank, 3).tolist() == [1, 1, 1, 0, 0]
    assert mrr_at(rank, 3).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    # 1/log2(2) = 1, 1/log2(3) = 0.63093, 1/log2(4) = 0.5
    assert ndcg_at(rank, 3).tolist() == pytest.approx([1, 0.6309297535714575, 0.5, 0, 0])
    assert recall_at(rank, 1).tolist() == mrr_at(rank, 1).tolist() == ndcg_at(rank, 1).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("metric", [recall_at, ndcg_at, mrr_at])
def test_a_cut_off_or_a_rank_below_one_is_refused(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="k must be at least 1: got 0"):
        metric(np.array([1]), 0)
    with pytest.raises(ValueError, match="got 0 in query 1"):
        metric(np.array([3, 0]), 5)
    with pytest.raises(ShapeError, match="float64"):
        metric(np.array([1.0]), 5)


def test_recall_of_several_positives_is_hits_by_relevant() -> None:
    # user 3: 1 of 2; user 7: 2 of 3; user 9: 0 of 1
    group = np.array([7, 3, 7, 9, 3, 7])
    hits = np.array([1.0, 0, 1, 0, 1, 0])
    assert recall_per_group(hits, group).tolist() == pytest.approx([1 / 2, 2 / 3, 0])
    with pytest.raises(ValueError, match=r"0 or 1: got 0\.5"):
        recall_per_group(np.array([0.5]), np.array([1]))
    with pytest.raises(ShapeError, match=r"\(2,\) for 1 values"):
        recall_per_group(np.array([1.0]), np.array([1, 2]))


# --- metrics of lists


def test_coverage_is_the_share_of_the_corpus_that_is_shown() -> None:
    rows = np.array([[0, 1, 2], [1, 0, 4], [1, -1, -1]])
    assert coverage(rows, 1, 5) == 2 / 5  # 0, 1
    assert coverage(rows, 2, 5) == 2 / 5  # 0, 1
    assert coverage(rows, 3, 5) == 4 / 5  # 0, 1, 2, 4


def test_gini_by_hand() -> None:
    # exposures 0, 0, 1, 3 -> sum (2i - 5) x = (6 - 5) * 1 + (8 - 5) * 3 = 10; M * sum = 16
    assert gini(np.array([[1], [1], [1], [3]]), 1, 4) == 10 / 16
    assert gini(np.array([[0, 1], [2, 3]]), 2, 4) == 0.0
    assert gini(np.array([[2], [2]]), 1, 5) == pytest.approx(4 / 5)


def test_gini_agrees_with_the_mean_difference_of_all_pairs() -> None:
    rows = np.random.default_rng(1).integers(7, size=(13, 3))
    x = np.bincount(rows.ravel(), minlength=11)
    pairs = sum(abs(a - b) for a, b in itertools.product(x.tolist(), repeat=2))
    assert gini(rows, 3, 11) == pytest.approx(pairs / (2 * 11 * 11 * x.mean()))


def test_lists_that_cannot_answer_are_refused() -> None:
    rows = np.array([[0, 1]])
    with pytest.raises(ValueError, match="got 3 for 2"):
        coverage(rows, 3, 5)
    with pytest.raises(ValueError, match=r"-1\.\.0"):
        coverage(rows, 2, 1)
    with pytest.raises(ShapeError, match=r"\(0, 2\)"):
        coverage(rows[:0], 1, 5)
    with pytest.raises(ValueError, match="2 empty lists"):
        gini(np.full((2, 3), -1), 2, 5)


# --- intervals


def slow_bootstrap(values: list[float], cluster: list[int], resamples: int, seed: int) -> list[float]:
    """Means of resamples that really put the drawn users' values together."""
    users = sorted(set(cluster))
    random = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        pool = []
        for drawn in random.integers(len(users), size=len(users)).tolist():
            pool += [value for value, user in zip(values, cluster, strict=True) if user == users[drawn]]
        means.append(sum(pool) / len(pool))
    return means


def test_the_interval_agrees_with_drawing_users_by_hand() -> None:
    random = np.random.default_rng(3)
    values, cluster = random.random(47), random.choice([11, 2, 5, 3, 29, 17, 101], size=47)
    means = slow_bootstrap(values.tolist(), cluster.tolist(), resamples=211, seed=5)
    result = bootstrap_interval(values, cluster, resamples=211, seed=5, level=0.9)
    assert result.mean == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))


def test_two_users_can_only_give_three_means() -> None:
    # user 0: values 1, 1, 1; user 1: value 0. Draws: 00 -> 1, 01 and 10 -> 3/4, 11 -> 0, with chances 1/4, 1/2, 1/4
    values, cluster = np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1])
    assert bootstrap_interval(values, cluster, resamples=4001, seed=1, level=0.9) == (0.75, 0.0, 1.0)
    assert bootstrap_interval(values, cluster, resamples=4001, seed=1, level=0.4) == (0.75, 0.75, 0.75)


def test_weights_make_a_mean_of_means_and_the_interval_of_drawing_users() -> None:
    # user 0: values 1 and 0 of weights 3 and 1; user 1: value 1 of weight 4. Mean (3 + 0 + 4) / 8 = .875.
    # Draws: 00 -> 3/4, 01 and 10 -> 7/8, 11 -> 1, with chances 1/4, 1/2, 1/4
    values, cluster, weight = np.array([1.0, 0, 1]), np.array([0, 0, 1]), np.array([3.0, 1, 4])
    assert bootstrap_interval(values, cluster, weight=weight, resamples=4001, seed=1, level=0.9) == (0.875, 0.75, 1.0)
    assert bootstrap_interval(values, cluster, weight=weight, resamples=4001, seed=1, level=0.4) == (0.875, 0.875, 0.875)


def test_weighted_intervals_agree_with_repeating_each_value() -> None:
    random = np.random.default_rng(8)
    values, cluster, weight = random.random(29), random.choice([13, 2, 5, 3, 7], size=29), random.integers(1, 6, 29)
    means = slow_bootstrap(np.repeat(values, weight).tolist(), np.repeat(cluster, weight).tolist(), resamples=97, seed=5)
    result = bootstrap_interval(values, cluster, weight=weight.astype(float), resamples=97, seed=5, level=0.8)
    assert result.mean == pytest.approx(np.repeat(values, weight).mean())
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


def test_only_the_proportions_of_weights_matter_and_equal_ones_are_none() -> None:
    random = np.random.default_rng(6)
    values, weight = random.random(31), random.random(31) + 0.1
    one, double = (bootstrap_interval(values, None, weight=factor * weight, resamples=97, seed=7) for factor in (1, 1024))
    assert one == pytest.approx(double)
    none, equal = (bootstrap_interval(values, None, weight=each, resamples=97, seed=7) for each in (None, np.full(31, 0.25)))
    assert none == pytest.approx(equal)
    paired = paired_interval(values, np.zeros(31), None, weight=weight, resamples=97, seed=7)
    assert paired == one


@pytest.mark.parametrize(("weight", "message"), [([1.0, 0.0], "above 0 and finite: got 0.0"), ([1.0, math.nan], "above 0 and finite")])
def test_a_weight_that_is_not_positive_is_refused(weight: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.zeros(2), None, weight=np.array(weight), resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"one entry a value: got shape \(2,\) for 3 values"):
        bootstrap_interval(np.zeros(3), None, weight=np.array(weight), resamples=10, seed=0)


def test_queries_of_one_user_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(2).integers(2, size=101).astype(float), 23)
    alone = bootstrap_interval(values, None, resamples=301, seed=7)
    together = bootstrap_interval(values, np.repeat(np.arange(101), 23), resamples=301, seed=7)
    # 23 equal answers a user: the standard error is sqrt(23) = 4.8 times as large
    assert 3.8 < (together.high - together.low) / (alone.high - alone.low) < 5.8


def test_queries_that_stand_alone_are_clusters_of_one() -> None:
    values = np.random.default_rng(2).random(31)
    alone = bootstrap_interval(values, None, resamples=97, seed=7)
    assert alone == bootstrap_interval(values, np.arange(31) * 3, resamples=97, seed=7)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).standard_normal(2003)
    result = bootstrap_interval(values, None, resamples=2000, seed=0)
    assert result.high - result.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2003), rel=0.1)


def test_paired_values_that_always_differ_by_the_same_have_no_spread() -> None:
    b = np.random.default_rng(4).integers(8, size=53) / 8
    cluster = np.arange(53) % 7
    assert paired_interval(b + 0.25, b, cluster, resamples=101, seed=3) == (0.25, 0.25, 0.25)
    single = bootstrap_interval(b, cluster, resamples=101, seed=3)
    assert single.low < single.high


def test_a_seed_gives_the_same_interval_and_leaves_its_inputs_alone() -> None:
    values, cluster = np.arange(13.0), np.arange(13) % 5
    before = values.copy(), cluster.copy()
    assert bootstrap_interval(values, cluster, resamples=50, seed=1) == bootstrap_interval(values, cluster, resamples=50, seed=1)
    assert bootstrap_interval(values, cluster, resamples=50, seed=1) != bootstrap_interval(values, cluster, resamples=50, seed=2)
    assert (values == before[0]).all() and (cluster == before[1]).all()


def test_intervals_of_what_is_no_number_are_refused() -> None:
    values = np.array([1.0, math.nan, math.nan])
    with pytest.raises(ValueError, match=r"got nan at 1 \(2 such\)"):
        bootstrap_interval(values, None, resamples=10, seed=0)
    with pytest.raises(ValueError, match="values_b must be finite"):
        paired_interval(np.zeros(3), values, None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match="3 and 2"):
        paired_interval(np.zeros(3), np.zeros(2), None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"shape \(0,\)"):
        bootstrap_interval(np.zeros(0), None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"\(2,\) for 3 values"):
        bootstrap_interval(np.zeros(3), np.zeros(2, np.int64), resamples=10, seed=0)
    with pytest.raises(ShapeError, match="integers: got float64"):
        bootstrap_interval(np.zeros(3), np.full(3, math.nan), resamples=10, seed=0)
    with pytest.raises(ValueError, match="resamples must be at least 1: got 0"):
        bootstrap_interval(np.zeros(3), None, resamples=0, seed=0)
    with pytest.raises(ValueError, match=r"level .* got 95"):
        bootstrap_interval(np.zeros(3), None, resamples=10, seed=0, level=95)
