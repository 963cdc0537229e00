"""Popularity in the training window: the same list for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.baselines.top_rows import top_rows
from shortlist.dataset import Dataset
from shortlist.queries import Queries


class Popularity:
    """Scores every item by how often the window chose it."""

    name = "popularity"

    def __init__(self, dataset: Dataset) -> None:
        self.scores = dataset.item_counts.astype(np.float32)  # (M,)

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        if exclude is None:
            rows, scores = top_rows(self.scores[None, :], k)
            return np.repeat(rows, len(queries), axis=0), np.repeat(scores, len(queries), axis=0)
        block = np.broadcast_to(self.scores, (len(queries), len(self.scores)))
        return top_rows(block, k, exclude)
