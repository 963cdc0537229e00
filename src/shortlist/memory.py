"""Item vectors of past steps, as further negatives that cost no tower: a queue of positives, a cache of the corpus.

queue   the positives of the last batches, so more unigram negatives (cross-batch negatives, Wang et al., SIGIR'21)
cache   the last known vector of every item, so a large B' at a chosen cost (after Lindgren et al., NeurIPS'21): each step
        refreshes the items it encodes anyway, that is the batch's positives and its B' index draws, and any further uniform
        draws are read from here
Both are stale by some steps, and carry no gradient to the items.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray


class VectorMemory:
    """Remembered item vectors with their biases; all state is in tensors that a checkpoint keeps."""

    def __init__(self, *, corpus_size: int, dim: int, queue_size: int, caches: bool) -> None:
        """`dim` counts the vector and one more coordinate, the bias."""
        self.queue_rows = torch.full((queue_size,), -1, dtype=torch.int64)
        self.queue_vectors = torch.zeros(queue_size, dim)
        self.cache = torch.zeros(corpus_size if caches else 0, dim)
        self.filled = torch.zeros((), dtype=torch.int64)  # how many rows of the queue hold a vector: the first ones

    @property
    def queued(self) -> int:
        """How many past positives the queue holds now."""
        return int(self.filled)

    def columns(self, cached_rows: NDArray[np.int64] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(item rows (E,), vectors with bias (E, dim)): the queue, then the cached draws."""
        rows, vectors = [self.queue_rows[: self.queued]], [self.queue_vectors[: self.queued]]
        if cached_rows is not None and len(cached_rows):
            drawn = torch.from_numpy(cached_rows)
            rows.append(drawn)
            vectors.append(self.cache[drawn])
        return torch.cat(rows), torch.cat(vectors)

    @torch.no_grad()
    def remember(self, item_row: torch.Tensor, vectors: torch.Tensor, positive: torch.Tensor) -> None:
        """Takes in what a step encoded: distinct items (c,) with vectors (c, dim); `positive` (B,) points into them."""
        if len(self.cache):
            self.cache[item_row] = vectors.detach()
        if len(self.queue_rows):
            newest = positive[: len(self.queue_rows)]
            self.queue_rows = torch.cat([item_row[newest], self.queue_rows])[: len(self.queue_rows)]
            self.queue_vectors = torch.cat([vectors.detach()[newest], self.queue_vectors])[: len(self.queue_vectors)]
            self.filled.fill_(min(self.queued + len(newest), len(self.queue_rows)))

    def fill_cache(self, vectors: NDArray[np.float32]) -> None:
        """Starts the cache with vectors (M, dim) of the whole corpus."""
        self.cache = torch.from_numpy(vectors.copy())

    def state(self) -> dict[str, torch.Tensor]:
        """Everything a checkpoint must hold."""
        return {"queue_rows": self.queue_rows, "queue_vectors": self.queue_vectors, "cache": self.cache, "filled": self.filled}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        self.queue_rows, self.queue_vectors = state["queue_rows"].clone(), state["queue_vectors"].clone()
        self.cache, self.filled = state["cache"].clone(), state["filled"].clone()
