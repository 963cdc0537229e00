"""Which items a request may get: filters and withdrawals as a mask or a few rows for the index, and a mask for the overlay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.serve.ids import Id
from shortlist.serve.messages import Filters
from shortlist.serve.overlay import Mask, Overlay, Rows
from shortlist.serve.predicates import PredicateMasks

FEW = 256  # rows that are left out one by one; more become a mask
_NONE: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Eligible:
    """Sealed rows: those of `mask` (None = all), but for `excluded`. Overlay slots: those of `slots`."""

    mask: NDArray[np.bool_] | None  # (M,) not to be written to
    excluded: Rows
    slots: Mask  # (n,)

    def among(self, rows: Rows) -> Rows:
        """Those of the sealed `rows` that are eligible, in their order."""
        if self.mask is not None:
            rows = rows[self.mask[rows]]
        return rows[~np.isin(rows, self.excluded)] if len(self.excluded) else rows


def eligible(
    overlay: Overlay, masks: PredicateMasks, rows_of: Callable[[Sequence[Id]], Rows], filters: Filters, left_out: Rows
) -> Eligible:
    """What `filters` let through.

    masks     of predicates over the sealed rows
    rows_of   ids -> rows of sealed index or overlay, -1 = unknown
    left_out  further rows of either
    Raises    BadRequestError for ids or values of another type, and for columns that are not there
    """
    mask: Mask | None = None
    slots, excluded = overlay.live, overlay.hidden
    if filters.where:
        mask = masks.of(filters.where)
        slots = slots & overlay.masks.of(filters.where)
    if filters.allow is not None:
        allowed, allowed_slots = np.zeros(overlay.sealed, bool), np.zeros(len(slots), bool)
        _mark(allowed, allowed_slots, rows_of(filters.allow), True)
        mask, slots = allowed if mask is None else allowed & mask, slots & allowed_slots
    if filters.deny:
        left_out = np.concatenate([left_out, rows_of(filters.deny)])
    left_out = left_out[left_out >= 0]
    if len(excluded) + len(left_out) > FEW:
        base = overlay.alive if mask is None else mask & overlay.alive if len(excluded) else mask
        mask, excluded = base.copy(), _NONE
        slots = slots.copy()
        _mark(mask, slots, left_out, False)
    elif len(left_out):
        is_slot = left_out >= overlay.sealed
        excluded = np.concatenate([excluded, left_out[~is_slot]])
        if is_slot.any():
            slots = slots.copy()
            slots[left_out[is_slot] - overlay.sealed] = False
    return Eligible(mask, excluded, slots)


def _mark(mask: Mask, slots: Mask, rows: Rows, value: bool) -> None:
    """Nothing comes back: the entries at `rows`, unknown ones left aside, are set."""
    mask[rows[(rows >= 0) & (rows < len(mask))]] = value
    slots[rows[rows >= len(mask)] - len(mask)] = value
