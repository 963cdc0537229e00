"""A small synthetic project with a planted signal, for the tests: written as Parquet, read back by the real readers.

61 users, 53 items, 601 events in 12 days. Item j and user u belong to groups j % 5 and u % 5; nine choices in ten are items
of the user's own group. The last 7 items are never chosen. Nothing of a query but its history and seed tells the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shortlist.config import config_from_tree
from shortlist.dataset import Dataset, make_dataset
from shortlist.project import Project, open_project
from shortlist.sections import Config

GROUPS, ITEMS, USERS, EVENTS = 5, 53, 61, 601
NEVER_CHOSEN = 7
DAYS = 12
START_S = 1_700_006_400  # a midnight, UTC
HISTORY_LAST = 7
WORDS = ("oak", "pine", "beech", "maple", "willow")


def write_tables(folder: Path, seed: int = 0) -> None:
    """Writes events.parquet, items.parquet and users.parquet into `folder`."""
    rng = np.random.default_rng(seed)
    _items(rng).write_parquet(folder / "items.parquet")
    _users().write_parquet(folder / "users.parquet")
    _events(rng).write_parquet(folder / "events.parquet")


def small_config(folder: Path, sections: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """Settings for the tables in `folder`: tiny towers, every kind of feature; `sections` overrides single keys."""
    tree: dict[str, dict[str, Any]] = {
        "data": {name: str(folder / f"{name}.parquet") for name in ("events", "items", "users")},
        "columns": {"user": "user_id", "item": "item_id", "time": "at", "weight": "stars"},
        "item": {
            "features": {
                "item_id": {"kind": "id", "unknown_buckets": 3},
                "kind": "category",
                "tags": "categories",
                "title": {"kind": "text", "buckets": 61},
                "price": {"kind": "number", "buckets": 4},
                "look": "vector",
            }
        },
        "query": {
            "features": {
                "seed": "item",
                "history": {"kind": "items", "last": HISTORY_LAST},
                "users.age": "category",
                "events.weekday": "category",
            }
        },
        "model": {"embedding_dim": 8, "hidden": [19, 11], "temperature": 0.1},
        "negatives": {"batch_size": 32, "index_batch_size": 23},
        "train": {
            "epochs": 4,
            "both_ways_within": 0.0,  # half of the time; test_both_ways.py has runs that read their sessions both ways
            "learning_rate": 0.05,
            "adagrad_start": 0.01,
            "matmul": "float32",
            "patience": 10,
            "checkpoint_steps": 3,
            "log_steps": 5,
        },
        "evaluate": {"protocol": "holdout"},
    }
    for section, values in (sections or {}).items():
        tree[section] = {**tree.get(section, {}), **values}
    return config_from_tree(tree)


def small_project(folder: Path, sections: Mapping[str, Mapping[str, Any]] | None = None) -> Project:
    """The project of freshly written tables."""
    write_tables(folder)
    return open_project(small_config(folder, sections))


def small_dataset(folder: Path, sections: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Dataset, Config]:
    """The dataset over the whole log, and its settings."""
    project = small_project(folder, sections)
    return make_dataset(project, project.log), project.config


def _items(rng: np.random.Generator) -> pl.DataFrame:
    rows = range(ITEMS)
    return pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in rows],
            "kind": [f"kind {row % GROUPS}" for row in rows],
            "tags": [[f"tag {row % 3}", f"tag {row % 11}"][: row % 3] for row in rows],  # 0, 1 or 2 tags
            "title": [None if row % 17 == 16 else f"{WORDS[row % GROUPS]} number{row}" for row in rows],
            "price": [None if row % 13 == 12 else float(rng.gamma(2.0)) for row in rows],
            "look": [None if row % 19 == 18 else rng.standard_normal(3).tolist() for row in rows],
        }
    )


def _users() -> pl.DataFrame:
    rows = range(USERS - 2)  # two users of the log have no row
    return pl.DataFrame({"user_id": list(rows), "age": [("young", "old", None)[row // GROUPS % 3] for row in rows]})


def _events(rng: np.random.Generator) -> pl.DataFrame:
    live = ITEMS - NEVER_CHOSEN
    popularity = 1.0 / (1 + np.arange(live) // GROUPS)
    user = rng.integers(0, USERS, EVENTS)
    at = START_S + np.sort(rng.integers(0, DAYS * 86_400, EVENTS))
    items = []
    for group in user % GROUPS:
        weight = np.where(np.arange(live) % GROUPS == group, 36.0, 1.0) * popularity  # 36 : 4 = nine in ten
        items.append(f"i{rng.choice(live, p=weight / weight.sum()):02d}")
    return pl.DataFrame(
        {
            "user_id": [None if row % 101 == 100 else int(value) for row, value in enumerate(user)],
            "item_id": items,
            "at": at,
            "stars": rng.choice([0.5, 1.0, 2.0], EVENTS),
            "weekday": [f"day {value}" for value in at // 86_400 % 7],
        }
    )


class SilentLog:
    """A train log that keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self.steps = 0

    def record(self, facts: dict[str, Any]) -> None:
        self.facts.append(facts)

    def advance(self, step: int, steps: int, loss: float) -> None:
        self.steps += 1


@contextmanager
def silent(path: Path, title: str = "") -> Iterator[SilentLog]:
    """Opens a train log that says nothing."""
    yield SilentLog()
