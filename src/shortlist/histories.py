"""What each event's user chose before it, as ranges of one array: nobody's history is ever copied.

Derived strictly from events before the event's own instant, or, in a log whose rows follow each other, from the rows above it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.id_places import row_blocks
from shortlist.user_order import INT32_ROWS, UserOrder, user_order

Histories = tuple[NDArray[np.int32], NDArray[np.signedinteger], NDArray[np.signedinteger]]


def derived_histories(
    users: pl.Series,
    time: pl.Series | NDArray[np.int64],
    item_row: NDArray[np.int32],
    *,
    in_order: bool,
    remembered: NDArray[np.bool_] | None = None,
) -> Histories:
    """(flat item rows, starts, ends): what each event's user chose before it, oldest first. Positions are 32-bit where they fit.

    Events come in time order. Events of one user at one instant do not see each other, unless `in_order`.
    Events without a user have no past. Events that are not `remembered` (None = all are) are in nobody's past.
    """
    return histories_by_user(user_order(users), instants(pl.Series(time)), item_row, in_order=in_order, remembered=remembered)


def histories_by_user(
    by_user: UserOrder,
    instant: NDArray[np.int32],
    item_row: NDArray[np.int32],
    *,
    in_order: bool,
    remembered: NDArray[np.bool_] | None = None,
) -> Histories:
    """As `derived_histories`, of a log in its order by user.

    instant   (n,) equal numbers for equal times
    """
    count = len(item_row)
    dtype = np.int32 if count < INT32_ROWS else np.int64
    start: NDArray[np.signedinteger] = np.zeros(count, dtype)
    end: NDArray[np.signedinteger] = np.zeros(count, dtype)
    items = np.empty(count if remembered is None else int(remembered.sum()), np.int32)
    filled = 0
    for events, bounds in _blocks(by_user):
        kept = np.ones(len(events), bool) if remembered is None else remembered[events]
        before = np.concatenate([[0], np.cumsum(kept)])  # remembered events in front of each place of the block
        if bounds is not None:
            place = np.arange(len(events))
            first_of_user = np.repeat(bounds[:-1], np.diff(bounds))
            sees_until = place if in_order else _first_of_instant(instant[events], first_of_user, place)
            start[events] = filled + before[first_of_user]
            end[events] = filled + before[sees_until]
        items[filled : filled + before[-1]] = item_row[events[kept]]
        filled += int(before[-1])
    return items, start, end


def instants(time: pl.Series) -> NDArray[np.int32]:
    """(n,) a number for each event's time, which rises by one where the time changes; times come in order."""
    numbers = np.empty(len(time), np.int32)
    before, number = None, 0
    for rows in row_blocks(len(time)):
        block = time[rows].to_numpy()
        changed = np.empty(len(block), bool)
        changed[0] = before is not None and block[0] != before
        np.not_equal(block[1:], block[:-1], out=changed[1:])
        numbers[rows] = number + np.cumsum(changed)
        before, number = block[-1], int(numbers[rows.stop - 1])
    return numbers


def _blocks(by_user: UserOrder) -> Iterator[tuple[NDArray[np.integer], NDArray[np.int64] | None]]:
    """(events, bounds of the users among them) of blocks of whole users; first the events of nobody, without bounds."""
    yield by_user.order[: by_user.bounds[0]], None
    for first, stop in by_user.blocks():
        bounds = by_user.bounds[first : stop + 1]
        yield by_user.order[bounds[0] : bounds[-1]], bounds - bounds[0]


def _first_of_instant(instant: NDArray[np.int32], first_of_user: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the first place of each event's user and instant."""
    is_new = place == first_of_user
    is_new[1:] |= instant[1:] != instant[:-1]
    return np.maximum.accumulate(np.where(is_new, place, 0))
