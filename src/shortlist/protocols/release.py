"""The next release: train on the project's tables, test on what a newer snapshot of them added.

What online serving meets between two trainings: a corpus with items that training never saw, and without some that it did.
"""

from __future__ import annotations

import msgspec
import numpy as np

from shortlist.catalogue import Catalogue
from shortlist.errors import DataError
from shortlist.log import EventLog, asking_role
from shortlist.project import open_project
from shortlist.protocols.split import Split
from shortlist.sections import Config


def release_split(log: EventLog, config: Config) -> Split:
    """Learn from `log`, test the (asker, item) pairs that the log at `evaluate.next_events` has and `log` has not.

    The candidates are the newer catalogue: items that are gone cannot be retrieved, and cannot be right answers. A pair stands with
    all its rows; a query knows of whatever the newer log has before its own instant. Events of nobody are pairs of nobody and the item.
    Raises DataError as `open_project` does for the newer tables, and where the two logs' ids differ in type.
    """
    newer_log, items = _newer_tables(config)
    asker = asking_role(log)
    if asker is None or asker not in newer_log.frame.columns:
        raise DataError(
            'evaluate.protocol = "release" tests new pairs of asker and item: got no user and no seed column; use protocol = "holdout"'
        )
    for role in (asker, "item"):
        ours, theirs = log.frame[role].dtype, newer_log.frame[role].dtype
        if ours != theirs:
            raise DataError(
                f"both logs must hold {role} ids of one type: got {ours} in {log.source} and {theirs} in {newer_log.source}; "
                "write both as strings or both as integers"
            )
    pairs = newer_log.frame.select(asker, "item").with_row_index("row")
    known = pairs.join(log.frame.select(asker, "item"), on=[asker, "item"], how="semi", nulls_equal=True)
    test = np.ones(len(newer_log), bool)
    test[known["row"].to_numpy()] = False
    return Split("next release", newer_log, test, np.ones(len(test), bool), items=items, learned_from=log)


def _newer_tables(config: Config) -> tuple[EventLog, Catalogue]:
    """The newer log, of events whose items the newer catalogue has, and that catalogue."""
    assert config.evaluate.next_events is not None  # a rule of config_rules.py
    data = msgspec.structs.replace(config.data, events=config.evaluate.next_events, items=config.evaluate.next_items)
    newer = open_project(msgspec.structs.replace(config, data=data))
    return newer.log, newer.items
