"""How often each item is chosen: q_j, its share of the training positives. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ItemFrequency:
    """The unigram share q of every item, from exact counts over the training window."""

    q: NDArray[np.float64]  # (M,), adds up to 1; 0 for an item that nobody chose

    def __len__(self) -> int:
        return len(self.q)


def exact_frequency(item_counts: NDArray[np.int64]) -> ItemFrequency:
    """q_j = count_j / total. Raises ValueError without a single positive."""
    total = int(item_counts.sum())
    if total <= 0:
        raise ValueError("item frequencies need at least one positive: got none; is the training window empty?")
    return ItemFrequency(item_counts / total)
