"""What an evaluation reports: one JSON-able table of means with intervals, and every rank as a row of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import ShapeError
from shortlist.evaluate import Ranked, Tested
from shortlist.metrics.intervals import bootstrap_intervals
from shortlist.metrics.ranking import NOT_FOUND, mrr_at, ndcg_at, recall_at, recall_per_group
from shortlist.sections import EvaluateSettings
from shortlist.slices import NEVER
from shortlist.times import DAY_US
from shortlist.unlisted import treatment_of_repeats

Values = NDArray[np.float64]
Metrics = dict[str, Values]  # by name, one value a query and training (N, S)


@dataclass(frozen=True)
class _Queries:
    """The queries of all splits, one below the other."""

    split: NDArray[np.int64]  # (N,) its number
    cluster: NDArray[np.int64]  # (N,) who asked; nobody in particular is a cluster of its own
    weight: Values  # (N,)


def evaluation_table(tested: Sequence[Tested], ranked: Sequence[Sequence[Ranked]], settings: EvaluateSettings) -> dict[str, Any]:
    """One JSON-able table over all splits: per model and metric the mean, its interval and the number of queries; slices.

    ranked   for each split, one entry a model, or one a training of it, in the same order of models
    The mean over splits weighs every split alike, as the paper's average of seven days does; so each query weighs
    1 / (queries of its split). Intervals come from a bootstrap over users, a user keeping their queries of all splits. A model
    that was trained with several seeds has the mean over them, what each came to under "seeds", and an interval that draws
    seeds as well. "compared" holds the first model minus each other one, on the same queries.
    Raises   ShapeError where the splits do not list the same models and seeds, each once, or two models differ in how many seeds
    """
    places = _places(ranked)
    queries = _of_all_splits(tested)
    ranks = {model: _ranks(ranked, at) for model, at in places.items()}
    models = {model: _metrics(rank, settings) for model, rank in ranks.items()}
    everything = np.ones(len(queries.weight), bool)
    overall = _intervals(models, queries, everything, settings)
    for model, at in places.items():
        overall[model] |= _per_user(ranks[model], queries, settings)
        overall[model] |= _mean_of_lists([entries[place] for entries in ranked for place in at])
    first, *others = models
    differences = {other: {name: models[first][name] - values for name, values in models[other].items()} for other in others}
    seeds = _seeds(ranked[0])
    return {
        "protocol": settings.protocol,
        **({"days": settings.days} if settings.protocol == "rolling" else {}),
        "corpus_size": len(tested[0].items),
        "queries": len(queries.weight),
        "seen_items": settings.seen_items or "rank",
        "repeats": treatment_of_repeats(settings),
        "ties": "count against the model",
        "interval": f"95 %, bootstrap over users{' and training seeds' if len(seeds) > 1 else ''}, {settings.bootstrap} resamples",
        **({"seeds": seeds} if seeds else {}),
        "splits": [_of_split(split, entries, places, settings) for split, entries in zip(tested, ranked, strict=True)],
        "models": overall,
        "compared": {"model": first, "minus": _intervals(differences, queries, everything, settings)},
        "slices": {
            name: {"queries": int(mask.sum()), "models": _intervals(models, queries, mask, settings) if mask.any() else {}}
            for name, mask in _slices(tested).items()
        },
    }


def ranks_frame(tested: Sequence[Tested], ranked: Sequence[Sequence[Ranked]]) -> pl.DataFrame:
    """Every rank: one row a (split, query, model, seed), splits and models in the order given, queries in the order of the log.

    split, query         the split's name; the number of the query in it, from 0
    asker                a number of who asked, the same in all splits; null = nobody in particular
    item_row, item_id    the item chosen, in the corpus that was ranked
    model, seed          the seed of its training; null = there is nothing random in the model
    rank                 from 1, ties against the model; null = beyond the largest k
    popularity_decile    of the item in training, 1 = the most chosen; null = never chosen
    item_age_days        since the item was first chosen; null = never before, or the log has no times
    Raises               ShapeError as `evaluation_table` does
    """
    _places(ranked)
    frames = [_ranks_of(split, entry) for split, entries in zip(tested, ranked, strict=True) for entry in entries]
    return pl.concat(frames)


def _ranks_of(tested: Tested, entry: Ranked) -> pl.DataFrame:
    count = len(tested)
    age = np.full(count, NEVER) if tested.item_age_us is None else tested.item_age_us
    return pl.DataFrame(
        {
            "split": [tested.split] * count,
            "query": np.arange(count),
            "asker": tested.asker,
            "item_row": tested.item_row,
            "item_id": tested.items.ids[tested.item_row],
            "model": [entry.model] * count,
            "seed": pl.Series([entry.seed] * count, dtype=pl.Int64),
            "rank": entry.rank,
            "popularity_decile": tested.decile,
            "item_age_days": age,
        }
    ).with_columns(
        pl.col("asker").replace(-1, None),
        pl.col("rank").replace(NOT_FOUND, None),
        pl.col("popularity_decile").replace(0, None),
        pl.col("item_age_days").replace(NEVER, None) / DAY_US,
    )


def _places(ranked: Sequence[Sequence[Ranked]]) -> dict[str, list[int]]:
    """Where in every split's list the entries of each model stand, one a seed. Raises ShapeError as `evaluation_table` does."""
    names = [[entry.model if entry.seed is None else (entry.model, entry.seed) for entry in models] for models in ranked]
    if any(line != names[0] for line in names) or len(set(names[0])) < len(names[0]):
        raise ShapeError(f"every split must list the same models, each once, in one order: got {names}; give each its own name")
    places: dict[str, list[int]] = {}
    for place, entry in enumerate(ranked[0]):
        places.setdefault(entry.model, []).append(place)
    return places


