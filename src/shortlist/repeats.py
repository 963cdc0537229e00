"""Is the same item chosen again by the same asker? Of films, hardly ever; of groceries, every week, but not twice in a row.

The answer decides whether lists are judged with the items that a query already knows (`evaluate.seen_items`): where they are
not chosen again, such items are wrong answers that every model would list first.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import polars as pl

from shortlist.id_places import row_blocks
from shortlist.log import EventLog, asking_role
from shortlist.sections import Config

FEW_REPEATS = 0.02  # of the choices that could have been repeats
_ENOUGH = 100  # choices that could have been repeats; fewer prove nothing
_SAMPLED = 1_000_000  # events looked at, of whole askers


class Repeats(NamedTuple):
    """What a log, or a sample of its askers, shows; None where it does not show enough.

    of_any    among the choices of askers who had chosen before: the share of an item that this asker had chosen
    of_seed   among the choices with a seed, or else with one before them: the share of this very item
    """

    of_any: float | None
    of_seed: float | None


def with_seen_items(config: Config, log: EventLog) -> Config:
    """The config with `evaluate.seen_items` set where it is absent.

    "exclude" where less than FEW_REPEATS of the choices repeat what the asker had chosen (and `evaluate.repeats` does not keep them),
    else "exclude_seed" where less than that repeat the seed, or the choice just before. "rank" where more do, and where the log is
    too small to tell.
    """
    settings = config.evaluate
    if settings.seen_items is not None:
        return config
    found = repeats_of(log)
    seen_items = "rank"
    if settings.repeats in (None, "drop") and found.of_any is not None and found.of_any < FEW_REPEATS:
        seen_items = "exclude"
    elif found.of_seed is not None and found.of_seed < FEW_REPEATS:
        seen_items = "exclude_seed"
    return msgspec.structs.replace(config, evaluate=msgspec.structs.replace(settings, seen_items=seen_items))


def repeats_of(log: EventLog) -> Repeats:
    """How often what was chosen is chosen again."""
    role = asking_role(log)
    if role is None:
        return Repeats(None, None)
    choices = _choices_of_some(log.frame, role)
    pairs = choices.select(role, "item")
    again = pairs.height - pairs.n_unique()
    before = pl.col("seed") if "seed" in choices.columns else pl.col("item").shift().over(role)  # in the order of the log
    of_seed = choices.select((pl.col("item") == before).alias("again")).drop_nulls()["again"]
    return Repeats(_share(again, pairs.height - pairs[role].n_unique()), _share(int(of_seed.sum()), len(of_seed)))


def _choices_of_some(frame: pl.DataFrame, role: str) -> pl.DataFrame:
    """Every event of some askers, drawn by their hashes, as asker, item and seed: about _SAMPLED events of a large log, else all."""
    one_of = max(1, frame.height // _SAMPLED)
    is_drawn = pl.col(role).is_not_null() & ((pl.col(role).hash(seed=0) % one_of == 0) if one_of > 1 else pl.lit(True))
    choices = frame.select(*dict.fromkeys((role, "item", *(("seed",) if "seed" in frame.columns else ()))))
    return pl.concat([choices[rows].filter(is_drawn) for rows in row_blocks(frame.height)] or [choices])


def _share(repeats: int, choices: int) -> float | None:
    return repeats / choices if choices >= _ENOUGH else None
