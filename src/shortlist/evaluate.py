"""How good is a retriever? Every query against the whole corpus, with intervals, slices and what must be beaten beside it.

A retriever is anything that answers queries with rows and scores; the learned one and the baselines go the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shortlist.config import EvaluateSettings
from shortlist.dataset import Dataset, Examples
from shortlist.errors import DataError, ShapeError
from shortlist.metrics import bootstrap_interval, coverage, mrr_at, ndcg_at, pessimistic_rank, recall_at
from shortlist.queries import Queries

_BLOCK = 2048  # queries at a time
HEAD_SHARE, MID_SHARE = 1 / 3, 2 / 3  # of the window's choices, by the most chosen items first


class Retriever(Protocol):
    """Answers queries out of the whole corpus."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first, padded with -1 and -inf; `exclude` names rows to leave out per query."""


@dataclass(frozen=True)
class Ranked:
    """What one model did on one split: where it ranked each positive, and how much of the corpus its lists show."""

    model: str
    rank: NDArray[np.int64]  # (N,) from 1, ties against the model; NOT_FOUND beyond the largest k
    coverage: dict[int, float]  # by k


@dataclass(frozen=True)
class Tested:
    """The queries of one split: who asked, and which slice each belongs to. One row a query, in the same order for all models."""

    split: str
    asker: NDArray[np.int64]  # (N,)
    slices: dict[str, NDArray[np.bool_]]  # each (N,)
    train_rows: int
    repeats_left_out: int  # queries whose answer was in their own history, where seen items are excluded
    unrewarded_left_out: int = 0  # choices with a reward of 0

    def __len__(self) -> int:
        return len(self.asker)


def queries_to_test(dataset: Dataset, examples: Examples, settings: EvaluateSettings, split: str) -> tuple[Examples, Tested]:
    """The examples that count under `settings.seen_items`, and what is known of them. Raises DataError where none is left.

    A choice with a reward of 0 is no right answer and is not tested.
    """
    repeats = 0
    rewarded = examples.weight > 0
    unrewarded = int((~rewarded).sum())
    examples = examples.take(np.flatnonzero(rewarded))
    if settings.seen_items == "exclude":
        fresh = np.array([item not in seen for item, seen in zip(examples.item_row, seen_items(examples.queries), strict=True)], bool)
        repeats = int((~fresh).sum())
        examples = examples.take(np.flatnonzero(fresh))
    if not len(examples):
        raise DataError(
            f"split {split} needs a query to test: got none, {repeats} left out as known to the query, {unrewarded} for a reward of 0; "
            'check [evaluate] seen_items (now "' + settings.seen_items + '")'
        )
    return examples, Tested(split, examples.asker, slices_of(dataset, examples), len(dataset.train), repeats, unrewarded)


def seen_items(queries: Queries) -> list[NDArray[np.int64]]:
    """For each query the item rows it already knows: its seed and its whole history."""
    return [np.append(queries.history(query), queries.seed_row[query]).astype(np.int64) for query in range(len(queries))]


def rank_positives(retriever: Retriever, examples: Examples, corpus_size: int, settings: EvaluateSettings) -> Ranked:
    """Retrieves for every example and finds its positive. One result more than the largest k settles ties at the edge."""
    longest = min(max(settings.ks) + 1, corpus_size)
    ranks, lists = [], []
    for start in range(0, len(examples), _BLOCK):
        block = examples.take(np.arange(start, min(start + _BLOCK, len(examples))))
        exclude = seen_items(block.queries) if settings.seen_items == "exclude" else None
        rows, scores = retriever.retrieve(block.queries, longest, exclude)
        ranks.append(pessimistic_rank(rows, scores, block.item_row.astype(np.int64), corpus_size))
        lists.append(rows)
    shown = np.concatenate(lists)
    covered = {k: coverage(shown, min(k, shown.shape[1]), corpus_size) for k in settings.ks}
    return Ranked(retriever.name, np.concatenate(ranks), covered)


