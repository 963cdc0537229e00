"""Overlay and sealed version -> a new version of the same model. Numpy and copies; no torch, no training."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.index.contract import Index
from shortlist.index.kinds import build_index
from shortlist.manifest import MANIFEST
from shortlist.parquet_steps import write_in_steps
from shortlist.serve.overlay import Floats, Overlay, Rows
from shortlist.serve.version import LiveVersion

_REWRITTEN = ("items.parquet", "embeddings.npy", "vectors.npy", "popularity.npy", "index", MANIFEST)
_BLOCK = 1 << 16  # rows copied at a time


@dataclass(frozen=True, eq=False)
class Compacted:
    """A version and its overlay, merged, ready to be written."""

    version: LiveVersion
    overlay: Overlay
    frame: pl.DataFrame  # (M',) the items table by id
    rows: Rows  # (M',) the row of index or overlay that each item comes from
    vectors: Floats  # (M', S) in a file without a name
    index: Index
    facts: dict[str, Any]  # for the manifest

    def write(self, target: Path, source: Path) -> None:
        """Nothing comes back: the empty folder `target` holds the new version; `source` is the old one's folder."""
        for path in source.iterdir():
            if path.name in _REWRITTEN:
                continue
            if path.is_dir():
                shutil.copytree(path, target / path.name)
            else:
                shutil.copyfile(path, target / path.name)
        write_in_steps(target / "items.parquet", self.frame)
        embeddings = np.lib.format.open_memmap(
            target / "embeddings.npy", mode="w+", dtype=np.float32, shape=(len(self.rows), self.version.embeddings.shape[1])
        )
        _gather(embeddings, self.version.embeddings, self.overlay.embeddings, self.rows)
        embeddings.flush()
        np.save(target / "vectors.npy", self.vectors, allow_pickle=False)
        is_sealed = self.rows < self.overlay.sealed
        counts = np.where(is_sealed, self.version.popularity[np.where(is_sealed, self.rows, 0)], 0)
        np.save(target / "popularity.npy", counts.astype(np.int64), allow_pickle=False)
        (target / "index").mkdir()
        self.index.save(target / "index")


def compacted(version: LiveVersion, overlay: Overlay, scratch: Path) -> Compacted:
    """The version with its overlay merged in, at least one item, and an index that is tuned and proved as when publishing.

    scratch   a folder with room for the vectors; nothing is left there, even after a kill
    Raises    BundleError where the index does not find enough of the version's held-out queries
    """
    rows = np.concatenate([np.flatnonzero(overlay.alive), overlay.sealed + np.flatnonzero(overlay.live)])
    catalogue, bundle = version.bundle.items, version.bundle
    frame = pl.concat([catalogue.frame.filter(overlay.alive), overlay.frame.filter(overlay.live)])
    order = frame[catalogue.id_column].arg_sort().to_numpy()
    rows = rows[order]
    with tempfile.TemporaryFile(dir=scratch) as file:  # the mapping keeps it
        vectors = np.memmap(file, np.float32, "w+", shape=(len(rows), version.vectors.shape[1]))
    _gather(vectors, version.vectors, overlay.vectors, rows)
    queries = np.zeros((0, vectors.shape[1]), np.float32) if bundle.queries is None else bundle.queries
    index, facts = build_index(vectors.view(np.ndarray), bundle.config.index, queries)
    merged = {**bundle.facts, "items": len(rows), "index": facts, "compacted_from": version.name}
    return Compacted(version, overlay, frame[order], rows, vectors, index, merged)


def _gather(out: NDArray[np.float32], sealed: Floats, overlaid: Floats, rows: Rows) -> None:
    """Nothing comes back: `out` holds the rows of both arrays in the order of `rows`."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        is_slot = block >= len(sealed)
        part = sealed[np.where(is_slot, 0, block)]
        part[is_slot] = overlaid[block[is_slot] - len(sealed)]
        out[start : start + _BLOCK] = part
