"""A small log read backwards as well: from what a user chose next, what came before?

Matrix factorisation and item-to-item regression see every pair of a user's choices from both sides; a model that is asked for
the next choice sees each from one. Within a session the order says little, so a session read backwards is a second log of
the same taste, and a model with few examples learns from it nearly as from new ones. Choices further apart are left alone:
backwards, the newer would foretell the older, and catalogues drift the other way.

All of it happens inside the training window, after the held-out examples were taken away.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from shortlist.dataset import Examples
from shortlist.histories import derived_histories
from shortlist.queries import NONE_ROW
from shortlist.sections import Config


def examples_to_learn(fit: Examples, config: Config) -> Examples:
    """The examples `fit`, and behind them the sessions read backwards where `train.both_ways_within` (resolved by `for_log`) is above 0."""
    within = config.train.both_ways_within
    if within is None:
        raise ValueError("train.both_ways_within must be resolved: call for_log(config, examples) first")
    return both_ways(fit, within_seconds=within, in_order=config.columns.ties == "in_order") if within else fit


def both_ways(examples: Examples, *, within_seconds: float, in_order: bool) -> Examples:
    """The examples, and one more for each event that its user followed by another within so many seconds, the newest event first.

    Its history is what the user chose after it, the nearest last, and its seed the nearest; who asks, the context, the reward
    and the time are the event's own.

    examples   in the order of the log, histories and seeds derived from it
    in_order   do events of one instant follow each other as in the file? Otherwise none sees the others
    """
    backwards = np.arange(len(examples))[::-1]
    asker, time = pl.Series(examples.asker[backwards]), examples.time[backwards]
    places = np.arange(len(backwards), dtype=np.int32)
    after, start, end = derived_histories(asker.set(asker < 0, None), pl.Series(-time), places, in_order=in_order)
    nearest = np.where(end > start, after[np.maximum(end, 1) - 1], 0)  # of each event: where its history ends
    kept = np.flatnonzero((end > start) & (time[nearest] - time <= within_seconds * 1e6))
    both = examples.take(np.concatenate([np.arange(len(examples)), backwards[kept]]))
    item_row, forward = examples.item_row[backwards], examples.queries
    has_seeds = bool((forward.seed_row >= 0).any())
    shift = len(forward.history_items)
    queries = replace(
        both.queries,
        seed_row=np.concatenate([forward.seed_row, item_row[nearest[kept]] if has_seeds else np.full(len(kept), NONE_ROW, np.int32)]),
        history_items=np.concatenate([forward.history_items, item_row[after]]),
        history_start=np.concatenate([forward.history_start, start[kept] + shift]),
        history_end=np.concatenate([forward.history_end, end[kept] + shift]),
    )
    return replace(both, queries=queries)
