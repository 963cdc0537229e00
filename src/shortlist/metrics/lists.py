"""What do the lists show? How much of the corpus, how evenly, how surprising, how alike. No positive is needed.

A list is rows best first, padded with -1; each is judged by its first k rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.errors import ShapeError
from shortlist.metrics.checks import Rows, Values, check_k, refuse_first

_ENTRIES_AT_ONCE = 1 << 22  # of looked-up vectors: 32 MB


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


def novelty(found_rows: Rows, k: int, share: Values) -> Values:
    """How surprising (N,) each list is, in bits: the mean self-information -log2(share) of its first k rows.

    share    (M,) of all choices, above 0; an item without a choice needs a smoothed one, as it has no finite surprise
    Raises   ValueError for a share outside (0, 1], or naming the first list without a row
    Source   Zhou et al., PNAS 107 (2010), "surprisal"
    """
    if share.ndim != 1 or not np.all((share > 0) & (share <= 1)):
        raise ValueError("shares must be (M,) in (0, 1]: got others; smooth the counts (one added to each) before dividing by their sum")
    shown = _first(found_rows, k, len(share))
    listed = shown >= 0
    refuse_first(~listed.any(axis=1), "novelty needs a row in every list: got none", "leave out what was not answered")
    surprise = np.where(listed, -np.log2(share)[np.maximum(shown, 0)], 0.0)
    return np.asarray(surprise.sum(axis=1) / listed.sum(axis=1))


def intra_list_similarity(found_rows: Rows, k: int, vectors: NDArray[np.floating] | sparse.csr_matrix) -> Values:
    """How alike (N,) the first k rows of each list are: the mean cosine of `vectors` (M, D), dense or sparse, over all pairs of them.

    Raises   ValueError naming the first list of fewer than two rows, or the first listed row of length 0
    Source   Ziegler et al., WWW'05, as a mean. With unit vectors u, sum_{i != j} u_i.u_j = |sum u|^2 - n: no pair is looked at.
    """
    shown = _first(found_rows, k, vectors.shape[0])
    count = (shown >= 0).sum(axis=1)
    refuse_first(count < 2, "similarity needs two rows or more in every list: got fewer", "leave out the shorter ones")
    norms, width = _norms(vectors)
    is_zero = (shown >= 0) & (norms[shown] == 0)
    refuse_first(is_zero.any(axis=1), "a cosine needs vectors that are not 0: got one", "leave out items without a vector")
    result = np.empty(len(shown))
    step = max(1, _ENTRIES_AT_ONCE // (shown.shape[1] * width))
    for start in range(0, len(shown), step):
        rows = shown[start : start + step]
        weight = np.where(rows >= 0, 1 / np.where(norms > 0, norms, 1.0)[rows], 0.0)  # (b, k)
        result[start : start + step] = _squares_of_sums(rows, weight, vectors)
    return np.asarray((result - count) / (count * (count - 1)))


def _norms(vectors: NDArray[np.floating] | sparse.csr_matrix) -> tuple[Values, int]:
    """((M,) lengths, how many entries a vector has, about)."""
    if isinstance(vectors, np.ndarray):
        return np.sqrt(np.einsum("md,md->m", vectors, vectors, dtype=np.float64)), vectors.shape[1]
    squares = np.asarray(vectors.multiply(vectors).sum(axis=1), np.float64).ravel()
    return np.sqrt(squares), 1 + vectors.nnz // vectors.shape[0]


def _squares_of_sums(rows: Rows, weight: Values, vectors: NDArray[np.floating] | sparse.csr_matrix) -> Values:
    """(b,) the squared length of each list's sum of weight times vector, for rows and weights (b, k)."""
    if isinstance(vectors, np.ndarray):
        total = np.einsum("bkd,bk->bd", vectors[rows], weight)  # (b, D)
        return np.asarray(np.einsum("bd,bd->b", total, total))
    places = (weight.ravel(), np.maximum(rows, 0).ravel(), np.arange(0, rows.size + 1, rows.shape[1]))
    listed = sparse.csr_matrix(places, shape=(len(rows), vectors.shape[0]))
    total = listed @ vectors  # (b, D)
    return np.asarray(total.multiply(total).sum(axis=1), np.float64).ravel()


def _exposures(found_rows: Rows, k: int, corpus_size: int) -> Rows:
    """How many lists (corpus_size,) show each row among their first k."""
    shown = _first(found_rows, k, corpus_size)
    return np.bincount(shown[shown >= 0], minlength=corpus_size).astype(np.int64)


def _first(found_rows: Rows, k: int, corpus_size: int) -> Rows:
    """The first k rows (N, k) of each list, checked."""
    check_k(k)
    if found_rows.ndim != 2 or not found_rows.size:
        raise ShapeError(f"found_rows must be (N, K) with one list or more: got shape {found_rows.shape}; evaluate some queries")
    if k > found_rows.shape[1]:
        raise ValueError(f"k must not exceed the length of the lists: got {k} for {found_rows.shape[1]}; search deeper")
    shown = found_rows[:, :k]
    refuse_first(((shown < -1) | (shown >= corpus_size)).any(axis=1), f"rows must lie in -1..{corpus_size - 1}: got another")
    return shown
