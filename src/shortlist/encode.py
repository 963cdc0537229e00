"""Whole corpora and sets of queries -> vectors, block by block, with the trained towers and full tables.

The vectors that come out are those that are searched: their inner product orders items as the model's logits do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from shortlist.dataset import Dataset, Examples
from shortlist.features.arrays import FeatureArray
from shortlist.features.encoder import TableEncoder
from shortlist.id_places import row_blocks
from shortlist.losses import full_softmax_loss
from shortlist.queries import Queries
from shortlist.towers import TwoTower, embed

Tables = dict[str, torch.Tensor]
CORPUS_FILES = ("embeddings.npy", "vectors.npy")
_BLOCK = 4096  # entries a call of a tower
_ITEMS_AT_ONCE = 65_536  # whose features are in memory together
_LOSS_BLOCK, _LOGITS_AT_ONCE = 256, 1 << 26  # queries at a time, fewer for large corpora: 256 MB of logits


@dataclass(frozen=True)
class Corpus:
    """Every item of a catalogue, encoded."""

    embedding: NDArray[np.float32]  # (M, D) what queries see of an item (seed, history)
    vector: NDArray[np.float32]  # (M, S) what is searched; S = D, or D + 1 with item biases


def encode_corpus(model: TwoTower, tables: Tables, item_features: dict[str, FeatureArray]) -> Corpus:
    """All items. A bias b becomes a last coordinate T b, which every query meets with 1: the search stays one product."""
    count = len(next(iter(item_features.values())))
    corpus = Corpus(*(np.empty((count, width), np.float32) for width in _widths(model)))
    _fill(corpus, slice(0, count), model, tables, item_features)
    return corpus


def encode_catalogue(model: TwoTower, tables: Tables, encoder: TableEncoder, frame: pl.DataFrame, folder: Path) -> Corpus:
    """All items of a table, written to embeddings.npy and vectors.npy in `folder` block by block, memory-mapped.

    The features of a block are made when its turn comes, so a corpus of any size takes the memory of a block.
    """
    corpus = Corpus(
        *(
            np.lib.format.open_memmap(folder / name, "w+", np.dtype(np.float32), (frame.height, width))
            for name, width in zip(CORPUS_FILES, _widths(model), strict=True)
        )
    )
    for rows, columns in encoder.encode_blocks(frame, _ITEMS_AT_ONCE):
        _fill(corpus, rows, model, tables, columns)
    for array in (corpus.embedding, corpus.vector):
        assert isinstance(array, np.memmap)
        array.flush()
    return Corpus(*(np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in CORPUS_FILES))


@torch.no_grad()
def _fill(corpus: Corpus, rows: slice, model: TwoTower, tables: Tables, item_features: dict[str, FeatureArray]) -> None:
    """Nothing comes back: `corpus` holds the items `rows`, whose features these are."""
    for inner in row_blocks(rows.stop - rows.start, _BLOCK):
        columns = {name: column.cut(inner) for name, column in item_features.items()}
        items = model.encode_items(columns, tables, inner.stop - inner.start)
        outer = slice(rows.start + inner.start, rows.start + inner.stop)
        corpus.embedding[outer] = items.embedding.numpy()
        dim = items.vector.shape[1]
        corpus.vector[outer, :dim] = items.vector.numpy()
        if items.bias is not None:
            corpus.vector[outer, dim] = (items.bias * model.temperature).numpy()


def _widths(model: TwoTower) -> tuple[int, int]:
    """Of an embedding and of a searched vector."""
    dim = model.settings.hidden[-1]
    return dim, dim + 1 if model.settings.item_bias else dim


@torch.no_grad()
def encode_queries(
    model: TwoTower,
    tables: Tables,
    queries: Queries,
    *,
    user_features: dict[str, FeatureArray],
    embedding: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(N, S) vectors of the queries, to be searched among `Corpus.vector`; `embedding` is `Corpus.embedding`."""
    known = torch.from_numpy(embedding)
    vectors = []
    for rows in row_blocks(len(queries), _BLOCK):
        block = queries.take(np.arange(rows.start, rows.stop))
        users = {name: column.take(block.user_row) for name, column in user_features.items()}
        vectors.append(
            model.encode_queries(
                known,
                torch.from_numpy(block.seed_row.astype(np.int64)),
                torch.from_numpy(block.newest_first(model.history_last).astype(np.int64)),
                embed(users, tables, "user") + embed(block.context, tables, "context"),
            ).numpy()
        )
    encoded = np.concatenate(vectors) if vectors else np.zeros((0, embedding.shape[1]), np.float32)
    if model.settings.item_bias:
        encoded = np.concatenate([encoded, np.ones((len(encoded), 1), np.float32)], axis=1)
    return encoded


@torch.no_grad()
def full_corpus_loss(model: TwoTower, tables: Tables, dataset: Dataset, examples: Examples, log_weight: NDArray[np.float32]) -> float:
    """Mean nats per example under the softmax over the whole corpus: what training estimates, without sampling.

    log_weight   (M,) natural log of what each item counts in the sum (MixedNegatives.log_weight)
    """
    corpus = encode_corpus(model, tables, dataset.item_features)
    vectors = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    items, offset, total = torch.from_numpy(corpus.vector), torch.from_numpy(log_weight), 0.0
    for rows in row_blocks(len(examples), max(1, min(_LOSS_BLOCK, _LOGITS_AT_ONCE // len(items)))):
        logits = (torch.from_numpy(vectors[rows]) @ items.T).div_(model.temperature).add_(offset)  # (b, M)
        total += len(logits) * float(full_softmax_loss(logits, torch.from_numpy(examples.item_row[rows].astype(np.int64))))
    return total / len(examples)
