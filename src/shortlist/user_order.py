"""A log user after user: who has which events, without a copy of any history.

A counting sort (scipy's) puts the events in order: the log is by time already, so nothing has to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.id_places import ROWS_AT_ONCE, places_among

INT32_ROWS = 1 << 31  # so many rows and more need 64-bit numbers


@dataclass(frozen=True, eq=False)
class UserOrder:
    """User u's events are order[bounds[u] : bounds[u + 1]], in the order of the log; before bounds[0] are those of nobody."""

    users: pl.Series  # (U,) the distinct users, rising: strings by their bytes, integers by value
    order: NDArray[np.integer]  # (n,) rows of the log; 32-bit where they fit
    bounds: NDArray[np.int64]  # (U + 1,)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first user, end) of blocks of whole users with about ROWS_AT_ONCE events each."""
        edges = np.searchsorted(self.bounds, np.arange(0, len(self.order) + ROWS_AT_ONCE, ROWS_AT_ONCE))
        edges = np.unique(np.minimum(np.append(edges, len(self.users)), len(self.users)))
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def user_order(users: pl.Series) -> UserOrder:
    """The order of a log by its column of users, which may hold nulls."""
    from scipy.sparse import coo_array  # logs alone are ordered: a server, which imports this module too, holds 18 MB less

    distinct = users.drop_nulls().unique().sort()
    line = places_among(distinct, users)
    line += 1  # nobody is line 0
    count = len(users)
    number = np.arange(count, dtype=np.int32 if count < INT32_ROWS else np.int64)
    by_line = coo_array((np.ones(count, bool), (line, number)), shape=(len(distinct) + 1, max(count, 1))).tocsr()
    return UserOrder(distinct, by_line.indices, by_line.indptr[1:].astype(np.int64))
