"""Whole corpora and sets of queries -> vectors, block by block, with the trained towers and full tables.

The vectors that come out are those that are searched: their inner product orders items as the model's logits do.

    of an item:   [v, T b, w c]     v of its tower, b its bias, c its content code (features/content_codes.py), w = T m what that counts
    of a query:   [u, r,   q]       u of its tower, q the codes of what it shows, added up by age, of length 1, or 0 where it shows nothing;
                                    r what popularity counts for it (features/shown_popularity.py), 1 without codes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from shortlist.dataset import Dataset, Examples
from shortlist.features.arrays import FeatureArray
from shortlist.features.content_codes import shown_codes
from shortlist.features.encoder import TableEncoder
from shortlist.features.shown_popularity import TASTE, popularity_factor, shown_popularity
from shortlist.id_places import row_blocks
from shortlist.losses import full_softmax_loss
from shortlist.queries import Queries
from shortlist.towers import MATCH, TwoTower, lookups

Tables = dict[str, torch.Tensor]
_BLOCK = 2048  # entries a call of a tower: their hidden layers stay near a core
_ITEMS_AT_ONCE = 65_536  # whose features are in memory together
_LOSS_BLOCK, _LOGITS_AT_ONCE = 256, 1 << 26  # queries at a time, fewer for large corpora: 256 MB of logits
_FARTHEST_LEVEL = 30.0  # nats


@dataclass(frozen=True)
class Corpus:
    """Every item of a catalogue, encoded."""

    embedding: NDArray[np.float32]  # what queries see of an item: (M, D); where items match, (M, D + m + 1), with its code and T b
    vector: NDArray[np.float32]  # (M, S) what is searched; S = D, and 1 for item biases, and m


def codes_for(model: TwoTower, dataset: Dataset) -> NDArray[np.float32] | None:
    """(M, m) the content codes of the dataset's items; None for a model that does not match by words.

    Raises ValueError where the model does, and the dataset was made without.
    """
    if not model.settings.match_dim:
        return None
    if dataset.item_codes is None:
        raise ValueError(f"a model with model.match_dim = {model.settings.match_dim} needs a dataset with content codes: got one without")
    return dataset.item_codes


def encode_corpus(
    model: TwoTower,
    tables: Tables,
    item_features: dict[str, FeatureArray],
    *,
    codes: NDArray[np.float32] | None = None,
    into: Corpus | None = None,
) -> Corpus:
    """All items.

    codes  (M, m) their content codes; None: without, as training sees them
    into   an encoded corpus of the same shape, which is overwritten; None: new memory, which the system has to find and clear first
    """
    count = len(next(iter(item_features.values())))
    corpus = _empty(model, count, None if codes is None else codes.shape[1]) if into is None else into

    def encode(rows: slice) -> None:
        columns = {name: column.cut(rows) for name, column in item_features.items()}
        _fill(corpus, rows, model, tables, columns, None if codes is None else codes[rows])

    _in_threads(encode, row_blocks(count, _BLOCK))
    return corpus


def encode_catalogue(model: TwoTower, tables: Tables, encoder: TableEncoder, frame: pl.DataFrame) -> Corpus:
    """All items of a table, whose features are made block by block: beside the vectors it takes the memory of some blocks."""
    matches = encoder.content is not None and bool(model.settings.match_dim)
    corpus = _empty(model, frame.height, encoder.content.width if encoder.content is not None and matches else None)

    def encode(rows: slice) -> None:
        columns, codes = encoder.encode_rows(frame, rows), encoder.codes(frame[rows]) if matches else None
        for inner in row_blocks(rows.stop - rows.start, _BLOCK):
            outer = slice(rows.start + inner.start, rows.start + inner.stop)
            cut = {name: column.cut(inner) for name, column in columns.items()}
            _fill(corpus, outer, model, tables, cut, None if codes is None else codes[inner])

    _in_threads(encode, row_blocks(frame.height, _ITEMS_AT_ONCE))
    return corpus


@torch.no_grad()
def _fill(
    corpus: Corpus, rows: slice, model: TwoTower, tables: Tables, columns: dict[str, FeatureArray], codes: NDArray[np.float32] | None
) -> None:
    """Nothing comes back: `corpus` holds the items `rows`, whose features and codes these are."""
    items = model.encode_items(columns, tables, rows.stop - rows.start)
    dim = items.vector.shape[1]
    assert items.embedding is not None  # it is asked for where nothing else is said
    corpus.embedding[rows, :dim] = items.embedding.numpy()
    if codes is not None:
        assert model.id_feature is not None and items.bias is not None
        corpus.embedding[rows, dim:-1] = codes
        counts = tables[f"item/{model.id_feature}{MATCH}"].numpy()[columns[model.id_feature].values]  # (n, 1)
        corpus.vector[rows, corpus.vector.shape[1] - codes.shape[1] :] = counts * codes  # the codes may have no width
    corpus.vector[rows, :dim] = items.vector.numpy()
    if items.bias is not None:
        corpus.vector[rows, dim] = (items.bias * model.temperature).numpy()
    if codes is not None:
        corpus.embedding[rows, -1] = corpus.vector[rows, dim]


def _in_threads(work: Callable[[slice], None], blocks: Iterable[slice]) -> None:
    """Nothing comes back: `work` was called for every block, one thread a core with torch's operations to itself.

    Threads inside every operation would wait for each other hundreds of times a second: at best a fifth slower, and on a machine
    that is busy otherwise many times (docs/performance.md). What a block becomes does not depend on how many threads there are.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "encode", torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(work, blocks):
                pass
    finally:
        torch.set_num_threads(threads)  # what threads to come start with is one number for all


