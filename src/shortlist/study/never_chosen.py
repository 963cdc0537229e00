"""How much of a recall comes from pushing down items that nobody chose? They can hardly be right answers, so to push all of them
down lifts the recall of a log whether they are bad or new. Measured by ranking twice: with them, and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.evaluate import Retriever
from shortlist.queries import Queries

_ENTRIES_AT_ONCE = 1 << 23  # (query, never-chosen item) pairs: 64 MB
_RANKED_ENTRIES = 1 << 23  # (query, item) pairs that whole rankings are looked at for

Rows = NDArray[np.int64]
Found = tuple[Rows, NDArray[np.float32]]


@dataclass(eq=False)
class CountedLists:
    """A retriever whose answers are counted as they pass: how many of the first `k` are never-chosen items?

    never_chosen   (M,)
    """

    retriever: Retriever
    never_chosen: NDArray[np.bool_]
    k: int
    _listed: int = field(default=0, init=False)
    _never: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        """What the tables call it."""
        return self.retriever.name

    @property
    def share(self) -> float:
        """The share of never-chosen items among all that was listed so far. Raises ZeroDivisionError before the first list."""
        return self._never / self._listed

    def retrieve(self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None) -> Found:
        """The retriever's own answer."""
        rows, scores = self.retriever.retrieve(queries, k, exclude)
        shown = rows[:, : self.k]
        self._listed += int((shown >= 0).sum())
        self._never += int((self.never_chosen[shown] & (shown >= 0)).sum())
        return rows, scores


@dataclass(frozen=True, eq=False)
class ChosenOnly:
    """A retriever that may not list never-chosen items (M,)."""

    retriever: Retriever
    never_chosen: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """What the tables call it."""
        return self.retriever.name

    def retrieve(self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None) -> Found:
        """(rows, scores), each (N, k), padded where fewer items were ever chosen."""
        never = np.flatnonzero(self.never_chosen)
        step = max(1, _ENTRIES_AT_ONCE // max(1, len(never)))
        rows, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
        for start in range(0, len(queries), step):
            block = queries.take(np.arange(start, min(start + step, len(queries))))
            known = [never] * len(block) if exclude is None else [np.append(never, more) for more in exclude[start : start + len(block)]]
            found = self.retriever.retrieve(block, k, known)
            rows.append(found[0])
            scores.append(found[1])
        return np.concatenate(rows), np.concatenate(scores)


def mean_place(retriever: Retriever, queries: Queries, never_chosen: NDArray[np.bool_]) -> float | None:
    """Where never-chosen items stand in whole rankings: 0 = all on top, .5 = spread evenly, 1 = all at the end.

    The mean over items and queries, as many of these as memory bears, evenly spread, of (items above) / (M - their number):
    only the chosen items above count, so the scale runs from 0 to 1 however many never-chosen items there are.
    None where all items, or none, were chosen.
    """
    size, never = len(never_chosen), int(never_chosen.sum())
    if not 0 < never < size:
        return None
    count = min(len(queries), max(1, _RANKED_ENTRIES // size))
    asked = queries.take(np.linspace(0, len(queries) - 1, count).astype(np.intp))
    rows, _ = retriever.retrieve(asked, size)  # (n, M)
    is_never = never_chosen[rows]
    chosen_above = np.cumsum(~is_never, axis=1)
    return float(chosen_above[is_never].mean() / (size - never))