def slices_of(dataset: Dataset, examples: Examples) -> dict[str, NDArray[np.bool_]]:
    """Which queries ask for head, mid and tail items, for items unseen in training, and come from unseen users.

    Head are the most chosen items of the window that together drew a third of its choices, mid the next third, tail the
    rest; an item on the border belongs to the higher band. An unseen item is in the corpus and was never chosen.
    """
    counts = dataset.item_counts
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(counts))
    before[order] = (np.cumsum(counts[order]) - counts[order]) / max(counts.sum(), 1)  # share of choices above each item
    above, chosen = before[examples.item_row], counts[examples.item_row] > 0
    known = np.isin(examples.asker, dataset.train.asker) & (examples.asker >= 0)  # nobody is not a known user
    return {
        "head items": chosen & (above < HEAD_SHARE),
        "mid items": chosen & (above >= HEAD_SHARE) & (above < MID_SHARE),
        "tail items": chosen & (above >= MID_SHARE),
        "unseen items": ~chosen,
        "known users": known,
        "unseen users": ~known,
    }


def evaluation_table(
    tested: Sequence[Tested], ranked: Sequence[Sequence[Ranked]], settings: EvaluateSettings, corpus_size: int
) -> dict[str, Any]:
    """One JSON-able table over all splits: per model and metric the mean, its interval and the number of queries; slices.

    ranked   for each split, one entry a model, in the same order of models
    The mean over splits weighs every split alike, as the paper's average of seven days does; so each query weighs
    1 / (queries of its split). Intervals come from a bootstrap over users, a user keeping their queries of all splits.
    Raises   ShapeError where the splits do not list the same models, each once
    """
    _refuse_uneven(ranked)
    weight = np.concatenate([np.full(len(split), 1.0 / len(split)) for split in tested])
    asker = np.concatenate([split.asker for split in tested])
    cluster = np.where(asker < 0, -1 - np.arange(len(asker)), asker)  # nobody in particular: each stands alone
    masks = {name: np.concatenate([split.slices[name] for split in tested]) for name in tested[0].slices}
    ranks = {entry.model: np.concatenate([models[i].rank for models in ranked]) for i, entry in enumerate(ranked[0])}

    def summary(rank: NDArray[np.int64], mask: NDArray[np.bool_]) -> dict[str, Any]:
        return {name: _interval(values[mask], cluster[mask], weight[mask], settings) for name, values in _metrics(rank, settings).items()}

    everything = np.ones(len(weight), bool)
    models = {name: summary(rank, everything) for name, rank in ranks.items()}
    for i, entry in enumerate(ranked[0]):
        for k in settings.ks:
            models[entry.model][f"coverage@{k}"] = {"mean": float(np.mean([split[i].coverage[k] for split in ranked]))}
    return {
        "protocol": settings.protocol,
        "corpus_size": corpus_size,
        "queries": len(weight),
        "seen_items": settings.seen_items,
        "ties": "count against the model",
        "interval": f"95 %, bootstrap over users, {settings.bootstrap} resamples",
        "splits": [
            {
                "name": split.split,
                "train_examples": split.train_rows,
                "queries": len(split),
                "repeats_left_out": split.repeats_left_out,
                "unrewarded_left_out": split.unrewarded_left_out,
                "models": {
                    entry.model: {name: float(values.mean()) for name, values in _metrics(entry.rank, settings).items()}
                    for entry in models_of_split
                },
            }
            for split, models_of_split in zip(tested, ranked, strict=True)
        ],
        "models": models,
        "slices": {
            name: {
                "queries": int(mask.sum()),
                "models": {model: summary(rank, mask) for model, rank in ranks.items()} if mask.any() else {},
            }
            for name, mask in masks.items()
        },
    }


def _refuse_uneven(ranked: Sequence[Sequence[Ranked]]) -> None:
    names = [[entry.model for entry in models] for models in ranked]
    if any(line != names[0] for line in names) or len(set(names[0])) < len(names[0]):
        raise ShapeError(f"every split must list the same models, each once, in one order: got {names}; give each its own name")


def _metrics(rank: NDArray[np.int64], settings: EvaluateSettings) -> dict[str, NDArray[np.float64]]:
    values = {f"recall@{k}": recall_at(rank, k) for k in settings.ks}
    smallest, largest = min(settings.ks), max(settings.ks)
    return {**values, f"ndcg@{smallest}": ndcg_at(rank, smallest), f"mrr@{largest}": mrr_at(rank, largest)}


def _interval(
    values: NDArray[np.float64], cluster: NDArray[np.int64], weight: NDArray[np.float64], settings: EvaluateSettings
) -> dict[str, float]:
    interval = bootstrap_interval(values, cluster, weight=weight, resamples=settings.bootstrap, seed=settings.seed)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "queries": len(values)}
