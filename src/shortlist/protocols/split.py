"""One division of a log into what is learned from and what is tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.errors import DataError
from shortlist.log import EventLog


@dataclass(frozen=True)
class Split:
    """One train/test division of a log.

    log          the events in time order; those that queries may know of, and those that are tested
    test         (n,) which of them are tested; the others are learned from, unless `learned_from` says otherwise
    remembered   (n,) which of them later queries may know of. In rolling windows all: a query at noon knows what the same
                 user chose at eleven, as it would online. In a random holdout only the training events.
    items        the candidates, where they are not the project's own corpus
    learned_from the events to learn from, where they are not the rest of `log`
    whole_log    the log that `log` is a window of: how old is an item? None = `log` is all there is
    """

    name: str
    log: EventLog
    test: NDArray[np.bool_]
    remembered: NDArray[np.bool_]
    items: Catalogue | None = None
    learned_from: EventLog | None = None
    whole_log: EventLog | None = None

    @property
    def train_log(self) -> EventLog:
        """The events to learn from."""
        if self.learned_from is not None:
            return self.learned_from
        return self.log.leave_out(pl.Series(self.test), "held out for testing")


def checked(split: Split, advice: str) -> Split:
    """The split itself. Raises DataError, with `advice` on what to check, where it is empty on a side."""
    tested = int(split.test.sum())
    learned = len(split.learned_from) if split.learned_from is not None else len(split.test) - tested
    if not tested or not learned:
        raise DataError(
            f"split {split.name} needs events on both sides: got {learned} to learn from and {tested} to test; check [evaluate] {advice}"
        )
    return split
