"""Which cells of the logits are no negatives, beside accidental hits: other right answers of the same asker. numpy only.

Masks are by item id, never by equal embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.dataset import Examples
from shortlist.features.arrays import ragged_positions

Cells = NDArray[np.bool_]


@dataclass(frozen=True)
class KnownItems:
    """What every asker chose in the training window: asker a's items are items[offsets[a]:offsets[a + 1]], rising."""

    askers: NDArray[np.int64]  # (A,) rising
    offsets: NDArray[np.int64]  # (A + 1,)
    items: NDArray[np.int64]  # (total,)

    def cells(self, asker: NDArray[np.int64], column_item_row: NDArray[np.int64]) -> Cells:
        """(B, C) where the column's item is one that the row's asker chose at any time of the window."""
        if not len(self.askers) or not len(column_item_row):
            return np.zeros((len(asker), len(column_item_row)), bool)
        distinct, column = np.unique(column_item_row, return_inverse=True)
        place = np.searchsorted(self.askers, asker)
        place_inside = np.minimum(place, len(self.askers) - 1)
        found = self.askers[place_inside] == asker
        starts = np.where(found, self.offsets[place_inside], 0)
        ends = np.where(found, self.offsets[place_inside + 1], 0)
        positions, bounds = ragged_positions(starts, ends)
        items = self.items[positions]
        row = np.repeat(np.arange(len(asker)), np.diff(bounds))
        there = np.minimum(np.searchsorted(distinct, items), len(distinct) - 1)
        hit = distinct[there] == items
        known = np.zeros((len(asker), len(distinct)), bool)
        known[row[hit], there[hit]] = True
        return known[:, column]


def known_items(examples: Examples) -> KnownItems:
    """The distinct (asker, item) pairs of the examples; nobody's choices are left out."""
    return _distinct_pairs(examples.asker, examples.item_row)


def same_query_cells(asker: NDArray[np.int64], item_row: NDArray[np.integer], column_item_row: NDArray[np.int64]) -> Cells:
    """(B, C) where the column's item is the positive of another example of the same asker in the batch, whichever stream
    brought it. A row's own item is never among them: copies of it are the loss design's affair."""
    cells = _distinct_pairs(asker, item_row).cells(asker, column_item_row)
    own: Cells = item_row[:, None] == column_item_row[None, :]
    return cells & ~own


def _distinct_pairs(asker: NDArray[np.int64], item_row: NDArray[np.integer]) -> KnownItems:
    named = asker >= 0
    pairs = np.unique(np.stack([asker[named], item_row[named].astype(np.int64)], axis=1), axis=0)
    askers, starts = np.unique(pairs[:, 0], return_index=True)
    return KnownItems(askers, np.append(starts, len(pairs)).astype(np.int64), pairs[:, 1])
