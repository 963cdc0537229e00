"""A published store of any size without public data: the real commands over a synthetic project, trained briefly.

Items belong to clusters that their features show, users choose mostly within one, so a few steps of training give vectors
with a structure that an index finds. Nothing is replaced afterwards: encoders, towers, vectors and index were made together.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

USERS, EVENTS, LOOK = 2_003, 30_011, 24
START_S = 1_700_006_400


def make_store(folder: Path, *, items: int, dim: int, prefix: str = "i", seed: int = 0, index: dict[str, Any] | None = None) -> Path:
    """The store `folder`/store with one version: `items` items called prefix + number, vectors of `dim`. Kept from an earlier call.

    Takes about a minute for 200,000 items of 64 on 2 cores.
    """
    store = folder / "store"
    if not (store / "CURRENT").exists():
        add_version(store, folder / f"{prefix}{items}x{dim}", items=items, dim=dim, prefix=prefix, seed=seed, index=index)
    return store


def store_of_kind(folder: Path, *, items: int, dim: int, kind: str, prefix: str = "i") -> Path:
    """The store of `make_store` in `folder`, or one beside it whose version, of the same training, has an index of `kind`."""
    from shortlist.export import publish_run
    from shortlist.run import open_run

    store = make_store(folder, items=items, dim=dim, prefix=prefix)
    if kind == "auto":
        return store
    other = folder / f"store-{kind}"
    if not (other / "CURRENT").exists():
        publish_run(open_run(folder / f"{prefix}{items}x{dim}" / "run"), other, overrides=[f"index.kind={kind}"])
    return other


def add_version(
    store: Path, project: Path, *, items: int, dim: int, prefix: str = "i", seed: int = 0, index: dict[str, Any] | None = None
) -> str:
    """The name of a new live version in `store`, trained in the folder `project`."""
    from shortlist.backtest import train_latest
    from shortlist.config import config_from_tree
    from shortlist.export import publish_run
    from shortlist.project import open_project

    project.mkdir(parents=True, exist_ok=True)
    _write_tables(project, items, prefix, seed)
    config = config_from_tree(
        {
            "data": {name: str(project / f"{name}.parquet") for name in ("events", "items")},
            "columns": {"user": "user_id", "item": "item_id", "time": "at"},
            "item": {"features": {"item_id": {"kind": "id", "dim": 16}, "cluster": "category", "look": "vector", "price": "number"}},
            "query": {"features": {"seed": "item", "history": {"kind": "items", "last": 50}, "events.weekday": "category"}},
            "model": {"embedding_dim": 32, "hidden": [2 * dim, dim], "item_bias": False},
            "negatives": {"batch_size": 512, "index_batch_size": 512},
            "train": {"epochs": 2, "matmul": "float32", "seed": seed},
            "index": index or {},
        }
    )
    run = train_latest(open_project(config), project / "run", log_to=_nobody)
    return publish_run(run, store).folder.name


def _write_tables(folder: Path, items: int, prefix: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = max(items // 100, 7)
    cluster = rng.integers(0, clusters, items)
    centre = rng.standard_normal((clusters, LOOK))
    look = centre[cluster] + 0.5 * rng.standard_normal((items, LOOK))
    pl.DataFrame(
        {
            "item_id": [f"{prefix}{row}" for row in range(items)],
            "cluster": [f"c{value % 997}" for value in cluster],
            "look": pl.Series(look.astype(np.float32), dtype=pl.Array(pl.Float32, LOOK)),
            "price": rng.gamma(2.0, size=items),
        }
    ).write_parquet(folder / "items.parquet")
    members = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[members], np.arange(clusters + 1))
    of_user = rng.integers(0, clusters, USERS)
    user = rng.integers(0, USERS, EVENTS)
    first, last = bounds[of_user[user]], bounds[of_user[user] + 1]
    own = members[np.minimum(first + (rng.random(EVENTS) * (last - first)).astype(np.int64), items - 1)]
    chosen = np.where(rng.random(EVENTS) < 0.8, own, rng.integers(0, items, EVENTS))
    at = START_S + np.sort(rng.integers(0, 30 * 86_400, EVENTS))
    pl.DataFrame(
        {
            "user_id": user,
            "item_id": [f"{prefix}{row}" for row in chosen],
            "at": at,
            "weekday": [f"day {value}" for value in at // 86_400 % 7],
        }
    ).write_parquet(folder / "events.parquet")


class _Nobody:
    def record(self, facts: dict[str, Any]) -> None:
        pass

    def advance(self, step: int, steps: int, loss: float) -> None:
        pass


@contextmanager
def _nobody(path: Path, title: str = "") -> Any:
    yield _Nobody()
