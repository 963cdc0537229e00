"""What lists leave out of what a query knows, and which choices are tested then, by `evaluate.seen_items` and `repeats`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shortlist.dataset import Examples
from shortlist.queries import Queries
from shortlist.sections import EvaluateSettings


def treatment_of_repeats(settings: EvaluateSettings) -> Literal["keep", "drop", "apart"]:
    """What the settings do with repeats: as they say, else they are dropped where seen items are excluded, and kept where not."""
    return settings.repeats or ("drop" if settings.seen_items == "exclude" else "keep")


def seen_items(queries: Queries) -> list[NDArray[np.int64]]:
    """For each query the item rows it already knows: its seed and its whole history."""
    return [np.append(queries.history(query), queries.seed_row[query]).astype(np.int64) for query in range(len(queries))]


def unlisted(queries: Queries, settings: EvaluateSettings) -> list[NDArray[np.int64]] | None:
    """For each query the item rows that no list may hold, by `settings.seen_items`; None where lists may hold all."""
    if settings.seen_items == "exclude":
        return seen_items(queries)
    if settings.seen_items == "exclude_seed":
        return list(queries.seed_row.astype(np.int64)[:, None])
    return None


def is_repeat(examples: Examples) -> NDArray[np.bool_]:
    """(N,) whether the item chosen is one that its query already knew."""
    return _is_among(examples, seen_items(examples.queries))


def is_tested(examples: Examples, settings: EvaluateSettings) -> NDArray[np.bool_]:
    """(N,) whether the choice counts: no item that lists cannot hold, and no repeat where those are dropped."""
    if treatment_of_repeats(settings) == "drop":
        return ~is_repeat(examples)
    never = unlisted(examples.queries, settings)
    return np.ones(len(examples), bool) if never is None else ~_is_among(examples, never)


def _is_among(examples: Examples, rows: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
    return np.array([item in some for item, some in zip(examples.item_row, rows, strict=True)], bool)
