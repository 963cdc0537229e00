"""A published version, opened: query tower, item vectors, index, ids and encoders that were made together.

No torch: towers run in ONNX Runtime, everything else is numpy. Every file was hashed when it was published and is
checked before it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue, open_catalogue
from shortlist.config import load_config
from shortlist.errors import BundleError
from shortlist.features.arrays import FeatureArray, columns_from_flat
from shortlist.features.content_codes import shown_codes
from shortlist.features.encoder import TableEncoder, open_encoder
from shortlist.features.lookup import look_up
from shortlist.features.shown_popularity import TASTE, popularity_factor, shown_popularity
from shortlist.index.contract import Index
from shortlist.index.kinds import open_index
from shortlist.manifest import verify_version
from shortlist.pace import step
from shortlist.parquet_steps import joined, read_in_steps
from shortlist.queries import Queries, QueryEncoder, open_query_encoder
from shortlist.saved_arrays import open_arrays
from shortlist.sections import Config
from shortlist.store import current_version

FORMAT = 1
ITEM_INPUTS, ITEM_OUTPUTS = ("features", "id_bias", "id_output"), ("embedding", "vector")
QUERY_INPUTS, QUERY_OUTPUTS = ("seed", "has_seed", "history", "present", "features"), ("vector",)
ROWS_AXIS = "rows"  # the dynamic first axis of all towers' inputs and outputs
_BLOCK = 1024  # queries encoded at a time
_EXTERNAL_DATA = b"\x0a\x08location"  # the key under which an ONNX tensor names another file
Opened = TypeVar("Opened")


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
    histories: pl.DataFrame | None  # user or seed, history (list of item ids, oldest first): the state when training ended
    popularity: NDArray[np.int64] | None  # (M,) how often training saw each item chosen; None in older bundles
    queries: NDArray[np.float32] | None  # (N, S) vectors of held-out queries, to judge an index by; None in older bundles
    tables: dict[str, NDArray[np.float32]]
    embeddings: NDArray[np.float32]  # what queries see of an item: (M, D); where items match, (M, D + m + 1), with its code and its bias
    vectors: NDArray[np.float32]  # (M, S) what is searched
    index: Index
    query_tower: onnxruntime.InferenceSession
    query_tower_of_one: onnxruntime.InferenceSession  # the same for one query at a time: with shapes settled it takes a fifth less
    item_tower: onnxruntime.InferenceSession

    @property
    def dim(self) -> int:
        """D, the width of what the towers make."""
        return self.config.model.hidden[-1]

    def encode_queries(self, queries: Queries) -> NDArray[np.float32]:
        """(N, S) vectors of the queries, to be searched in `index`."""
        vectors = [np.zeros((0, self.vectors.shape[1]), np.float32)]
        for start in range(0, len(queries), _BLOCK):
            vectors.append(self._encode_block(queries.take(np.arange(start, min(start + _BLOCK, len(queries))))))
        return np.concatenate(vectors)

    def encode_items(self, frame: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(embeddings (n, D or D + m + 1), vectors (n, S)) of the items in `frame`, known to training or not."""
        columns = self.item_encoder.encode(frame)
        inputs = (
            look_up(columns, self.tables, "item", frame.height),
            self._of_ids(columns, "#bias", 1),
            self._of_ids(columns, "#output", self.dim),
        )
        embedding, vector = self.item_tower.run(list(ITEM_OUTPUTS), dict(zip(ITEM_INPUTS, inputs, strict=True)))
        codes = self.item_encoder.codes(frame)
        if codes is None:
            return embedding, vector
        counts, bias = self._of_ids(columns, "#match", 1), vector[:, self.dim :]
        return np.concatenate([embedding, codes, bias], axis=1), np.concatenate([vector, counts * codes], axis=1)

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
        embeddings = self.embeddings[:, : self.dim]
        remembered = embeddings[np.maximum(history, 0)] * present[:, :, None]  # (n, L, D)
        has_seed = (queries.seed_row >= 0)[:, None].astype(np.float32)
        seed = embeddings[np.maximum(queries.seed_row, 0)] * has_seed
        users = {name: column.take(queries.user_row) for name, column in self.user_features.items()}
        x = np.concatenate([look_up(users, self.tables, "user", count), look_up(queries.context, self.tables, "context", count)], axis=1)
        inputs = (seed, has_seed, remembered, present.astype(np.float32), x)
        (vector,) = self.query_tower.run(list(QUERY_OUTPUTS), dict(zip(QUERY_INPUTS, inputs, strict=True)))
        vector = np.asarray(vector, np.float32)
        if self.item_encoder.content is None:
            return vector
        shown = shown_popularity(self.embeddings[:, -1], queries.seed_row, history)
        factor = popularity_factor(self.tables[TASTE][0], shown)[:, None]
        codes = shown_codes(self.embeddings[:, self.dim : -1], queries.seed_row, history)
        return np.concatenate([vector[:, : self.dim], factor, codes], axis=1)


