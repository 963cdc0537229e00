"""A training window over another snapshot of its corpus: what a model meets that was trained before the catalogue changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shortlist.catalogue import Catalogue
from shortlist.dataset import Dataset
from shortlist.queries import NONE_ROW


def over_snapshot(dataset: Dataset, items: Catalogue) -> Dataset:
    """The dataset with `items` as its corpus, under the same encoders: all its rows are rows of `items`.

    A new item is known by its content alone, as in a version that is published with `--items`. Training examples of items
    that are gone are left out; in seeds and histories such an item is none. So whatever is fitted on the result, a baseline
    too, ranks the newer corpus.
    Raises DataError where the ids are of another type
    """
    row_now = np.full(len(dataset.items) + 1, NONE_ROW, np.int32)  # the last is that of no item, row -1, which stays none
    row_now[:-1] = items.rows_of(dataset.items.ids)  # (M,) NONE_ROW = gone
    train, queries = dataset.train, dataset.train.queries
    queries = replace(queries, seed_row=row_now[queries.seed_row], history_items=row_now[queries.history_items])
    train = replace(train, queries=queries, item_row=row_now[train.item_row])
    train = train.take(np.flatnonzero(train.item_row >= 0))
    return replace(
        dataset,
        items=items,
        item_features=dataset.item_encoder.encode(items.frame),
        train=train,
        item_counts=np.bincount(train.item_row, minlength=len(items)),
        item_codes=dataset.item_encoder.codes(items.frame),
    )