def _seeds(entries: Sequence[Ranked]) -> list[int]:
    """The seeds that models were trained with, in the order of the entries."""
    return list(dict.fromkeys(entry.seed for entry in entries if entry.seed is not None))


def _of_all_splits(tested: Sequence[Tested]) -> _Queries:
    asker = np.concatenate([split.asker for split in tested])
    return _Queries(
        np.repeat(np.arange(len(tested)), [len(split) for split in tested]),
        np.where(asker < 0, -1 - np.arange(len(asker)), asker),
        np.concatenate([np.full(len(split), 1.0 / len(split)) for split in tested]),
    )


def _ranks(ranked: Sequence[Sequence[Ranked]], places: Sequence[int]) -> NDArray[np.int64]:
    """(N, S) the ranks of one model, a column a training."""
    return np.concatenate([np.column_stack([entries[place].rank for place in places]) for entries in ranked])


def _slices(tested: Sequence[Tested]) -> dict[str, NDArray[np.bool_]]:
    return {name: np.concatenate([split.slices[name] for split in tested]) for name in tested[0].slices}


def _metrics(rank: NDArray[np.int64], settings: EvaluateSettings) -> Metrics:
    """What ranks (N, S) come to, by metric."""
    smallest, largest = min(settings.ks), max(settings.ks)
    asked = [*(("recall", recall_at, k) for k in settings.ks), ("ndcg", ndcg_at, smallest), ("mrr", mrr_at, largest)]
    return {f"{name}@{k}": np.column_stack([metric(of_one, k) for of_one in rank.T]) for name, metric, k in asked}


def _intervals(
    models: dict[str, Metrics], queries: _Queries, mask: NDArray[np.bool_], settings: EvaluateSettings
) -> dict[str, dict[str, Any]]:
    """By model and metric, over the queries of `mask`; all models meet the same draws of users."""
    columns = [values[mask] for metrics in models.values() for values in metrics.values()]
    if not columns:
        return {}
    found = iter(_described(columns, queries.cluster[mask], queries.weight[mask], settings, counted="queries"))
    return {model: {name: next(found) for name in metrics} for model, metrics in models.items()}


def _per_user(rank: NDArray[np.int64], queries: _Queries, settings: EvaluateSettings) -> dict[str, Any]:
    """The mean over users of the share of their choices that was found: users weigh alike, however much they chose.

    A user of several splits has a share in each; splits weigh alike.
    """
    pairs = np.stack([queries.split, queries.cluster])
    (split, cluster), group = np.unique(pairs, axis=1, return_inverse=True)
    weight = 1.0 / np.bincount(split)[split]
    columns = [np.column_stack([recall_per_group(recall_at(of_one, k), group.ravel()) for of_one in rank.T]) for k in settings.ks]
    names = [f"recall_per_user@{k}" for k in settings.ks]
    return dict(zip(names, _described(columns, cluster, weight, settings, counted="users"), strict=True))


def _described(
    columns: Sequence[Values], cluster: NDArray[np.int64], weight: Values, settings: EvaluateSettings, *, counted: str
) -> list[dict[str, Any]]:
    found = bootstrap_intervals(columns, cluster, weight=weight, resamples=settings.bootstrap, seed=settings.seed)
    return [
        {"mean": mean, "low": low, "high": high, counted: len(cluster), **_by_seed(column, weight)}
        for column, (mean, low, high) in zip(columns, found, strict=True)
    ]


def _by_seed(column: Values, weight: Values) -> dict[str, list[float]]:
    """The mean of each training, where there are several."""
    return {"seeds": (weight @ column / weight.sum()).tolist()} if column.shape[1] > 1 else {}


def _mean_of_lists(entries: Sequence[Ranked]) -> dict[str, dict[str, float]]:
    """The metrics of lists that all splits and trainings have, each the mean over them."""
    shared = [name for name in entries[0].of_lists if all(name in entry.of_lists for entry in entries)]
    return {name: {"mean": float(np.mean([entry.of_lists[name] for entry in entries]))} for name in shared}


def _of_split(tested: Tested, entries: Sequence[Ranked], places: dict[str, list[int]], settings: EvaluateSettings) -> dict[str, Any]:
    found = {model: _metrics(_ranks([entries], at), settings) for model, at in places.items()}
    tuned = {entry.model: entry.tuned for entry in entries if entry.tuned}
    return {
        "name": tested.split,
        "train_examples": tested.train_rows,
        "queries": len(tested),
        "repeats_left_out": tested.repeats_left_out,
        "unrewarded_left_out": tested.unrewarded_left_out,
        **({"tuned": tuned} if tuned else {}),
        "models": {model: {name: float(values.mean()) for name, values in metrics.items()} for model, metrics in found.items()},
    }