def open_current(store: Path) -> Bundle:
    """The live version of a store. Raises BundleError where there is none, or where it is damaged."""
    return open_bundle(current_version(store))


def asking_column(histories: pl.DataFrame) -> str:
    """Whose histories they are: "user", or "seed" in a log whose seeds ask."""
    return "user" if "user" in histories.columns else "seed"


def open_bundle(folder: Path) -> Bundle:
    """The version in `folder`, after every file's size and hash were found to be those of its manifest.

    Raises BundleError naming the first file that does not fit.
    """
    facts = verify_version(folder).facts
    if facts.get("bundle") != FORMAT:
        raise BundleError(f"{folder} must be of bundle format {FORMAT}: got {facts.get('bundle')!r}; publish it again with this program")
    has_users, has_histories = (folder / "users.parquet").exists(), (folder / "histories.parquet").exists()
    vectors = _opened(folder / "vectors.npy", _mapped)
    bundle = Bundle(
        name=folder.name,
        facts=facts,
        config=_opened(folder / "config.toml", load_config),
        items=_opened(folder / "items.parquet", lambda path: open_catalogue(path, str(facts["item_id"]))),
        users=_opened(folder / "users.parquet", lambda path: open_catalogue(path, str(facts["user_id"]))) if has_users else None,
        item_encoder=_opened(folder / "item_features.json", lambda path: open_encoder(path.parent, path.stem)),
        query_encoder=_opened(folder / "query.json", lambda path: open_query_encoder(path.parent)),
        user_features=_opened(folder / "user_features", lambda path: columns_from_flat(open_arrays(path))) if has_users else {},
        histories=_opened(folder / "histories.parquet", lambda path: joined(list(read_in_steps(path)))) if has_histories else None,
        popularity=_opened(folder / "popularity.npy", lambda path: _mapped(path) if path.exists() else None),
        queries=_opened(folder / "queries.npy", _loaded),
        tables=_opened(folder / "tables", open_arrays),
        embeddings=_opened(folder / "embeddings.npy", _mapped),
        vectors=vectors,
        index=_opened(folder / "index", lambda path: open_index(_index_kind(facts), path, vectors)),
        query_tower=_opened(folder / "query_tower.onnx", _session),
        query_tower_of_one=_opened(folder / "query_tower.onnx", partial(_session, rows=1)),
        item_tower=_opened(folder / "item_tower.onnx", _session),
    )
    _check_shapes(folder, bundle)
    return bundle


def _opened(path: Path, opener: Callable[[Path], Opened]) -> Opened:
    """What `opener` makes of a file or folder. Raises BundleError naming it for whatever is wrong with it."""
    try:
        with np.errstate(over="raise"):  # a shape whose product overflows
            opened = opener(path)
        step()
        return opened
    except BundleError:
        raise
    except Exception as error:  # the hash fits, so a publisher wrote it so: every library has exceptions of its own for that
        raise BundleError(f"{path} must be what a publisher writes: {type(error).__name__}: {error}; publish again") from error


