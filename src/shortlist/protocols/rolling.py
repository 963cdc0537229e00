"""Rolling windows: train on some days, test on the next, and again a day later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np

from shortlist.log import EventLog
from shortlist.protocols.days import days_of, newest_day, start_of
from shortlist.protocols.split import Split, checked
from shortlist.sections import Config, DayCount
from shortlist.times import DAY_US


def rolling_splits(log: EventLog, config: Config) -> Iterator[Split]:
    """One split a shift, oldest first. Raises DataError where one would be empty on a side."""
    settings = config.evaluate
    for first_test_day in rolling_days(log, config):
        split = rolling_split(log, first_test_day, settings.train_days, settings.test_days, days=settings.days)
        advice = "train_days, test_days, shifts and last_day against the log's time span"
        if not split.test.any():
            until = "" if settings.test_days == 1 else f" to {first_test_day + timedelta(days=settings.test_days - 1)}"
            advice += f'. No event is of {first_test_day}{until}: if the shop was closed, set days = "active" to count days with events'
        yield checked(split, advice)


def rolling_days(log: EventLog, config: Config) -> list[date]:
    """The first test day of each shift, oldest first; shifts are a day apart and the last one ends with the last day.

    Raises DataError where `evaluate.days` is "active" and the log has fewer days with events than the shifts take.
    """
    settings = config.evaluate
    tested = days_of(log, settings.days).ending(_last_day(log, config), settings.shifts + settings.test_days - 1)
    return tested[: settings.shifts]


def rolling_split(log: EventLog, first_test_day: date, train_days: int, test_days: int, *, days: DayCount = "calendar") -> Split:
    """Train on the `train_days` UTC days before `first_test_day`, test on the `test_days` from it on.

    days     "active": days without events do not count
    Raises   DataError where the log has fewer days with events than that
    """
    counted = days_of(log, days)
    start = start_of(counted.ending(first_test_day - timedelta(days=1), train_days)[0])
    end = start_of(counted.starting(first_test_day, test_days)[-1]) + DAY_US
    window = log.between(start, end)
    test = window.frame["time"].to_numpy() >= start_of(first_test_day)
    return Split(first_test_day.isoformat(), window, test, np.ones(len(test), bool), whole_log=log)


def latest_window(log: EventLog, config: Config) -> EventLog:
    """The events a model to be published learns from: the last `train_days` of a rolling protocol, else the whole log.

    Raises DataError where `evaluate.days` is "active" and the log has fewer days with events.
    """
    settings = config.evaluate
    if settings.protocol != "rolling":
        return log
    days = days_of(log, settings.days).ending(_last_day(log, config), settings.train_days)
    return log.between(start_of(days[0]), start_of(days[-1]) + DAY_US)


def _last_day(log: EventLog, config: Config) -> date:
    """The last day that may count: the one named, else that of the newest event."""
    return config.evaluate.last_day or newest_day(log)
