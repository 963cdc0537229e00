"""Logs, datasets and queries small enough to count by hand, for the tests of baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.config import config_from_tree
from shortlist.dataset import Dataset, make_dataset
from shortlist.files import Places
from shortlist.log import EventLog
from shortlist.project import Project
from shortlist.queries import Queries


def project_of(corpus: int, **columns: Any) -> Project:
    frame = pl.DataFrame(columns)
    log = EventLog(frame, Places(("e",), (0,)), "e", {name: name for name in frame.columns})
    tree = {
        "data": {"events": "e"},
        "columns": {name: name for name in frame.columns},
        "item": {"features": {"item": "id"}},
        "query": {"features": {"seed": "item"}},
        "evaluate": {"protocol": "holdout"},
    }
    return Project(
        config_from_tree(tree), log, Catalogue(pl.DataFrame({"item": list(range(corpus))}), "item", "items"), None, {}, {}, False
    )


def dataset_of(corpus: int, **columns: Any) -> Dataset:
    project = project_of(corpus, **columns)
    return make_dataset(project, project.log)


def asking(*histories: list[int], seeds: list[int] | None = None) -> Queries:
    """Queries that show these histories, oldest first, and look at their newest item unless seeds are given."""
    ends = np.cumsum([len(line) for line in histories]).astype(np.int64)
    newest = [line[-1] if line else -1 for line in histories]
    flat = np.array([item for line in histories for item in line], np.int32)
    starts = ends - np.array([len(line) for line in histories], np.int64)
    return Queries(np.array(newest if seeds is None else seeds, np.int32), np.full(len(histories), -1, np.int32), flat, starts, ends)


def by_row(found: tuple[NDArray[np.int64], NDArray[np.float32]]) -> NDArray[np.float32]:
    """(N, M) scores in order of rows, from full lists."""
    scores = np.empty_like(found[1])
    np.put_along_axis(scores, found[0], found[1], axis=1)
    return scores