def _check_shapes(folder: Path, bundle: Bundle) -> None:
    """Raises BundleError naming the first array that does not fit the others."""
    for name, matrix in (("embeddings.npy", bundle.embeddings), ("queries.npy", bundle.queries)):  # of the vectors, the index says so
        if matrix is not None and matrix.ndim != 2:
            raise BundleError(f"{folder / name} must be a matrix: got the shape {matrix.shape}; publish again")
    content = bundle.item_encoder.content
    if bool(bundle.config.model.match_dim) != (content is not None):
        raise BundleError(
            f"{folder / 'item_features.json'} must know the words that items match by where model.match_dim is set, and only there: "
            f"got match_dim = {bundle.config.model.match_dim}; publish again"
        )
    counts = f"item/{bundle.item_encoder.id_feature()}#match"
    if content is not None and counts not in bundle.tables:
        raise BundleError(f"{folder / 'tables'} must say in {counts!r} what matches count: it is missing; publish again")
    taste = bundle.tables.get(TASTE, np.zeros((0, 2), np.float32))
    if content is not None and (taste.shape != (1, 2) or not np.isfinite(taste).all()):
        raise BundleError(f"{folder / 'tables'} must say in {TASTE!r}, two finite numbers, what popularity counts; train and publish again")
    count, matched = len(bundle.items), 0 if content is None else content.width
    width = bundle.dim + bundle.config.model.item_bias + matched
    expected: dict[str, tuple[NDArray[Any] | None, str, tuple[int, ...]]] = {
        "embeddings.npy": (bundle.embeddings, "f4", (count, bundle.dim + matched + (content is not None))),
        "vectors.npy": (bundle.vectors, "f4", (count, width)),
        "popularity.npy": (bundle.popularity, "i8", (count,)),
        "queries.npy": (bundle.queries, "f4", (0 if bundle.queries is None else len(bundle.queries), width)),
    }
    for name, (array, dtype, shape) in expected.items():
        if array is not None and (array.dtype != np.dtype(dtype) or array.shape != shape):
            raise BundleError(f"{folder / name} must be {shape} of {np.dtype(dtype)}: got {array.shape} of {array.dtype}; publish again")
    for name, table in bundle.tables.items():
        if table.dtype != np.float32 or table.ndim != 2:
            raise BundleError(f"{folder / 'tables'} must hold matrices of float32: got {table.shape} of {table.dtype} for {name!r}")
    for name, column in bundle.user_features.items():
        if bundle.users is None or len(column) != len(bundle.users) + 1:
            raise BundleError(f"{folder / 'user_features'} must have an entry a user and one for nobody: got {len(column)} for {name!r}")


def _index_kind(facts: dict[str, Any]) -> str:
    """The kind of index that the manifest names; versions from before there was a choice are exact."""
    index = facts.get("index", {"kind": "exact"})
    return str(index.get("kind")) if isinstance(index, dict) else str(index)


def _loaded(path: Path) -> NDArray[Any] | None:
    """A small array that older bundles lack."""
    return (
        np.array(np.load(path, mmap_mode="r", allow_pickle=False)) if path.exists() else None
    )  # mapped: its header may lie about its size


def _mapped(path: Path) -> NDArray[Any]:
    """The file's array, mapped. A plain one: each view and slice of a `memmap` costs microseconds."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _session(path: Path, rows: int | None = None) -> onnxruntime.InferenceSession:
    """The graph in a file; `rows`: how many it will be given at a time, where that is always the same."""
    options = onnxruntime.SessionOptions()
    if rows is not None:
        options.add_free_dimension_override_by_name(ROWS_AXIS, rows)
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = path.read_bytes()
    if _EXTERNAL_DATA in graph:
        raise BundleError(f"{path} must hold its own weights: it names another file for them; publish again")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
