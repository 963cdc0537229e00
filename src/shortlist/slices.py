"""Which kinds of queries is a model good at? Popularity and age of the item that was chosen, and who asked."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.dataset import Dataset, Examples
from shortlist.log import EventLog
from shortlist.times import DAY_US

Mask = NDArray[np.bool_]
DECILES = 10
NEVER = -1  # the age of an item without an event before the query
AGE_BANDS = {  # from this age on, in microseconds, up to that of the next band
    "item age under a day": 0,
    "item age 1 to 7 days": DAY_US,
    "item age 7 to 30 days": 7 * DAY_US,
    "item age 30 to 365 days": 30 * DAY_US,
    "item age 365 days or more": 365 * DAY_US,
}


def slices_of(dataset: Dataset, examples: Examples) -> dict[str, Mask]:
    """Which queries (N,) ask for head, mid and tail items, for items unseen in training, and come from unseen users.

    Head are the most chosen items of the window that together drew a third of its choices, mid the next third, tail the
    rest; an item on the border belongs to the higher band. Deciles are tenths in the same way, 1 the most chosen items.
    An unseen item is in the corpus and was never chosen.
    """
    third, decile = (popularity_band(dataset.item_counts, parts)[examples.item_row] for parts in (3, DECILES))
    known = np.isin(examples.asker, dataset.train.asker) & (examples.asker >= 0)  # nobody is not a known user
    return {
        "head items": third == 1,
        "mid items": third == 2,
        "tail items": third == 3,
        "unseen items": third == 0,
        **{f"popularity decile {number}": decile == number for number in range(1, DECILES + 1)},
        "known users": known,
        "unseen users": ~known,
    }


def popularity_band(counts: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """The band (M,) of each item, 1 = the most chosen ... `parts`, each of which drew its share of the choices; 0 = never chosen.

    counts   (M,) how often each item was chosen; of equal ones, the lower row is the more popular
    """
    order = np.argsort(-counts, kind="stable")
    above = np.empty(len(counts), np.int64)  # choices of the items above each
    above[order] = np.cumsum(counts[order]) - counts[order]
    return np.where(counts > 0, 1 + parts * above // max(int(counts.sum()), 1), 0)


def slices_of_unseen(dataset: Dataset, examples: Examples, trained_on: Catalogue) -> dict[str, Mask]:
    """The queries for unseen items, told apart: was the item in the corpus that training had, or is it new since?"""
    unseen = dataset.item_counts[examples.item_row] == 0
    had = (trained_on.rows_of(dataset.items.ids) >= 0)[examples.item_row]
    return {"unseen items: never chosen": unseen & had, "unseen items: new since training": unseen & ~had}


def slices_of_age(age_us: NDArray[np.int64]) -> dict[str, Mask]:
    """The queries by the age of the item chosen (`item_age`); an item that nobody chose before has a band of its own."""
    edges = [*AGE_BANDS.values(), np.iinfo(np.int64).max]
    bands = {name: (age_us >= edges[place]) & (age_us < edges[place + 1]) for place, name in enumerate(AGE_BANDS)}
    return {**bands, "item never chosen before": age_us == NEVER}


def item_age(log: EventLog, items: Catalogue, examples: Examples) -> NDArray[np.int64] | None:
    """How long before each query (N,) its item was first chosen in `log`, in microseconds; NEVER where it was not.

    Events of the query's own instant are not before it. None where the log has no times.
    """
    if "time" not in log.frame.columns:
        return None
    events = log.frame.group_by("item").agg(pl.col("time").min())
    row = items.rows_of(events["item"])
    first = np.full(len(items), np.iinfo(np.int64).max)
    first[row[row >= 0]] = events["time"].to_numpy()[row >= 0]
    first = first[examples.item_row]
    before = first < examples.time
    return np.where(before, examples.time - np.where(before, first, 0), NEVER)
