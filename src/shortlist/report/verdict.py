"""Which model is best by a metric, and is that certain? Only where the paired interval against every other model lies above 0.

The evaluation table compares its first model with all others. Where another one leads, the same bootstrap is run here, from the ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.metrics.intervals import bootstrap_intervals
from shortlist.metrics.ranking import NOT_FOUND, mrr_at, ndcg_at, recall_at
from shortlist.report.inputs import Estimate, Evaluation

RESAMPLES, SEED = 1000, 0  # of the intervals that are computed here
_OF_A_RANK: dict[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {"recall": recall_at, "ndcg": ndcg_at, "mrr": mrr_at}


@dataclass(frozen=True)
class Verdict:
    """The best model by one metric, beside the others."""

    metric: str
    best: str
    runner_up: str | None  # the best of the others; None where there is none
    ahead: dict[str, Estimate]  # the best minus each other one; empty where no interval is known

    @property
    def is_certain(self) -> bool:
        """Whether the best is above every other model for certain."""
        return bool(self.ahead) and all(difference.low is not None and difference.low > 0 for difference in self.ahead.values())

    @property
    def lead(self) -> Estimate | None:
        """The best minus the runner-up, if known."""
        return None if self.runner_up is None else self.ahead.get(self.runner_up)


def verdicts(evaluation: Evaluation) -> dict[str, Verdict]:
    """For every metric that all models have and that ranks queries: who leads, and by how much."""
    models = evaluation.table.models
    shared = [name for name in next(iter(models.values())) if all(name in metrics for metrics in models.values())]
    return {metric: _verdict(evaluation, metric) for metric in shared if metric.split("@")[0] in _OF_A_RANK}


@dataclass(frozen=True)
class RankedQueries:
    """The queries of all splits, one below the other, and where each model ranked them."""

    cluster: NDArray[np.int64]  # (N,) who asked; nobody in particular is a cluster of its own
    weight: NDArray[np.float64]  # (N,) 1 / queries of its split
    ranks: dict[str, NDArray[np.int64]]  # by model (N, S), a column a training; NOT_FOUND beyond the largest K


def ranked_queries(ranks: pl.DataFrame, models: list[str]) -> RankedQueries:
    """What ranks.parquet (evaluation_table.ranks_frame) says, by query."""
    filled = ranks.with_columns(pl.col("rank").fill_null(NOT_FOUND)).sort("split", "query", maintain_order=True)
    wide = {model: _by_training(filled.filter(pl.col("model") == model)) for model in models}
    first = wide[models[0]].select("split", "asker", (1.0 / pl.len().over("split")).alias("weight"))
    asker = first["asker"].fill_null(-1).to_numpy()
    return RankedQueries(
        np.where(asker < 0, -1 - np.arange(len(asker)), asker),
        first["weight"].to_numpy(),
        {model: frame.drop("split", "query", "asker").to_numpy() for model, frame in wide.items()},
    )


def _by_training(ranks: pl.DataFrame) -> pl.DataFrame:
    """One row a query of one model: split, query, asker, and the rank by each training."""
    return ranks.pivot("seed", index=["split", "query", "asker"], values="rank", maintain_order=True)


def _verdict(evaluation: Evaluation, metric: str) -> Verdict:
    table = evaluation.table
    order = sorted(table.models, key=lambda model: -table.models[model][metric].mean)  # stable: of equal ones, the first in the table
    best, others = order[0], order[1:]
    return Verdict(metric, best, others[0] if others else None, _differences(evaluation, metric, best, others))


def _differences(evaluation: Evaluation, metric: str, best: str, others: list[str]) -> dict[str, Estimate]:
    compared = evaluation.table.compared
    if best == compared.model and all(metric in compared.minus.get(other, {}) for other in others):
        return {other: compared.minus[other][metric] for other in others}
    if evaluation.ranks is None or not others:
        return {}
    queries = ranked_queries(evaluation.ranks, evaluation.models)
    name, k = metric.split("@")
    values = {model: np.column_stack([_OF_A_RANK[name](rank, int(k)) for rank in queries.ranks[model].T]) for model in (best, *others)}
    differences = [values[best] - values[other] for other in others]
    found = bootstrap_intervals(differences, queries.cluster, weight=queries.weight, resamples=RESAMPLES, seed=SEED)
    return {other: Estimate(mean=mean, low=low, high=high) for other, (mean, low, high) in zip(others, found, strict=True)}
