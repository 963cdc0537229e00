"""How sure is a mean over users and trainings at once? A bootstrap that draws both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shortlist.errors import ShapeError
from shortlist.metrics.checks import Rows, Values, checked_cluster, checked_values, checked_weight
from shortlist.metrics.intervals import Interval


def crossed_intervals(
    columns: Sequence[Values], cluster: Rows, *, weight: Values | None = None, resamples: int, seed: int, level: float = 0.95
) -> list[Interval]:
    """(mean, low, high) of each column: trainings weigh alike, queries by `weight`; percentile bootstrap over trainings x users.

    columns  each (S, N): a row a training, a column a query; all of them meet the same draws
    cluster  (N,) the user of each query, drawn with all its queries
    weight   (N,) what each query counts, above 0; None = 1
    Each resample draws S trainings and, independently, as many users as there are, both with replacement, and takes the mean of
    the drawn rows in the drawn columns. With S = 1 it is `intervals.bootstrap_intervals`, draw for draw: then training noise is
    not in it. With few trainings it is a little narrow: the variance over S draws of S values is (S - 1) / S of the unbiased one.
    Raises   ShapeError where shapes differ or are 0; ValueError for what is not finite
    Source   Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007)
    """
    trainings, count = _checked_shape(columns)
    values = np.stack([checked_values(column.ravel(), "values").reshape(column.shape) for column in columns])  # (V, S, N)
    counted = np.ones(count) if weight is None else checked_weight(weight, count)
    means = (values @ counted).mean(axis=1) / counted.sum()  # (V,)
    _, number = np.unique(checked_cluster(cluster, count, "cluster"), return_inverse=True)
    sums = np.stack([np.bincount(number, weights=line) for line in (values * counted).reshape(-1, count)], axis=1)  # (G, V * S)
    weights = np.bincount(number, weights=counted)  # (G,)
    users_random, trainings_random = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    resampled = np.empty((resamples, len(columns)))
    for resample in range(resamples):
        users = np.bincount(users_random.integers(len(sums), size=len(sums)), minlength=len(sums)).astype(np.float64)
        drawn = np.bincount(trainings_random.integers(trainings, size=trainings), minlength=trainings) / trainings
        resampled[resample] = (users @ sums).reshape(-1, trainings) @ drawn / (users @ weights)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(*map(float, bounds)) for bounds in zip(means, low, high, strict=True)]


def _checked_shape(columns: Sequence[Values]) -> tuple[int, int]:
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ShapeError(f"columns must be (S, N), all of one shape: got {sorted(shapes)}; test every training on the same queries")
    trainings, count = next(iter(shapes))
    return trainings, count
