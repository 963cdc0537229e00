"""How sure is a mean? Percentile bootstrap over users, and differences on identical queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shortlist.errors import ShapeError
from shortlist.metrics.checks import Rows, Values, checked_cluster, checked_values, checked_weight


class Interval(NamedTuple):
    """A mean and the bounds that a resampled mean keeps with the asked probability."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Values, cluster: Rows | None, *, weight: Values | None = None, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """(mean, low, high): the weighted mean of `values` and its percentile bootstrap interval over whole clusters.

    values   (N,) one value a query; the rest as `bootstrap_intervals` has it
    """
    (interval,) = bootstrap_intervals([values], cluster, weight=weight, resamples=resamples, seed=seed, level=level)
    return interval


def bootstrap_intervals(
    columns: Sequence[Values], cluster: Rows | None, *, weight: Values | None = None, resamples: int, seed: int, level: float = 0.95
) -> list[Interval]:
    """(mean, low, high) of each column: its weighted mean and percentile bootstrap interval over whole clusters.

    columns  one value a query (N,) each; all of them meet the same draws
    cluster  (N,) the user of each query, drawn with all its queries; None = every query stands alone
    weight   (N,) what each query counts, above 0; None = 1
    Each resample draws as many clusters as there are, with replacement; its mean is sum of weight x value / sum of weight.
    Raises   ShapeError where lengths differ or are 0; ValueError for NaN, and settings out of range
    """
    values = np.column_stack([checked_values(column, "values") for column in columns])  # (N, V)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1: got {resamples}; 1000 is usual")
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1: got {level}; 0.95 is usual")
    counted = np.ones(len(values)) if weight is None else checked_weight(weight, len(values))
    sums = np.column_stack([values * counted[:, None], counted])  # (N, V + 1): the last column is what the others are divided by
    means = sums[:, :-1].sum(axis=0) / counted.sum()
    if cluster is not None:
        sums = _sums_of_clusters(sums, checked_cluster(cluster, len(values), "cluster"))
    random = np.random.default_rng(seed)
    resampled = np.empty((resamples, sums.shape[1] - 1))
    for resample in range(resamples):
        times = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
        drawn = times.astype(np.float64) @ sums
        resampled[resample] = drawn[:-1] / drawn[-1]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(*map(float, bounds)) for bounds in zip(means, low, high, strict=True)]


def paired_interval(
    values_a: Values,
    values_b: Values,
    cluster: Rows | None,
    *,
    weight: Values | None = None,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """(mean, low, high) of a - b on identical queries: `bootstrap_interval` of the differences."""
    a, b = checked_values(values_a, "values_a"), checked_values(values_b, "values_b")
    if len(a) != len(b):
        raise ShapeError(f"paired values must come from identical queries: got {len(a)} and {len(b)}; evaluate both on one set")
    return bootstrap_interval(a - b, cluster, weight=weight, resamples=resamples, seed=seed, level=level)


def _sums_of_clusters(values: Values, cluster: Rows) -> Values:
    """(G, V) the sums of the values (N, V) of each cluster, by ascending cluster."""
    _, number = np.unique(cluster, return_inverse=True)
    return np.column_stack([np.bincount(number, weights=column) for column in values.T])
