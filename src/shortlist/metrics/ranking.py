"""Where is the positive? Ranks from result lists, and recall, NDCG and MRR from ranks.

A result list is what an index returns: rows best first, padded with row -1 and score -inf. Ranks count from 1 and a tie
counts against the model. `evaluate` asks for K + 1 results, so that a rank up to K is known for certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import ShapeError
from shortlist.metrics.checks import Rows, Values, check_k, checked_cluster, checked_values, refuse_first

NOT_FOUND = int(np.iinfo(np.int64).max)  # a rank beyond every cut-off


def pessimistic_rank(found_rows: Rows, found_scores: NDArray[np.float32], positive_row: Rows, corpus_size: int) -> Rows:
    """The rank (N,) of each query's positive, from 1; NOT_FOUND where the list does not show it for certain.

        rank = 1 + #(score > s) + #(other candidates with score == s),  s = the positive's score

    found_rows    (N, K), best first, padded with -1; ask the search for one result more than the largest cut-off
    found_scores  (N, K), falling, padded with -inf
    positive_row  (N,); -1 = the positive is not in the corpus: NOT_FOUND
    A positive that ties with the last entry of a full list may tie with rows beyond it: NOT_FOUND, unless the list holds
    the whole corpus. A padded list holds all that was eligible, so nothing is beyond it.
    Raises        ShapeError where shapes differ; ValueError naming the first query whose list or positive breaks a rule
    """
    _check_lists(found_rows, found_scores, positive_row, corpus_size)
    if not found_rows.size:
        return np.full(len(found_rows), NOT_FOUND, np.int64)
    is_positive = (found_rows == positive_row[:, None]) & (positive_row >= 0)[:, None]  # (N, K)
    found = is_positive.any(axis=1)
    score = np.where(found, np.take_along_axis(found_scores, is_positive.argmax(axis=1)[:, None], axis=1)[:, 0], np.inf)
    at_least = (found_scores >= score[:, None]).sum(axis=1)  # the positive counts itself: the 1 of the formula
    holds_all = found_rows.shape[1] >= corpus_size
    known = found & (holds_all | (score > found_scores[:, -1]))  # above -inf where the list is padded
    return np.where(known, at_least, NOT_FOUND)


def recall_at(rank: Rows, k: int) -> Values:
    """1.0 where the positive is among the first k, else 0.0: recall, and hit rate, of queries with one positive."""
    _check_rank(rank, k)
    return (rank <= k).astype(np.float64)


def ndcg_at(rank: Rows, k: int) -> Values:
    """1 / log2(1 + rank) where the positive is among the first k, else 0.0: NDCG with one positive (ideal gain 1)."""
    _check_rank(rank, k)
    return np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0)


def mrr_at(rank: Rows, k: int) -> Values:
    """1 / rank where the positive is among the first k, else 0.0."""
    _check_rank(rank, k)
    return np.where(rank <= k, 1.0 / rank, 0.0)


def recall_per_group(hits: Values, group: Rows) -> Values:
    """hits / relevant (G,) of each group, by ascending group: recall of queries with several positives.

    hits   (N,) 0 or 1, one value a (query, positive) pair
    group  (N,) the query, or the user, that the pair belongs to
    Raises ShapeError where lengths differ or are 0; ValueError for a hit that is neither 0 nor 1
    """
    values = checked_values(hits, "hits")
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"hits must be 0 or 1: got {values[~np.isin(values, (0.0, 1.0))][0]}; pass recall_at(rank, k)")
    _, number = np.unique(checked_cluster(group, len(values), "group"), return_inverse=True)
    return np.bincount(number, weights=values) / np.bincount(number)


def _check_lists(found_rows: Rows, found_scores: NDArray[np.float32], positive_row: Rows, corpus_size: int) -> None:
    if found_rows.ndim != 2 or found_scores.shape != found_rows.shape or positive_row.shape != found_rows.shape[:1]:
        got = f"{found_rows.shape}, {found_scores.shape} and {positive_row.shape}"
        raise ShapeError(f"found_rows and found_scores must be (N, K) and positive_row (N,): got {got}; pass one search's result")
    if found_rows.dtype.kind != "i" or positive_row.dtype.kind != "i":
        raise ShapeError(f"rows must be signed integers: got {found_rows.dtype} and {positive_row.dtype}; pass rows, not ids")
    refuse_first(np.isnan(found_scores).any(axis=1), "scores must be numbers: got NaN")
    refuse_first((found_scores[:, 1:] > found_scores[:, :-1]).any(axis=1), "scores must fall along the list: got a rise")
    refuse_first(((found_rows == -1) != np.isneginf(found_scores)).any(axis=1), "row -1 and score -inf must go together: got one alone")
    refuse_first(((found_rows < -1) | (found_rows >= corpus_size)).any(axis=1), f"rows must lie in -1..{corpus_size - 1}: got another")
    refuse_first((positive_row < -1) | (positive_row >= corpus_size), f"positive_row must lie in -1..{corpus_size - 1}: got another")
    ordered = np.sort(found_rows, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    refuse_first(repeated.any(axis=1), "a list must hold a row once: got it twice")


def _check_rank(rank: Rows, k: int) -> None:
    check_k(k)
    if rank.ndim != 1 or rank.dtype.kind not in "iu":
        raise ShapeError(f"rank must be (N,) integers: got {rank.dtype} of shape {rank.shape}; pass pessimistic_rank's result")
    if (rank < 1).any():
        raise ValueError(f"ranks count from 1: got {int(rank.min())} in query {int(rank.argmin())}; NOT_FOUND stands for a miss")
