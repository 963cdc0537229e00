"""Item neighbours: an item scores its cosines with what the query shows, each item speaking for its nearest neighbours alone.

    cosine(i, j) = c_ij / (sqrt(c_i c_j) + h),   c_ij = how many askers chose both, c_i = how many chose i, h = `shrinkage`

An item is no neighbour of itself. Memory is bounded by M * neighbours and a block: the cosines of a block of items are cut
before the next is made.

Source: Sarwar et al., WWW'01; Deshpande & Karypis, TOIS'04.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from shortlist.baselines.of_history import HistoryMethod, ScoreShown
from shortlist.baselines.top_rows import largest_of_rows

_BLOCK = 512  # items


def train_item_knn(chosen: sparse.csr_matrix, /, *, neighbours: int, shrinkage: float) -> ScoreShown:
    """What scores weights (B, M) of what queries show, from the (A, M) choices."""
    nearest = nearest_items(chosen, neighbours, shrinkage)
    return lambda weights: (weights @ nearest).toarray()


def nearest_items(chosen: sparse.csr_matrix, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    """(M, M) float32: row i holds the shrunk cosines of item i with its nearest neighbours; of equal ones, the lower rows."""
    choosers = chosen.T.tocsr()
    norm = np.sqrt(np.diff(choosers.indptr)).astype(np.float32)  # (M,)
    blocks = []
    for start in range(0, chosen.shape[1], _BLOCK):
        cosines = (choosers[start : start + _BLOCK] @ chosen).tocoo()
        itself = cosines.col == cosines.row + start
        cosines.data = np.where(itself, 0, cosines.data / (norm[start + cosines.row] * norm[cosines.col] + np.float32(shrinkage)))
        blocks.append(largest_of_rows(cosines.tocsr(), neighbours))
    return sparse.vstack(blocks, format="csr")


ITEM_KNN = HistoryMethod(
    "item-knn",
    train_item_knn,
    (("neighbours", (200, 50, 100, 400, 1000)), ("shrinkage", (10.0, 0.0, 3.0, 30.0, 100.0))),
)
