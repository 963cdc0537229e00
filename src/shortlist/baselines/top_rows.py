"""The best k of dense score rows, for baselines that score the whole corpus at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.index.contract import best_first

_ENTRIES_AT_ONCE = 1 << 24


def top_rows(
    scores: NDArray[np.float32], k: int, exclude: Sequence[NDArray[Any]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows, scores), each (B, k), of (B, M) scores: best first, ties by row, padded with -1 and -inf."""
    count, corpus_size = scores.shape
    step = max(1, _ENTRIES_AT_ONCE // corpus_size)
    found = [
        _top_block(scores[start : start + step], k, None if exclude is None else exclude[start : start + step])
        for start in range(0, count, step)
    ]
    if not found:
        return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([best for _, best in found])


def _top_block(
    scores: NDArray[np.float32], k: int, exclude: Sequence[NDArray[Any]] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    corpus_size = scores.shape[1]
    if exclude is not None:
        scores = scores.copy()
        for query, rows in enumerate(exclude):
            scores[query, rows[rows >= 0]] = -np.inf
    all_rows = np.broadcast_to(np.arange(corpus_size), scores.shape)
    if k < corpus_size:
        least = np.partition(scores, corpus_size - k, axis=1)[:, corpus_size - k]  # (B,) the k-th best
        # the k best and all that tie with the last of them; a stable sort by score keeps the lowest rows of a tie
        kept = [np.flatnonzero(line >= bound) for line, bound in zip(scores, least, strict=True)]
        kept = [rows[np.argsort(-line[rows], kind="stable")[:k]] for rows, line in zip(kept, scores, strict=True)]
        all_rows = np.stack(kept)
        scores = np.take_along_axis(scores, all_rows, axis=1)
    rows = np.where(np.isneginf(scores), -1, all_rows)
    return best_first(rows, scores + np.float32(0.0), k)


def largest_of_rows(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """The matrix with the `count` largest of the positive entries of each row, of equal ones the lower columns; the others gone."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    order = order[matrix.data[order] > 0]
    row = row[order]  # ascending
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = order[place < count]
    return sparse.csr_matrix((matrix.data[kept], (row[place < count], matrix.indices[kept])), shape=matrix.shape)
