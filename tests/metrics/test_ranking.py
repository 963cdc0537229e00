"""Ranks and their metrics against hand numbers, slow versions that read the definitions aloud, and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from shortlist.errors import ShapeError
from shortlist.metrics.ranking import NOT_FOUND, mrr_at, ndcg_at, pessimistic_rank, recall_at, recall_per_group


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


# --- other libraries


def searched(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What an index returns for dense scores (N, M): the best k, ties by row."""
    rows = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def distinct_scores(seed: int, count: int, size: int) -> np.ndarray:
    """(count, size) float32 without ties within a line, which others break otherwise."""
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(size) for _ in range(count)]).astype(np.float32)


def judged_by_trec(relevant: list[dict[int, int]], scores: np.ndarray, measures: set[str]) -> list[dict[str, float]]:
    """The measures of trec_eval, query by query."""
    judgements = {str(query): {f"d{row}": 1 for row in rows} for query, rows in enumerate(relevant)}
    run = {str(query): {f"d{row}": float(score) for row, score in enumerate(line)} for query, line in enumerate(scores)}
    found = pytrec_eval.RelevanceEvaluator(judgements, measures).evaluate(run)
    return [found[str(query)] for query in range(len(scores))]


@pytest.mark.parametrize("k", [1, 5, 13])
def test_one_positive_agrees_with_trec_eval(k: int) -> None:
    scores = distinct_scores(k, 31, 53)
    positive = np.random.default_rng(9).integers(0, 53, 31)
    rank = pessimistic_rank(*searched(scores, k + 1), positive, 53)
    trec = judged_by_trec([{int(row): 1} for row in positive], scores, {f"recall.{k}", f"ndcg_cut.{k}", "recip_rank"})
    assert recall_at(rank, k).tolist() == [line[f"recall_{k}"] for line in trec]
    assert ndcg_at(rank, k).tolist() == pytest.approx([line[f"ndcg_cut_{k}"] for line in trec])
    reciprocal = np.array([line["recip_rank"] for line in trec])
    assert mrr_at(rank, k).tolist() == pytest.approx(np.where(reciprocal >= 1 / k, reciprocal, 0.0).tolist())


def test_several_positives_agree_with_trec_eval() -> None:
    random, k = np.random.default_rng(4), 7
    scores = distinct_scores(2, 19, 41)
    relevant = [random.permutation(41)[: random.integers(1, 6)] for _ in range(19)]
    group = np.repeat(np.arange(19), [len(rows) for rows in relevant])
    rank = pessimistic_rank(*searched(scores[group], k + 1), np.concatenate(relevant), 41)
    trec = judged_by_trec([dict.fromkeys(rows.tolist(), 1) for rows in relevant], scores, {f"recall.{k}"})
    assert recall_per_group(recall_at(rank, k), group).tolist() == pytest.approx([line[f"recall_{k}"] for line in trec])


@pytest.mark.parametrize("k", [1, 3, 11])
def test_ndcg_agrees_with_scikit_learn(k: int) -> None:
    scores = distinct_scores(k + 50, 23, 37)
    positive = np.random.default_rng(3).integers(0, 37, 23)
    rank = pessimistic_rank(*searched(scores, k + 1), positive, 37)
    truth = np.eye(37)[positive]
    assert ndcg_at(rank, k).mean() == pytest.approx(ndcg_score(truth, scores, k=k))


def test_reciprocal_ranks_agree_with_scikit_learn_ties_included() -> None:
    # label ranking average precision counts ties against the label as well; with one label it is the mean of 1 / rank
    random = np.random.default_rng(12)
    scores = random.integers(0, 7, (43, 29)).astype(np.float32)
    positive = random.integers(0, 29, 43)
    rank = pessimistic_rank(*searched(scores, 29), positive, 29)
    assert mrr_at(rank, 29).mean() == pytest.approx(label_ranking_average_precision_score(np.eye(29)[positive], scores))
