"""A retriever made of a function that scores the whole corpus: blocks of queries, popularity behind, the best k.

The baselines differ in their scores alone. What they share is here, so that none is weaker than another by neglect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.baselines.chosen_by import Shown
from shortlist.baselines.top_rows import top_rows
from shortlist.queries import Queries

Scores = NDArray[np.float32]
_BLOCK_ENTRIES = 1 << 24  # scores at a time: 64 MB
_BEHIND = 1e-9  # how far below 0 the items begin that a method has nothing to say about


@dataclass(frozen=True, eq=False)
class ScoredCorpus:
    """Ranks the corpus by `score`; items of score 0, about which the method has nothing to say, come behind by popularity.

    name               what the tables call it
    score              queries -> (B, M); above 0 speaks for the item
    popularity         (M,) >= 0, the order of items of score 0
    popularity_weight  b: to each score, b * the query's best score * log(1 + popularity) / its largest is added
    seen_last          what queries show; those items come behind all others. None = they rank as they score
    settings           what was tuned, for the tables
    """

    name: str
    score: Callable[[Queries], Scores]
    popularity: NDArray[np.number]
    popularity_weight: float = 0.0
    seen_last: Shown | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        rows, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
        for start, block in self.blocks(queries):
            found = top_rows(self.scores(block), k, None if exclude is None else exclude[start : start + len(block)])
            rows.append(found[0])
            scores.append(found[1])
        return np.concatenate(rows), np.concatenate(scores)

    def blocks(self, queries: Queries) -> Iterator[tuple[int, Queries]]:
        """(number of the first, queries) for as many queries at a time as memory bears."""
        step = max(1, _BLOCK_ENTRIES // len(self.popularity))
        for start in range(0, len(queries), step):
            yield start, queries.take(np.arange(start, min(start + step, len(queries))))

    def scores(self, queries: Queries) -> Scores:
        """(B, M) what ranks."""
        scores = self.score(queries)
        if self.popularity_weight:
            prior = np.log1p(self.popularity) / np.log1p(max(self.popularity.max(), 1))  # (M,) in 0..1
            best = np.maximum(scores.max(axis=1, keepdims=True), 0)
            scores = scores + np.float32(self.popularity_weight) * best * prior.astype(np.float32)
        behind = _BEHIND * (self.popularity / (self.popularity.max() + 1) - 1)  # (M,)
        scores = np.where(scores == 0, behind.astype(np.float32), scores)
        if self.seen_last is not None:
            query, row = self.seen_last.weights(queries).nonzero()
            below = scores.max(axis=1) - scores.min(axis=1) + 1
            scores[query, row] -= below[query]
        return scores
