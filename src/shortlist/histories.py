"""What each event's user chose before it, as ranges of one array: nobody's history is ever copied.

Derived strictly from events before the event's own instant, or, in a log whose rows follow each other, from the rows above it.
A log without times has no before: there it is what else the same asker chose, the item of the event itself left out.
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


def other_choices(
    by_asker: UserOrder, item_row: NDArray[np.int32], corpus_size: int, *, remembered: NDArray[np.bool_] | None = None
) -> Histories:
    """(flat item rows, starts, ends): what each event's asker chose beside its item, each item once, in an order that says nothing.

    For logs without times, where all choices of an asker are one set: a query that looks for one of them sees the others, as a query
    that comes later sees them all. An item that the asker chose in several events is hidden from all of them.

    item_row     (n,) below corpus_size
    remembered   (n,) which events others may know of; None = all. One that is not remembered sees all that are, but for its own item
    """
    items, start, end = _choices_twice(by_asker, item_row, corpus_size, remembered)
    count = len(item_row)
    dtype = np.int32 if 2 * count < INT32_ROWS else np.int64
    return items, start.astype(dtype), end.astype(dtype)


def place_in_sets(corpus_size: int) -> NDArray[np.int64]:
    """(M,) by which items stand in the sets of `other_choices`, and in those that are published: at random, but always alike.

    A query reads the last so many of a set; by row they would be items of like names.
    """
    return np.random.default_rng(0).permutation(corpus_size)


def _choices_twice(
    by_asker: UserOrder, item_row: NDArray[np.int32], corpus_size: int, remembered: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """As `other_choices`. Every asker's items stand twice in a row, so that all but any one of them are a range."""
    start, end = np.zeros(len(item_row), np.int64), np.zeros(len(item_row), np.int64)
    shuffled = place_in_sets(corpus_size)
    row_of = np.argsort(shuffled).astype(np.int32)
    parts, filled = [np.zeros(0, np.int32)], 0
    for first, stop in by_asker.blocks():
        bounds = by_asker.bounds[first : stop + 1]
        events = by_asker.order[bounds[0] : bounds[-1]]
        asker = np.repeat(np.arange(stop - first), np.diff(bounds))
        pair = asker * np.int64(corpus_size) + shuffled[item_row[events]]
        known = np.unique(pair if remembered is None else pair[remembered[events]])  # by asker
        size = np.bincount(known // corpus_size, minlength=stop - first)
        before = np.cumsum(size) - size
        place = np.searchsorted(known, pair)
        is_known = known[np.minimum(place, len(known) - 1)] == pair if len(known) else np.zeros(len(pair), bool)
        own = np.where(is_known, place - before[asker], 0)
        offset = filled + 2 * before[asker]
        start[events] = offset + np.where(is_known, own + 1, 0)
        end[events] = offset + np.where(is_known, own, 0) + size[asker]
        once, twice = row_of[known % corpus_size], np.empty(2 * len(known), np.int32)
        where = np.arange(len(known)) + np.repeat(before, size)
        twice[where] = once
        twice[where + np.repeat(size, size)] = once
        parts.append(twice)
        filled += len(twice)
    return np.concatenate(parts), start, end


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
