"""What settings may be chosen by: a split inside a training window, made as the protocol makes its own. No test event is in it."""

from __future__ import annotations

from shortlist.errors import DataError
from shortlist.log import EventLog
from shortlist.protocols.days import days_of, newest_day
from shortlist.protocols.holdout import holdout_split, leave_last_split
from shortlist.protocols.rolling import rolling_split
from shortlist.protocols.split import Split, checked
from shortlist.sections import Config


def validation_split(train_log: EventLog, config: Config) -> Split:
    """A split of `train_log`: its last `test_days`, a share of its units, or the last event of each user, as the protocol tests.

    The release protocol has no newer snapshot inside the older one: a share of the older one's pairs is held out.
    Raises   DataError where a side would be empty
    """
    settings = config.evaluate
    match settings.protocol:
        case "rolling":
            return _last_days(train_log, config)
        case "leave_last":
            return checked(leave_last_split(train_log), "protocol: no user may have a second event to learn from")
        case "holdout" | "release":
            unit = settings.holdout if settings.protocol == "holdout" else "pairs"
            return checked(holdout_split(train_log, unit, settings.holdout_fraction, settings.seed + 1), "holdout_fraction")


def _last_days(train_log: EventLog, config: Config) -> Split:
    settings = config.evaluate
    left = settings.train_days - settings.test_days
    if left < 1:
        raise DataError(
            f"validation days are taken from the training window, and a day must be left: got train_days = {settings.train_days} and "
            f"test_days = {settings.test_days}; raise evaluate.train_days"
        )
    first = days_of(train_log, settings.days).ending(newest_day(train_log), settings.test_days)[0]
    split = rolling_split(train_log, first, left, settings.test_days, days=settings.days)
    return checked(split, "train_days: all of the window's events are of its last days")
