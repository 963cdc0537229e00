"""Overlay and sealed version -> a new version of the same model. Numpy and copies; no torch, no training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shortlist.manifest import MANIFEST
from shortlist.serve.overlay import Overlay, Rows
from shortlist.serve.version import LiveVersion

_REWRITTEN = ("items.parquet", "embeddings.npy", "vectors.npy", "popularity.npy", "index", MANIFEST)
_BLOCK = 1 << 16  # rows copied at a time


def write_compacted(target: Path, source: Path, version: LiveVersion, overlay: Overlay) -> None:
    """Nothing comes back: the empty folder `target` holds `version`, whose files are in `source`, with the overlay merged in."""
    for path in source.iterdir():
        if path.name in _REWRITTEN:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
    frame, rows = _merged(version, overlay)
    frame.write_parquet(target / "items.parquet")
    sealed = rows < overlay.sealed
    _write_rows(target / "embeddings.npy", version.embeddings, overlay.embeddings, rows)
    _write_rows(target / "vectors.npy", version.vectors, overlay.vectors, rows)
    counts = np.where(sealed, version.popularity[np.where(sealed, rows, 0)], 0)
    np.save(target / "popularity.npy", counts.astype(np.int64), allow_pickle=False)
    (target / "index").mkdir()
    vectors = np.load(target / "vectors.npy", mmap_mode="r", allow_pickle=False)
    type(version.bundle.index).build(vectors, version.bundle.config.index).save(target / "index")


def _merged(version: LiveVersion, overlay: Overlay) -> tuple[pl.DataFrame, Rows]:
    """(the items table by id, the row of index or overlay that each of its items comes from)."""
    rows = np.concatenate([np.flatnonzero(overlay.alive), overlay.sealed + np.flatnonzero(overlay.live)])
    catalogue = version.bundle.items
    frame = pl.concat([catalogue.frame.filter(overlay.alive), overlay.frame.filter(overlay.live)])
    order = frame[catalogue.id_column].arg_sort().to_numpy()
    return frame[order], rows[order]


def _write_rows(path: Path, sealed: np.ndarray[Any, Any], overlaid: np.ndarray[Any, Any], rows: Rows) -> None:
    """Nothing comes back: the file holds the rows of both arrays in the order of `rows`."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(rows), sealed.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        is_slot = block >= len(sealed)
        part = sealed[np.where(is_slot, 0, block)]
        part[is_slot] = overlaid[block[is_slot] - len(sealed)]
        out[start : start + _BLOCK] = part
    out.flush()
