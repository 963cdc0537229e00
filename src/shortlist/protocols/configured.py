"""The splits that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator

from shortlist.log import EventLog
from shortlist.protocols.holdout import holdout_split, leave_last_split
from shortlist.protocols.release import release_split
from shortlist.protocols.rolling import rolling_splits
from shortlist.protocols.split import Split, checked
from shortlist.sections import Config


def splits(log: EventLog, config: Config) -> Iterator[Split]:
    """The splits that `evaluate.protocol` names, oldest first. Raises DataError where one would be empty on a side."""
    settings = config.evaluate
    match settings.protocol:
        case "rolling":
            yield from rolling_splits(log, config)
        case "holdout":
            yield checked(holdout_split(log, settings.holdout, settings.holdout_fraction, settings.seed), "holdout_fraction")
        case "leave_last":
            yield checked(leave_last_split(log), "protocol: no user may have a second event")
        case "release":
            yield checked(release_split(log, config), "next_events: it may add no pair to [data] events")
