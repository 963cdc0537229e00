"""Co-occurrence, backed by popularity: what is chosen together with what this query already shows.

Which count, follows from who asks:
- users ask, with a seed and a history: how often item j was chosen within ten choices of item i, summed over the ten
  newest items the query shows. Near choices count more: a distance d counts 1 / d in training, a place p 1 / p in the query.
- the seed itself asks, over and over (a package, a page): how many seeds have both i and j among their choices, summed
  over the seed as an item and its own choices in the window.
An item without any co-occurrence scores below all that have one, by its popularity.

Memory is bounded by the log, never by the corpus squared: users' counts hold at most `_LAST` entries an example, of the
newest `_MOST_EXAMPLES` (50 million entries of 8 bytes); seeds' counts are not stored, but multiplied out query by query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.baselines.chosen_by import chosen_by_seed, shown_rows
from shortlist.baselines.top_rows import top_rows
from shortlist.dataset import Dataset, Examples
from shortlist.queries import Queries

_BLOCK = 256
_LAST = 10  # choices on each side
_MOST_EXAMPLES = 5_000_000


class CoOccurrence:
    """Scores items by co-occurrence with what the query shows."""

    name = "co-occurrence"

    def __init__(self, dataset: Dataset, *, seeds_ask: bool) -> None:
        """`seeds_ask`: the log has seeds of its own and no users."""
        train, size = dataset.train, len(dataset.items)
        self.seeds_ask = seeds_ask
        if seeds_ask:
            self.chosen = chosen_by_seed(train, size)  # (seed, item) 0 or 1
            self.choosers = np.asarray(self.chosen.sum(axis=0), np.float32).ravel()  # (M,)
        else:
            self.near = _near_choices(train, size)  # (what a query shows, item)
        popularity = dataset.item_counts.astype(np.float32)
        least = 1.0 if seeds_ask else 1.0 / _LAST**2  # a single co-occurrence, as far apart as can be
        self.backing = popularity / (popularity.max() + 1) * np.float32(least)  # (M,) below it

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        rows, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
        for start in range(0, len(queries), _BLOCK):
            block = queries.take(np.arange(start, min(start + _BLOCK, len(queries))))
            together = self._beside_choices(block) if self.seeds_ask else self._near_shown(block)
            found = top_rows(together + self.backing, k, None if exclude is None else exclude[start : start + _BLOCK])
            rows.append(found[0])
            scores.append(found[1])
        return np.concatenate(rows), np.concatenate(scores)

    def _near_shown(self, queries: Queries) -> NDArray[np.float32]:
        """(B, M) counts of items near those that the queries show."""
        return np.asarray((_weighted(shown_rows(queries, _LAST), len(self.backing)) @ self.near).toarray(), np.float32)

    def _beside_choices(self, queries: Queries) -> NDArray[np.float32]:
        """(B, M) counts of items that share a seed with the query's seed or with its choices; an item does not count for itself."""
        seed = _weighted(queries.seed_row[:, None], len(self.backing))  # (B, M)
        sources = seed + seed @ self.chosen
        itself = sources.multiply(self.choosers[None, :])
        return np.asarray((sources @ self.chosen.T @ self.chosen - itself).toarray(), np.float32)


def _near_choices(train: Examples, size: int) -> sparse.csr_matrix:
    """(M, M): for each pair of items, the sum of 1 / distance over the times the second was chosen after the first was shown."""
    first = max(0, len(train) - _MOST_EXAMPLES)
    shown = shown_rows(train.queries.take(np.arange(first, len(train))), _LAST)  # (n, L)
    item = train.item_row[first:]
    near = sparse.csr_matrix((size, size), dtype=np.float32)
    for place in range(shown.shape[1]):
        known = shown[:, place] >= 0
        weight = np.full(int(known.sum()), 1.0 / (1 + place), np.float32)
        near = near + sparse.csr_matrix((weight, (shown[known, place], item[known])), shape=(size, size))
    return near


def _weighted(rows: NDArray[np.int32], size: int) -> sparse.csr_matrix:
    """(N, size) with 1 / (1 + place) at each of the (N, L) rows."""
    query, place = np.nonzero(rows >= 0)
    weight = (1.0 / (1 + place)).astype(np.float32)
    return sparse.csr_matrix((weight, (query, rows[query, place])), shape=(len(rows), size))
