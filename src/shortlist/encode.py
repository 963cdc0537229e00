"""Whole corpora and sets of queries -> vectors, block by block, with the trained towers and full tables.

The vectors that come out are those that are searched: their inner product orders items as the model's logits do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shortlist.dataset import Dataset, Examples
from shortlist.features.arrays import FeatureArray
from shortlist.losses import full_softmax_loss
from shortlist.queries import Queries
from shortlist.towers import TwoTower, embed

Tables = dict[str, torch.Tensor]
_BLOCK = 4096


@dataclass(frozen=True)
class Corpus:
    """Every item of a catalogue, encoded."""

    embedding: NDArray[np.float32]  # (M, D) what queries see of an item (seed, history)
    vector: NDArray[np.float32]  # (M, S) what is searched; S = D, or D + 1 with item biases


@torch.no_grad()
def encode_corpus(model: TwoTower, tables: Tables, item_features: dict[str, FeatureArray]) -> Corpus:
    """All items. A bias b becomes a last coordinate T b, which every query meets with 1: the search stays one product."""
    count = len(next(iter(item_features.values())))
    embeddings, vectors = [], []
    for rows in _blocks(count):
        columns = {name: column.take(rows) for name, column in item_features.items()}
        items = model.encode_items(columns, tables, len(rows))
        embeddings.append(items.embedding.numpy())
        vector = items.vector
        if items.bias is not None:
            vector = torch.cat([vector, (items.bias * model.temperature)[:, None]], dim=1)
        vectors.append(vector.numpy())
    return Corpus(np.concatenate(embeddings), np.concatenate(vectors))


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
    for rows in _blocks(len(queries)):
        block = queries.take(rows)
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
    for rows in _blocks(len(examples), 256):
        logits = torch.from_numpy(vectors[rows]) @ items.T / model.temperature + offset  # (b, M)
        total += len(rows) * float(full_softmax_loss(logits, torch.from_numpy(examples.item_row[rows].astype(np.int64))))
    return total / len(examples)


def _blocks(count: int, size: int = _BLOCK) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
