"""How sure is a mean? Percentile bootstrap over users, and over trainings; differences on identical queries."""

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

    columns  one value a query (N,) each, or one a query and training (N, S); all of them meet the same draws
    cluster  (N,) the user of each query, drawn with all its queries; None = every query stands alone
    weight   (N,) what each query counts, above 0; None = 1
    Each resample draws as many clusters as there are, with replacement; its mean is sum of weight x value / sum of weight. Where
    columns are of S > 1 trainings, it draws S of these too, and takes the mean over them. (With few trainings such an interval is
    somewhat narrow: their resampled variance is (S - 1) / S of what it should be.)
    Raises   ShapeError where lengths differ or are 0; ValueError for NaN, and settings out of range
    """
    trainings = _trainings_of(columns)
    width = [1 if column.ndim == 1 else column.shape[1] for column in columns]
    flat = [part for column in columns for part in (column.T if column.ndim == 2 else column[None])]
    values = np.column_stack([checked_values(part, "values") for part in flat])  # (N, V), columns of a model side by side
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1: got {resamples}; 1000 is usual")
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1: got {level}; 0.95 is usual")
    counted = np.ones(len(values)) if weight is None else checked_weight(weight, len(values))
    sums = np.column_stack([values * counted[:, None], counted])  # (N, V + 1): the last column is what the others are divided by
    means = _over_trainings(sums[:, :-1].sum(axis=0) / counted.sum(), width, np.arange(trainings))
    if cluster is not None:
        sums = _sums_of_clusters(sums, checked_cluster(cluster, len(values), "cluster"))
    random = np.random.default_rng(seed)
    resampled = np.empty((resamples, len(columns)))
    for resample in range(resamples):
        times = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
        drawn = times.astype(np.float64) @ sums
        trained = random.integers(trainings, size=trainings) if trainings > 1 else np.zeros(1, np.int64)
        resampled[resample] = _over_trainings(drawn[:-1] / drawn[-1], width, trained)
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


def _trainings_of(columns: Sequence[Values]) -> int:
    """S, the same for all columns of more than one; 1 where there are none such."""
    found = {column.shape[1] for column in columns if column.ndim == 2} - {1}
    if len(found) > 1:
        raise ShapeError(f"columns of several trainings must all be of as many: got {sorted(found)}; train every model with the same seeds")
    return found.pop() if found else 1


def _over_trainings(means: Values, width: Sequence[int], trained: Rows) -> Values:
    """(V,) one mean a column: of those with a width of S > 1 in the flat `means`, over the `trained` (S,) ones."""
    ends = np.cumsum(width)
    parts = [means[end - count : end] for end, count in zip(ends, width, strict=True)]
    return np.array([part[trained].mean() if len(part) > 1 else part[0] for part in parts])


def _sums_of_clusters(values: Values, cluster: Rows) -> Values:
    """(G, V) the sums of the values (N, V) of each cluster, by ascending cluster."""
    _, number = np.unique(cluster, return_inverse=True)
    return np.column_stack([np.bincount(number, weights=column) for column in values.T])
