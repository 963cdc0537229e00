"""What most people chose: the list that is always there when nothing better answers."""

from __future__ import annotations

import numpy as np

from shortlist.bundle import Bundle
from shortlist.serve.admission import Admitted
from shortlist.serve.overlay import Floats, Overlay, Rows

_BLOCK = 4096


def popular_order(bundle: Bundle) -> tuple[Floats, Rows]:
    """(choices of each item (M,), rows by falling choices, ties by row (M,)), as far as the bundle knows.

    A bundle of before `popularity.npy` is counted by the histories that it holds.
    """
    counts = bundle.popularity
    if counts is None:
        counts = np.zeros(len(bundle.items), np.int64)
        if bundle.histories is not None:
            rows = bundle.items.rows_of(bundle.histories["history"].explode(empty_as_null=False, keep_nulls=False))
            counts = np.bincount(rows[rows >= 0], minlength=len(bundle.items))
    return counts.astype(np.float32), np.argsort(-counts, kind="stable")


def most_popular(order: Rows, popularity: Floats, overlay: Overlay, admitted: Admitted, k: int) -> tuple[Rows, Floats]:
    """(rows, choices) of the k most chosen admitted items, fewer where fewer are admitted; items of the overlay come last, with 0."""
    found = np.zeros(0, np.int64)
    for start in range(0, len(order), _BLOCK):
        found = np.concatenate([found, admitted.among(order[start : start + _BLOCK])])
        if len(found) >= k:
            return found[:k], popularity[found[:k]]
    slots = np.flatnonzero(admitted.slots)[: k - len(found)]
    scores = np.concatenate([popularity[found], np.zeros(len(slots), np.float32)])
    return np.concatenate([found, slots + overlay.sealed]), scores
