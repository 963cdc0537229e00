"""How often each item comes as a positive: q_j, its share of the training positives, counted or followed. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ItemFrequency:
    """The unigram share q of every item, from exact counts over the training window."""

    q: NDArray[np.float64]  # (M,), adds up to 1; 0 for an item that nobody chose
    ever: NDArray[np.bool_] | None = None  # (M,) chosen before this window; None = not known to be

    def __len__(self) -> int:
        return len(self.q)

    def expected_positives(self, item_row: NDArray[np.integer], others: int) -> NDArray[np.float64]:
        """(n,) others * q_j."""
        expected: NDArray[np.float64] = others * self.q[item_row]
        return expected

    def chosen(self, item_row: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(n,) q_j > 0, or chosen before the window."""
        chosen: NDArray[np.bool_] = self.q[item_row] > 0
        return chosen if self.ever is None else chosen | self.ever[item_row]


def exact_frequency(item_counts: NDArray[np.int64], ever: NDArray[np.bool_] | None = None) -> ItemFrequency:
    """q_j = count_j / total. Raises ValueError without a single positive."""
    total = int(item_counts.sum())
    if total <= 0:
        raise ValueError("item frequencies need at least one positive: got none; is the training window empty?")
    return ItemFrequency(item_counts / total, ever)
