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


def queries_wide(ranks: pl.DataFrame, models: list[str]) -> pl.DataFrame:
    """One row a query: split, query, asker, `weight` (1 / queries of its split), and each model's rank under its name.

    A positive beyond the largest K has the rank NOT_FOUND.
    """
    wide = ranks.with_columns(pl.col("rank").fill_null(NOT_FOUND)).pivot(
        "model", index=["split", "query", "asker"], values="rank", maintain_order=True
    )
    return wide.select("split", "query", "asker", (1.0 / pl.len().over("split")).alias("weight"), *models)


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
    wide = queries_wide(evaluation.ranks, evaluation.models)
    name, k = metric.split("@")
    values = {model: _OF_A_RANK[name](wide[model].to_numpy(), int(k)) for model in (best, *others)}
    asker = wide["asker"].fill_null(-1).to_numpy()
    cluster = np.where(asker < 0, -1 - np.arange(len(asker)), asker)  # nobody in particular stands alone
    found = bootstrap_intervals(
        [values[best] - values[other] for other in others], cluster, weight=wide["weight"].to_numpy(), resamples=RESAMPLES, seed=SEED
    )
    return {other: Estimate(mean=mean, low=low, high=high) for other, (mean, low, high) in zip(others, found, strict=True)}
