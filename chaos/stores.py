"""Small stores to be mistreated, made by the real commands."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from load.synthetic_store import add_version


def two_versions(store: Path, *, items: int = 211) -> Path:
    """The store, with v000001 and v000002 of disjoint ids and other dimensions."""
    add_version(store, store.parent / "a", items=items, dim=8, prefix="a")
    add_version(store, store.parent / "b", items=items, dim=12, prefix="b", seed=1)
    return store
