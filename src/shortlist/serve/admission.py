"""Which items a request may get: its filters and all withdrawals, in the forms that the index and the overlay search within."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.index.contract import Eligible, Index
from shortlist.serve.ids import Id
from shortlist.serve.messages import Filters
from shortlist.serve.overlay import Mask, Overlay, Rows
from shortlist.serve.predicates import PredicateMasks

FEW = 256  # rows that the index leaves out one by one; more become a mask
_NONE: Rows = np.zeros(0, np.int64)


class Admitted(NamedTuple):
    """Sealed rows: those of `sealed` (None = all), but for `excluded`. Overlay slots: those of `slots`."""

    sealed: Eligible | NDArray[np.bool_] | None  # (M,)
    excluded: Rows
    slots: Mask  # (n,)

    def among(self, rows: Rows) -> Rows:
        """Those of the sealed `rows` that are admitted, in their order."""
        if self.sealed is not None:
            rows = rows[(self.sealed.mask if isinstance(self.sealed, Eligible) else self.sealed)[rows]]
        return rows[~np.isin(rows, self.excluded)] if len(self.excluded) else rows


class Admission:
    """The filters of requests over one version and what changed in it since."""

    def __init__(self, overlay: Overlay, index: Index, masks: PredicateMasks[Eligible], rows_of: Callable[[Sequence[Id]], Rows]) -> None:
        """masks are those over the sealed rows; rows_of gives the rows of ids in the sealed index or the overlay, -1 = unknown."""
        self._overlay, self._index, self._masks, self._rows_of = overlay, index, masks, rows_of

    @cached_property
    def _alive(self) -> Eligible:
        """The sealed rows that are not hidden."""
        return self._index.prepare(self._overlay.alive)

    def of(self, filters: Filters, left_out: Rows) -> Admitted:
        """What `filters` let through, `left_out` (rows of index or overlay, -1 = none) taken out too.

        Raises BadRequestError for ids or values of another type, and for columns that are not there.
        """
        overlay = self._overlay
        sealed: Eligible | Mask | None = None
        where: Eligible | None = None
        slots, hidden = overlay.live, overlay.hidden
        if filters.where:
            sealed = where = self._masks.of(filters.where)
            slots = slots & overlay.masks.of(filters.where)
        if filters.allow is not None:
            allowed, allowed_slots = np.zeros(overlay.sealed, bool), np.zeros(len(slots), bool)
            _mark(allowed, allowed_slots, self._rows_of(filters.allow))
            sealed, slots = allowed if where is None else allowed & where.mask, slots & allowed_slots
        if filters.deny:
            left_out = np.concatenate([left_out, self._rows_of(filters.deny)])
        if not len(left_out) and not len(hidden):
            return Admitted(sealed, _NONE, slots)
        return self._without(sealed, slots, left_out[left_out >= 0])

    def _without(self, sealed: Eligible | Mask | None, slots: Mask, left_out: Rows) -> Admitted:
        """The admitted without hidden rows and `left_out`: a few by name, many by mask."""
        overlay = self._overlay
        is_slot = left_out >= overlay.sealed
        if is_slot.any():
            slots = slots.copy()
            slots[left_out[is_slot] - overlay.sealed] = False
        excluded, hidden = left_out[~is_slot], overlay.hidden
        if sealed is None and len(hidden) > FEW:
            sealed, hidden = self._alive, _NONE
        excluded = np.concatenate([excluded, hidden]) if len(hidden) else excluded
        if sealed is not None:
            mask = sealed.mask if isinstance(sealed, Eligible) else sealed
            excluded = excluded[mask[excluded]]
        if len(excluded) <= FEW:
            return Admitted(sealed, excluded, slots)
        mask = np.ones(overlay.sealed, bool) if sealed is None else mask.copy()
        mask[excluded] = False
        return Admitted(mask, _NONE, slots)


def _mark(mask: Mask, slots: Mask, rows: Rows) -> None:
    """Nothing comes back: the entries at `rows`, unknown ones left aside, are set."""
    mask[rows[(rows >= 0) & (rows < len(mask))]] = True
    slots[rows[rows >= len(mask)] - len(mask)] = True
