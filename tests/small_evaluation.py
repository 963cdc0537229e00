"""Examples, datasets and retrievers small enough to know the answer, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.dataset import Dataset, Examples
from shortlist.evaluate import Tested
from shortlist.features.encoder import TableEncoder
from shortlist.queries import Queries, QueryEncoder
from shortlist.sections import EvaluateSettings


def examples_of(
    items: list[int], *, seeds: list[int] | None = None, histories: list[list[int]] | None = None, askers: list[int] | None = None
) -> Examples:
    count = len(items)
    lists = histories or [[]] * count
    ends = np.cumsum([len(line) for line in lists]).astype(np.int64)
    queries = Queries(
        np.array(seeds or [-1] * count, np.int32),
        np.full(count, -1, np.int32),
        np.array([item for line in lists for item in line], np.int32),
        ends - np.array([len(line) for line in lists], np.int64),
        ends,
    )
    asker = np.array(askers if askers is not None else range(count), np.int64)
    return Examples(queries, np.array(items, np.int32), np.ones(count, np.float32), np.arange(count), asker)


def dataset_of(counts: list[int], askers: list[int]) -> Dataset:
    """A dataset of which only the items' counts and who asked in training matter."""
    items = catalogue_of(len(counts))
    none = TableEncoder({})
    encoder = QueryEncoder(none, none, True, 0)
    return Dataset(none, encoder, items, None, {}, {}, examples_of([0] * len(askers), askers=askers), np.array(counts))


@dataclass(frozen=True)
class Scores:
    """A retriever that scores item j of every query by a fixed table, the naive way."""

    table: NDArray[np.float32]  # (M,)
    name: str = "fixed"

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for query in range(len(queries)):
            hidden = set() if exclude is None else set(exclude[query].tolist())
            best = sorted((row for row in range(len(self.table)) if row not in hidden), key=lambda row: (-self.table[row], row))[:k]
            rows[query, : len(best)], scores[query, : len(best)] = best, self.table[best]
        return rows, scores


def catalogue_of(size: int) -> Catalogue:
    """Items 0, 10, 20, ...: an id is no row."""
    return Catalogue(pl.DataFrame({"item": [10 * row for row in range(size)]}), "item", "items")


def outcome_of(askers: list[int], split: str = "s", *, corpus_size: int = 10, **slices: list[bool]) -> Tested:
    """Queries of which only who asked and the slices matter."""
    none = np.zeros(len(askers), np.int64)
    masks = {name: np.array(mask) for name, mask in slices.items()}
    return Tested(
        split=split,
        items=catalogue_of(corpus_size),
        asker=np.array(askers),
        item_row=none.astype(np.int32),
        decile=none,
        slices=masks,
        train_rows=100,
    )


def settings_of(**values: Any) -> EvaluateSettings:
    """Cut-offs 1 and 3, few resamples."""
    return EvaluateSettings(**{"ks": (1, 3), "bootstrap": 101, **values})
