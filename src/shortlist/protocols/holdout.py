"""Random holdouts, and the last event of each user: protocols for logs without times, and for cold users and items."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import DataError
from shortlist.log import EventLog, asking_role
from shortlist.protocols.split import Split
from shortlist.sections import HoldoutUnit


def holdout_split(log: EventLog, unit: HoldoutUnit, fraction: float, seed: int) -> Split:
    """A random share held out, every unit with all its rows: rows, distinct (asker, item) pairs, users or items.

    users    cold users: nothing of them is learned from, but a query knows what its user chose before it; without times, all else it chose
    items    cold items: none of them is a positive in training. A log whose seeds or histories are columns of its own may still
             show one there, as online.
    Whether a unit is held out does not depend on the order of the rows. Raises DataError where no column tells the units apart.
    """
    rng = np.random.default_rng((seed, 3))
    if unit == "rows":
        test = rng.random(log.frame.height) < fraction
    else:
        units = _units(log, unit)  # -1 = nobody, who is never held out
        test = (rng.random(int(units.max()) + 1) < fraction)[units] & (units >= 0)
    remembered = np.ones(len(test), bool) if unit == "users" else ~test
    return Split(f"{fraction:.0%} of {unit}", log, test, remembered)


def leave_last_split(log: EventLog) -> Split:
    """The last event of every user with two or more; users' earlier events are learned from."""
    frame = log.frame.select("user").with_row_index("row")
    last = frame.filter(pl.col("user").is_not_null() & (pl.len().over("user") > 1)).group_by("user").agg(pl.col("row").max())
    test = np.zeros(log.frame.height, bool)
    test[last["row"].to_numpy()] = True
    return Split("last event of each user", log, test, np.ones(len(test), bool))


def _units(log: EventLog, unit: HoldoutUnit) -> NDArray[np.int64]:
    """(n,) the unit of each row as a number from 0; -1 for the rows of nobody where users are held out."""
    if unit == "users":
        if "user" not in log.frame.columns or log.frame["user"].null_count() == len(log):
            raise DataError(f'evaluate.holdout = "users" needs events of users: got none in {log.source}; use "pairs", "items" or "rows"')
        key = pl.col("user")
    elif unit == "items":
        key = pl.col("item")
    else:
        asker = asking_role(log)
        if asker is None:
            raise DataError('evaluate.holdout = "pairs" needs a user or a seed column to pair items with: got neither; use "rows"')
        key = pl.struct(asker, "item")
    numbers = log.frame.select(key.rank("dense").cast(pl.Int64) - 1).to_series()
    return numbers.fill_null(-1).to_numpy()
