"""Queries to look at: some of those that were tested, in words, each with what every model recommends.

They are drawn without a look at the answers, so they show a model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.dataset import Examples, asker_numbers
from shortlist.judged import Judged
from shortlist.log import EventLog
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.project import feature_column
from shortlist.sections import Config, feature_settings

EXAMPLES = 20  # of all splits together
HISTORY = 10  # of its items, the newest


def drawn_examples(queries: int, split: int, splits: int, *, seed: int) -> NDArray[np.intp]:
    """(n,) which of the `queries` of the split of this number are shown, ascending: its share of EXAMPLES, or all where it has fewer."""
    share = EXAMPLES // splits + (split < EXAMPLES % splits)
    return np.sort(np.random.default_rng((seed, 5, split)).choice(queries, min(share, queries), replace=False))


def described_examples(
    split: str, examples: Examples, items: Catalogue, config: Config, log: EventLog, judged: Mapping[str, Judged]
) -> list[dict[str, Any]]:
    """The examples (n,) as JSON-able records: split, who, seed, history (newest first), next, and each model's list, the hit marked.

    "ranks" says where each model has the item chosen next, None beyond the largest k: further down than a list is shown.

    items    the corpus that was ranked
    log      that of the split, which knows what its users are called
    judged   by model, with the lists of these very examples
    """
    words, who = item_words(items, config), _who(log)
    ids = items.ids.to_list()
    records = []
    for number in range(len(examples)):
        seed, positive = int(examples.queries.seed_row[number]), int(examples.item_row[number])
        history = examples.queries.history(number)[::-1]
        if len(history) and history[0] == seed:  # a derived seed is the newest item of its history: said once
            history = history[1:]
        lists = {
            model: [
                {"item": ids[row], "text": words[row], "score": float(score), "hit": row == positive}
                for row, score in zip(found.rows[number].tolist(), found.scores[number], strict=True)
                if row >= 0
            ]
            for model, found in judged.items()
        }
        records.append(
            {
                "split": split,
                "who": who.get(int(examples.asker[number])),
                "seed": words[seed] if seed >= 0 else None,
                "history": [words[row] for row in history[:HISTORY].tolist() if row >= 0],
                "next": words[positive],
                "ranks": {model: _known(found.ranked.rank[found.shown[number]]) for model, found in judged.items()},
                "lists": lists,
            }
        )
    return records


def item_words(items: Catalogue, config: Config) -> list[str]:
    """(M,) what a reader calls each item: its first text feature; behind its id, where that is a word of its own.

    Where one of the two says the other as well, it stands alone: "Alien (1979)", not "Alien (1979): Alien".
    """
    ids = items.ids.cast(pl.String)
    columns = [
        feature_column(name, settings, config, side="item").column
        for name, settings in feature_settings(config.item).items()
        if settings.kind == "text"
    ]
    column = next((column for column in columns if column != items.id_column), None)
    if column is None:
        return ids.to_list()
    text = items.frame[column]
    if items.ids.dtype != pl.String:
        return text.fill_null(ids).to_list()
    return [_both(item_id, said) for item_id, said in zip(ids.to_list(), text.to_list(), strict=True)]


def _both(item_id: str, text: str | None) -> str:
    if text is None or text in item_id:
        return item_id
    return text if item_id in text else f"{item_id}: {text}"


def _known(rank: np.int64) -> int | None:
    return None if rank == NOT_FOUND else int(rank)


def _who(log: EventLog) -> dict[int, Any]:
    """The users' ids by their number as askers; none in a log without users."""
    if "user" not in log.frame.columns:
        return {}
    ids = log.frame["user"].drop_nulls().unique()
    return dict(zip(asker_numbers(ids).tolist(), ids.to_list(), strict=True))
