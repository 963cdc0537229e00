"""What is made of rows that a library proposes: their canonical scores, the best first, with as few operations as can be.

A library's search leaves the caches cold, so each numpy call costs a microsecond or two and each row a trip to memory. Not a search:
`proposing` calls it. The results have the bits of `contract.score_rows` and the order of `contract.best_of_one`, by tests.
"""

from __future__ import annotations

import numpy as np

from shortlist.index.contract import Float32s, Rows, best_of_one, score_pairs, summation_error
from shortlist.index.exact import largest_error

CUT_FROM = 2  # times as many rows as wanted, from which a first cut by float32 products costs less than exact ones of all
ZERO = np.float32(0)


def best_of_rows(query: Float32s, vectors: Float32s, rows: Rows, k: int, largest: float) -> tuple[Rows, Float32s]:
    """(rows, scores), each (k,): the best of distinct `rows` (W >= k,) by canonical score, best first, ties by lower row.

    largest  at least |query| times the norm of any row
    """
    near = vectors.take(rows, axis=0)  # (W, D)
    if len(rows) > CUT_FROM * k:
        kept = _reaching(near @ query, k, 2 * largest_error(largest, len(query)))
        rows, near = rows.take(kept), near.take(kept, axis=0)
    sums = near.astype(np.float64) @ query.astype(np.float64)
    error = summation_error(largest, len(query))
    falling, below = np.subtract(-error, sums).astype(np.float32), np.subtract(error, sums).astype(np.float32)  # minus the scores
    if (falling != below).any():
        unsure = np.flatnonzero(falling != below)
        falling[unsure] = -score_pairs(query[None], near, np.zeros(len(unsure), np.int64), unsure)
    falling += ZERO  # no -0
    order = falling.argsort()
    sorted_scores = falling.take(order[: k + 1])
    if (sorted_scores[1:] == sorted_scores[:-1]).any():
        return best_of_one(rows, ZERO - falling, k)
    return rows.take(order[:k]), ZERO - sorted_scores[:k]


def leading(query: Float32s, vectors: Float32s, rows: Rows, count: int, largest: float) -> Rows:
    """Those of `rows` (W,) that may be among their best `count`: all of these, and few more.

    largest  at least |query| times the norm of any row
    """
    if len(rows) <= count:
        return rows
    return rows[_reaching(vectors.take(rows, axis=0) @ query, count, 2 * largest_error(largest, len(query)))]


def _reaching(products: Float32s, count: int, error: float) -> Rows:
    """Where `products` (W,) come within `error` of the count-th largest: float32 ones are off by half of it at most, so nothing else
    can belong to the best `count`."""
    least = np.partition(products, len(products) - count)[len(products) - count] - np.float32(error)
    return np.flatnonzero(products >= least)
