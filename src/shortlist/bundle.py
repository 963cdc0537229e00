"""A published version, opened: query tower, item vectors, index, ids and encoders that were made together.

No torch: towers run in ONNX Runtime, everything else is numpy. Every file was hashed when it was published and is
checked before it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue, read_catalogue
from shortlist.config import Config, load_config
from shortlist.errors import BundleError
from shortlist.features.arrays import FeatureArray, columns_from_flat
from shortlist.features.encoder import TableEncoder, open_encoder
from shortlist.features.lookup import look_up
from shortlist.index.contract import Index
from shortlist.index.kinds import open_index
from shortlist.manifest import verify_version
from shortlist.queries import Queries, QueryEncoder, open_query_encoder
from shortlist.saved_arrays import open_arrays
from shortlist.store import current_version

FORMAT = 1
ITEM_INPUTS, ITEM_OUTPUTS = ("features", "id_bias", "id_output"), ("embedding", "vector")
QUERY_INPUTS, QUERY_OUTPUTS = ("seed", "has_seed", "history", "present", "features"), ("vector",)
_BLOCK = 1024  # queries encoded at a time


@dataclass(frozen=True, eq=False)
class Bundle:
    """One version. Nothing in it changes while it is open."""

    name: str
    facts: Mapping[str, Any]  # what the publisher said of it: the manifest's
    config: Config
    items: Catalogue
    users: Catalogue | None
    item_encoder: TableEncoder
    query_encoder: QueryEncoder
    user_features: dict[str, FeatureArray]  # U + 1 entries, the last for nobody
    histories: pl.DataFrame | None  # user, history (list of item ids, oldest first): the state when training ended
    popularity: NDArray[np.int64] | None  # (M,) how often training saw each item chosen; None in older bundles
    queries: NDArray[np.float32] | None  # (N, S) vectors of held-out queries, to judge an index by; None in older bundles
    tables: dict[str, NDArray[np.float32]]
    embeddings: NDArray[np.float32]  # (M, D) what queries see of an item
    vectors: NDArray[np.float32]  # (M, S) what is searched
    index: Index
    query_tower: onnxruntime.InferenceSession
    item_tower: onnxruntime.InferenceSession

    def encode_queries(self, queries: Queries) -> NDArray[np.float32]:
        """(N, S) vectors of the queries, to be searched in `index`."""
        vectors = [np.zeros((0, self.vectors.shape[1]), np.float32)]
        for start in range(0, len(queries), _BLOCK):
            vectors.append(self._encode_block(queries.take(np.arange(start, min(start + _BLOCK, len(queries))))))
        return np.concatenate(vectors)

    def encode_items(self, frame: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(embeddings (n, D), vectors (n, S)) of the items in `frame`, known to training or not."""
        columns = self.item_encoder.encode(frame)
        inputs = (
            look_up(columns, self.tables, "item", frame.height),
            self._of_ids(columns, "#bias", 1),
            self._of_ids(columns, "#output", self.embeddings.shape[1]),
        )
        embedding, vector = self.item_tower.run(list(ITEM_OUTPUTS), dict(zip(ITEM_INPUTS, inputs, strict=True)))
        return embedding, vector

    def _of_ids(self, columns: dict[str, FeatureArray], suffix: str, width: int) -> NDArray[np.float32]:
        """(n, width) rows of a table that goes by item ids; zeros where the model has none."""
        name = self.item_encoder.id_feature()
        count = len(next(iter(columns.values())))
        if name is None or f"item/{name}{suffix}" not in self.tables:
            return np.zeros((count, width), np.float32)
        return look_up({f"{name}{suffix}": columns[name]}, self.tables, "item", count)

    def _encode_block(self, queries: Queries) -> NDArray[np.float32]:
        count = len(queries)
        history = queries.newest_first(max(self.query_encoder.history_last, 1))  # (n, L)
        if not self.query_encoder.history_last:
            history[:] = -1
        present = history >= 0
        remembered = self.embeddings[np.maximum(history, 0)] * present[:, :, None]  # (n, L, D)
        has_seed = (queries.seed_row >= 0)[:, None].astype(np.float32)
        seed = self.embeddings[np.maximum(queries.seed_row, 0)] * has_seed
        users = {name: column.take(queries.user_row) for name, column in self.user_features.items()}
        x = np.concatenate([look_up(users, self.tables, "user", count), look_up(queries.context, self.tables, "context", count)], axis=1)
        inputs = (seed, has_seed, remembered, present.astype(np.float32), x)
        (vector,) = self.query_tower.run(list(QUERY_OUTPUTS), dict(zip(QUERY_INPUTS, inputs, strict=True)))
        return np.asarray(vector, np.float32)


def open_current(store: Path) -> Bundle:
    """The live version of a store. Raises BundleError where there is none, or where it is damaged."""
    return open_bundle(current_version(store))


def open_bundle(folder: Path) -> Bundle:
    """The version in `folder`, after every file's size and hash were found to be those of its manifest.

    Raises BundleError naming the first file that does not fit.
    """
    facts = verify_version(folder).facts
    if facts.get("bundle") != FORMAT:
        raise BundleError(f"{folder} must be of bundle format {FORMAT}: got {facts.get('bundle')!r}; publish it again with this program")
    users_path, histories_path = folder / "users.parquet", folder / "histories.parquet"
    vectors = _mapped(folder / "vectors.npy")
    has_users = users_path.exists()
    return Bundle(
        name=folder.name,
        facts=facts,
        config=load_config(folder / "config.toml"),
        items=read_catalogue(str(folder / "items.parquet"), str(facts["item_id"])),
        users=read_catalogue(str(users_path), str(facts["user_id"]), what="users") if has_users else None,
        item_encoder=open_encoder(folder, "item_features"),
        query_encoder=open_query_encoder(folder),
        user_features=columns_from_flat(open_arrays(folder / "user_features")) if has_users else {},
        histories=pl.read_parquet(histories_path) if histories_path.exists() else None,
        popularity=_loaded(folder / "popularity.npy"),
        queries=_loaded(folder / "queries.npy"),
        tables=open_arrays(folder / "tables"),
        embeddings=_mapped(folder / "embeddings.npy"),
        vectors=vectors,
        index=open_index(_index_kind(facts), folder / "index", vectors),
        query_tower=_session(folder / "query_tower.onnx"),
        item_tower=_session(folder / "item_tower.onnx"),
    )


def _index_kind(facts: dict[str, Any]) -> str:
    """The kind of index that the manifest names; versions from before there was a choice are exact."""
    index = facts.get("index", {"kind": "exact"})
    return str(index.get("kind")) if isinstance(index, dict) else str(index)


def _loaded(path: Path) -> NDArray[Any] | None:
    """A small array that older bundles lack."""
    return np.load(path, allow_pickle=False) if path.exists() else None


def _mapped(path: Path) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
