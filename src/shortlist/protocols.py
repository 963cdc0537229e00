"""Which events are learned from and which are tested: rolling windows, random holdout, last event of each user.

A split never lets a query see its future: what a query may know of the past is a fact of the split (`remembered`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.config import Config
from shortlist.errors import DataError
from shortlist.log import EventLog

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Split:
    """One train/test division of a log.

    log         the events of the window, training and test together, in time order
    test        (n,) which of them are tested; the others are learned from
    remembered  (n,) which of them later queries may know of. In rolling windows all: a query at noon knows what the same
                user chose at eleven, as it would online. In a random holdout only the training events.
    """

    name: str
    log: EventLog
    test: NDArray[np.bool_]
    remembered: NDArray[np.bool_]

    @property
    def train_log(self) -> EventLog:
        """The events to learn from."""
        return self.log.leave_out(pl.Series(self.test), "held out for testing")


def splits(log: EventLog, config: Config) -> Iterator[Split]:
    """The splits that `evaluate.protocol` names, oldest first. Raises DataError where one would be empty on a side."""
    settings = config.evaluate
    match settings.protocol:
        case "rolling":
            for first_test_day in rolling_days(log, config):
                split = rolling_split(log, first_test_day, settings.train_days, settings.test_days)
                yield _checked(split, "train_days, test_days, shifts and last_day against the log's time span")
        case "holdout":
            yield _checked(holdout_split(log, settings.holdout, settings.holdout_fraction, settings.seed), "holdout_fraction")
        case "leave_last":
            yield _checked(leave_last_split(log), "protocol: no user may have a second event")


def rolling_days(log: EventLog, config: Config) -> list[date]:
    """The first test day of each shift, oldest first; shifts are a day apart and the last one ends with the last day."""
    settings = config.evaluate
    final = _last_day(log, config) - timedelta(days=settings.test_days - 1)
    return [final - timedelta(days=shift) for shift in reversed(range(settings.shifts))]


def rolling_split(log: EventLog, first_test_day: date, train_days: int, test_days: int) -> Split:
    """Train on the `train_days` UTC days before `first_test_day`, test on the `test_days` from it on."""
    start = _microseconds(first_test_day)
    window = log.between(start - train_days * _DAY_US, start + test_days * _DAY_US)
    test = window.frame["time"].to_numpy() >= start
    return Split(first_test_day.isoformat(), window, test, np.ones(len(test), bool))


def holdout_split(log: EventLog, unit: str, fraction: float, seed: int) -> Split:
    """A random share held out: of the rows, or of the distinct (asker, item) pairs with all their rows."""
    rng = np.random.default_rng((seed, 3))
    if unit == "rows":
        test = rng.random(log.frame.height) < fraction
    else:
        asker = next((role for role in ("user", "seed") if role in log.frame.columns), None)
        if asker is None:
            raise DataError('evaluate.holdout = "pairs" needs a user or a seed column to pair items with: got neither; use "rows"')
        pair = log.frame.select(pl.struct(asker, "item").rank("dense")).to_series().to_numpy() - 1
        test = (rng.random(int(pair.max()) + 1) < fraction)[pair]
    return Split(f"{fraction:.0%} of {unit}", log, test, ~test)


def leave_last_split(log: EventLog) -> Split:
    """The last event of every user with two or more; users' earlier events are learned from."""
    frame = log.frame.select("user").with_row_index("row")
    last = frame.filter(pl.col("user").is_not_null() & (pl.len().over("user") > 1)).group_by("user").agg(pl.col("row").max())
    test = np.zeros(log.frame.height, bool)
    test[last["row"].to_numpy()] = True
    return Split("last event of each user", log, test, np.ones(len(test), bool))


def _checked(split: Split, settings: str) -> Split:
    tested = int(split.test.sum())
    if tested == 0 or tested == len(split.test):
        raise DataError(
            f"split {split.name} needs events on both sides: got {len(split.test) - tested} to learn from and {tested} to test; "
            f"check [evaluate] {settings}"
        )
    return split


def _last_day(log: EventLog, config: Config) -> date:
    """The last day that counts: the one named, else that of the newest event."""
    return config.evaluate.last_day or _day_of(int(log.frame["time"].to_numpy().max()))


def _day_of(time_us: int) -> date:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).date()


def _microseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def latest_window(log: EventLog, config: Config) -> EventLog:
    """The events a model to be published learns from: the last `train_days` of a rolling protocol, else the whole log."""
    settings = config.evaluate
    if settings.protocol != "rolling":
        return log
    end = _microseconds(_last_day(log, config) + timedelta(days=1))
    return log.between(end - settings.train_days * _DAY_US, end)