def _empty(model: TwoTower, count: int, match: int | None) -> Corpus:
    """Room for so many items, whose codes have the width `match`; None = no codes."""
    dim, seen = model.settings.hidden[-1], 0 if match is None else match + 1
    widths = (dim + seen, dim + model.settings.item_bias + (match or 0))
    return Corpus(*(np.empty((count, width), np.float32) for width in widths))


def encode_queries(
    model: TwoTower,
    tables: Tables,
    queries: Queries,
    *,
    user_features: dict[str, FeatureArray],
    embedding: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(N, S) vectors of the queries, to be searched among `Corpus.vector`; `embedding` is `Corpus.embedding`."""
    dim = model.settings.hidden[-1]
    known, matches = torch.from_numpy(embedding)[:, :dim], embedding.shape[1] > dim
    codes = embedding[:, dim:-1]  # none where items do not match
    encoded = np.ones((len(queries), dim + model.settings.item_bias + codes.shape[1]), np.float32)  # a bias meets 1

    @torch.no_grad()
    def encode(rows: slice) -> None:
        block = queries.take(np.arange(rows.start, rows.stop))
        seed, history = block.seed_row, block.newest_first(model.history_last)
        users = {name: column.take(block.user_row) for name, column in user_features.items()}
        encoded[rows, :dim] = model.encode_queries(
            known,
            torch.from_numpy(seed.astype(np.int64)),
            torch.from_numpy(history.astype(np.int64)),
            lookups(users, tables, "user") + lookups(block.context, tables, "context"),
        ).numpy()
        if matches:
            encoded[rows, dim] = popularity_factor(tables[TASTE][0].numpy(), shown_popularity(embedding[:, -1], seed, history))
            encoded[rows, dim + 1 :] = shown_codes(codes, seed, history)

    _in_threads(encode, row_blocks(len(queries), _BLOCK))
    return encoded


@torch.no_grad()
def full_corpus_loss(
    model: TwoTower,
    tables: Tables,
    dataset: Dataset,
    examples: Examples,
    log_weight: NDArray[np.float32],
    *,
    free_level: NDArray[np.bool_] | None = None,
) -> float:
    """Mean nats per example under the softmax over the whole corpus: what training estimates, without sampling.

    log_weight   (M,) natural log of what each item counts in the sum (MixedNegatives.log_weight)
    free_level   (M,) items whose logits may all be moved by one number, here the one that makes the loss least; None = none
    """
    corpus = encode_corpus(model, tables, dataset.item_features)
    vectors = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    items, offset, total = torch.from_numpy(corpus.vector), torch.from_numpy(log_weight), 0.0
    free = None if free_level is None else torch.from_numpy(np.flatnonzero(free_level))
    parts = []  # (3, b) each: the positives' logits, and the sums over the items whose level is free and over the rest, as logs
    for rows in row_blocks(len(examples), max(1, min(_LOSS_BLOCK, _LOGITS_AT_ONCE // len(items)))):
        logits = (torch.from_numpy(vectors[rows]) @ items.T).div_(model.temperature).add_(offset)  # (b, M)
        positive = torch.from_numpy(examples.item_row[rows].astype(np.int64))
        if free is None:
            total += len(logits) * float(full_softmax_loss(logits, positive))
            continue
        own, of_free = logits.gather(1, positive[:, None])[:, 0], torch.logsumexp(logits.index_select(1, free), dim=1)
        parts.append(torch.stack([own, of_free, torch.logsumexp(logits.index_fill_(1, free, -torch.inf), dim=1)]))
    if free_level is None:
        return total / len(examples)
    return _loss_at_best_level(*torch.cat(parts, dim=1).double(), is_free=torch.from_numpy(free_level[examples.item_row]))


def _loss_at_best_level(own: torch.Tensor, of_free: torch.Tensor, of_rest: torch.Tensor, *, is_free: torch.Tensor) -> float:
    """min over d of the mean of log(e^(d + of_free) + e^of_rest) - own - d [is_free], each (N,); it is convex in d."""

    def loss(level: float) -> float:
        return float((torch.logaddexp(of_free + level, of_rest) - own - level * is_free).mean())

    return float(minimize_scalar(loss, bounds=(-_FARTHEST_LEVEL, _FARTHEST_LEVEL), method="bounded").fun)
