"""Co-occurrence, backed by popularity: what is chosen together with what this query already shows.

Which count, follows from who asks:
- users ask, and the seed is what they chose just before: how often item j was chosen with seed i (`followed`);
- the seed itself asks, over and over (a package, a page): how many seeds have both i and j among their choices
  (`shared`), summed over the seed and its own choices in the window.
An item without any co-occurrence scores below all that have one, by its popularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.baselines.top_rows import top_rows
from shortlist.dataset import Dataset
from shortlist.queries import Queries

_BLOCK = 256


class CoOccurrence:
    """Scores items by co-occurrence with the query's seed."""

    name = "co-occurrence"

    def __init__(self, dataset: Dataset, *, seeds_ask: bool) -> None:
        """`seeds_ask`: the log has seeds of its own and no users."""
        train, size = dataset.train, len(dataset.items)
        known = train.queries.seed_row >= 0
        pairs = (train.queries.seed_row[known], train.item_row[known])
        followed = sparse.csr_matrix((np.ones(int(known.sum()), np.float32), pairs), shape=(size, size))  # (seed, item)
        self.counts = _shared(followed) if seeds_ask else followed  # (what a query shows, item)
        popularity = dataset.item_counts.astype(np.float32)
        self.backing = popularity / (popularity.max() + 1)  # (M,) below 1, the least co-occurrence

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        rows, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
        for start in range(0, len(queries), _BLOCK):
            seed = queries.seed_row[start : start + _BLOCK]
            shown = self.counts[np.maximum(seed, 0)].multiply((seed >= 0)[:, None]).toarray()  # (b, M)
            block = np.asarray(shown + self.backing, np.float32)
            found = top_rows(block, k, None if exclude is None else exclude[start : start + _BLOCK])
            rows.append(found[0])
            scores.append(found[1])
        return np.concatenate(rows), np.concatenate(scores)


def _shared(chosen: sparse.csr_matrix) -> sparse.csr_matrix:
    """(seed, item): how often the item shares a seed with this seed as an item, or with one of its choices."""
    chosen = chosen.minimum(1)
    together = (chosen.T @ chosen).tolil()
    together.setdiag(0)
    together = together.tocsr()  # (item, item)
    return sparse.csr_matrix(together + chosen @ together)
