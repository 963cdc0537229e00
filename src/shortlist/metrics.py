"""Metrics of result lists, as pure functions of rows and scores. No model, no search, no ids.

A result list is what an index returns: rows best first, padded with row -1 and score -inf. Ranks count from 1 and a tie
counts against the model. `evaluate` asks for K + 1 results, so that a rank up to K is known for certain. The textbook
names have the textbook meanings; every (N,) result keeps one value a query, for intervals and slices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import ShapeError

Rows = NDArray[np.int64]
Values = NDArray[np.float64]

NOT_FOUND = int(np.iinfo(np.int64).max)  # a rank beyond every cut-off


class Interval(NamedTuple):
    """A mean and the bounds that a resampled mean keeps with the asked probability."""

    mean: float
    low: float
    high: float


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
    values = _checked_values(hits, "hits")
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"hits must be 0 or 1: got {values[~np.isin(values, (0.0, 1.0))][0]}; pass recall_at(rank, k)")
    sums, counts = _sums_by_cluster(values, _checked_cluster(group, len(values), "group"))
    return sums / counts


def coverage(found_rows: Rows, k: int, corpus_size: int) -> float:
    """The share of the corpus that is among the first k of at least one list."""
    return float(np.count_nonzero(_exposures(found_rows, k, corpus_size)) / corpus_size)


def gini(found_rows: Rows, k: int, corpus_size: int) -> float:
    """How unequally the corpus is shown in the first k: 0 = all rows equally often, (M - 1) / M = always one row.

    G = sum_i (2 i - M - 1) x_i / (M sum_i x_i),  x = exposures in rising order, i = 1..M, zeros included
    """
    shown = np.sort(_exposures(found_rows, k, corpus_size))
    if not shown[-1]:
        raise ValueError(f"gini needs a list that shows something: got {len(found_rows)} empty lists; check the search")
    place = np.arange(1, corpus_size + 1)
    return float(((2 * place - corpus_size - 1) * shown).sum() / (corpus_size * shown.sum()))


def bootstrap_interval(
    values: Values, cluster: Rows | None, *, weight: Values | None = None, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """(mean, low, high): the weighted mean of `values` and its percentile bootstrap interval over whole clusters.

    values   (N,) one value a query
    cluster  (N,) the user of each query, drawn with all its queries; None = every query stands alone
    weight   (N,) what each query counts, above 0; None = 1
    Each resample draws as many clusters as there are, with replacement; its mean is sum of weight x value / sum of weight.
    Raises   ShapeError where lengths differ or are 0; ValueError for NaN, and settings out of range
    """
    values = _checked_values(values, "values")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1: got {resamples}; 1000 is usual")
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1: got {level}; 0.95 is usual")
    counts = np.ones(len(values)) if weight is None else _checked_weight(weight, len(values))
    sums = values * counts
    mean = float(sums.sum() / counts.sum())
    if cluster is not None:
        _, number = np.unique(_checked_cluster(cluster, len(values), "cluster"), return_inverse=True)
        sums = np.bincount(number, weights=sums).astype(np.float64)
        counts = np.bincount(number, weights=counts).astype(np.float64)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for resample in range(resamples):
        drawn = random.integers(len(sums), size=len(sums))
        means[resample] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def paired_interval(
    values_a: Values,
    values_b: Values,
    cluster: Rows | None,
    *,
    weight: Values | None = None,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """(mean, low, high) of a - b on identical queries: `bootstrap_interval` of the differences."""
    a, b = _checked_values(values_a, "values_a"), _checked_values(values_b, "values_b")
    if len(a) != len(b):
        raise ShapeError(f"paired values must come from identical queries: got {len(a)} and {len(b)}; evaluate both on one set")
    return bootstrap_interval(a - b, cluster, weight=weight, resamples=resamples, seed=seed, level=level)


def _check_lists(found_rows: Rows, found_scores: NDArray[np.float32], positive_row: Rows, corpus_size: int) -> None:
    if found_rows.ndim != 2 or found_scores.shape != found_rows.shape or positive_row.shape != found_rows.shape[:1]:
        got = f"{found_rows.shape}, {found_scores.shape} and {positive_row.shape}"
        raise ShapeError(f"found_rows and found_scores must be (N, K) and positive_row (N,): got {got}; pass one search's result")
    if found_rows.dtype.kind != "i" or positive_row.dtype.kind != "i":
        raise ShapeError(f"rows must be signed integers: got {found_rows.dtype} and {positive_row.dtype}; pass rows, not ids")
    _refuse_first(np.isnan(found_scores).any(axis=1), "scores must be numbers: got NaN")
    _refuse_first((found_scores[:, 1:] > found_scores[:, :-1]).any(axis=1), "scores must fall along the list: got a rise")
    _refuse_first(((found_rows == -1) != np.isneginf(found_scores)).any(axis=1), "row -1 and score -inf must go together: got one alone")
    _refuse_first(((found_rows < -1) | (found_rows >= corpus_size)).any(axis=1), f"rows must lie in -1..{corpus_size - 1}: got another")
    _refuse_first((positive_row < -1) | (positive_row >= corpus_size), f"positive_row must lie in -1..{corpus_size - 1}: got another")
    ordered = np.sort(found_rows, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    _refuse_first(repeated.any(axis=1), "a list must hold a row once: got it twice")


def _refuse_first(breaks: NDArray[np.bool_] | np.bool_, rule: str) -> None:
    if breaks.any():
        raise ValueError(f"{rule} in query {int(breaks.argmax())} (of {int(breaks.sum())} such); pass the index's result unchanged")


def _check_rank(rank: Rows, k: int) -> None:
    _check_k(k)
    if rank.ndim != 1 or rank.dtype.kind not in "iu":
        raise ShapeError(f"rank must be (N,) integers: got {rank.dtype} of shape {rank.shape}; pass pessimistic_rank's result")
    if (rank < 1).any():
        raise ValueError(f"ranks count from 1: got {int(rank.min())} in query {int(rank.argmin())}; NOT_FOUND stands for a miss")


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1: got {k}; choose a positive cut-off")


def _exposures(found_rows: Rows, k: int, corpus_size: int) -> Rows:
    """How many lists (corpus_size,) show each row among their first k."""
    _check_k(k)
    if found_rows.ndim != 2 or not found_rows.size:
        raise ShapeError(f"found_rows must be (N, K) with one list or more: got shape {found_rows.shape}; evaluate some queries")
    if k > found_rows.shape[1]:
        raise ValueError(f"k must not exceed the length of the lists: got {k} for {found_rows.shape[1]}; search deeper")
    shown = found_rows[:, :k]
    _refuse_first(((shown < -1) | (shown >= corpus_size)).any(axis=1), f"rows must lie in -1..{corpus_size - 1}: got another")
    return np.bincount(shown[shown >= 0], minlength=corpus_size).astype(np.int64)


def _checked_values(values: NDArray[Any], name: str) -> Values:
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"{name} must be (N,) with one value or more: got shape {values.shape}; is the slice empty?")
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{name} must be finite: got {values[bad[0]]} at {bad[0]} ({len(bad)} such); leave out what was not computed")
    return values


def _checked_weight(weight: Values, count: int) -> Values:
    if weight.shape != (count,):
        raise ShapeError(f"weight must have one entry a value: got shape {weight.shape} for {count} values; pass the same queries")
    if not np.all((weight > 0) & np.isfinite(weight)):
        raise ValueError(f"weights must be above 0 and finite: got {weight.min()}; leave out what should not count")
    return weight.astype(np.float64)


def _checked_cluster(cluster: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    if cluster.shape != (count,):
        raise ShapeError(f"{name} must have one entry a value: got shape {cluster.shape} for {count} values; pass the same queries")
    if cluster.dtype.kind not in "iu":
        raise ShapeError(f"{name} must be integers: got {cluster.dtype}; number the users first")
    return cluster


def _sums_by_cluster(values: Values, cluster: NDArray[Any]) -> tuple[Values, Values]:
    """The sum and the number of values of each cluster, both (G,), by ascending cluster."""
    _, number = np.unique(cluster, return_inverse=True)
    return np.bincount(number, weights=values).astype(np.float64), np.bincount(number).astype(np.float64)
