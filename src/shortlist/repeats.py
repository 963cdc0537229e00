"""Is the same item chosen again by the same asker? Of films, hardly ever; of groceries, every week.

The answer decides whether lists are judged with the items that a query already knows (`evaluate.seen_items`): where nothing
is chosen twice, such items are wrong answers that every model would list first.
"""

from __future__ import annotations

import msgspec
import polars as pl

from shortlist.config import Config
from shortlist.id_places import row_blocks
from shortlist.log import EventLog, asking_role

FEW_REPEATS = 0.02  # of the choices that could have been repeats
_ENOUGH = 100  # choices that could have been repeats; fewer prove nothing
_SAMPLED = 1_000_000  # events looked at, of whole askers


def with_seen_items(config: Config, log: EventLog) -> Config:
    """The config with `evaluate.seen_items` set where it is absent.

    "exclude" where, among choices whose asker had chosen before, less than FEW_REPEATS are of an item that this asker had chosen;
    "rank" where more are, where the log is too small to tell, where nobody is named as asking, and where `evaluate.repeats` keeps repeats.
    """
    settings = config.evaluate
    if settings.seen_items is not None:
        return config
    share = repeat_share(log) if settings.repeats in (None, "drop") else None
    seen_items = "exclude" if share is not None and share < FEW_REPEATS else "rank"
    return msgspec.structs.replace(config, evaluate=msgspec.structs.replace(settings, seen_items=seen_items))


def repeat_share(log: EventLog) -> float | None:
    """The share of repeats among the choices of askers who had chosen before, in the log or a sample of its askers.

    None where nobody is named as asking, and where fewer than _ENOUGH choices could have been repeats.
    """
    role = asking_role(log)
    if role is None:
        return None
    pairs = _pairs_of_some(log.frame, role)
    could_be = pairs.height - pairs[role].n_unique()
    return None if could_be < _ENOUGH else (pairs.height - pairs.n_unique()) / could_be


def _pairs_of_some(frame: pl.DataFrame, role: str) -> pl.DataFrame:
    """(asker, item) of every event of some askers, drawn by their hashes: about _SAMPLED events of a large log, else all."""
    one_of = max(1, frame.height // _SAMPLED)
    is_drawn = pl.col(role).is_not_null() & ((pl.col(role).hash(seed=0) % one_of == 0) if one_of > 1 else pl.lit(True))
    pairs = frame.select(role, "item")
    return pl.concat([pairs[rows].filter(is_drawn) for rows in row_blocks(frame.height)] or [pairs])
