"""What every metric asks of its inputs: cut-offs, values and clusters that make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import ShapeError

Rows = NDArray[np.int64]
Values = NDArray[np.float64]


def check_k(k: int) -> None:
    """Nothing comes back. Raises ValueError for a cut-off below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1: got {k}; choose a positive cut-off")


def refuse_first(breaks: NDArray[np.bool_] | np.bool_, rule: str, advice: str = "pass the index's result unchanged") -> None:
    """Nothing comes back. Raises ValueError naming the first query that `breaks` (N,) the rule, which says what was got as well."""
    if breaks.any():
        raise ValueError(f"{rule} in query {int(breaks.argmax())} (of {int(breaks.sum())} such); {advice}")


def checked_values(values: NDArray[Any], name: str) -> Values:
    """The values (N,) as float64. Raises ShapeError where there are none; ValueError naming the first that is not finite."""
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"{name} must be (N,) with one value or more: got shape {values.shape}; is the slice empty?")
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{name} must be finite: got {values[bad[0]]} at {bad[0]} ({len(bad)} such); leave out what was not computed")
    return values


def checked_weight(weight: Values, count: int) -> Values:
    """The weights (count,) as float64. Raises ShapeError for another shape; ValueError unless all are above 0 and finite."""
    if weight.shape != (count,):
        raise ShapeError(f"weight must have one entry a value: got shape {weight.shape} for {count} values; pass the same queries")
    if not np.all((weight > 0) & np.isfinite(weight)):
        raise ValueError(f"weights must be above 0 and finite: got {weight.min()}; leave out what should not count")
    return weight.astype(np.float64)


def checked_cluster(cluster: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    """The cluster numbers (count,) themselves. Raises ShapeError for another shape, or for what are no integers."""
    if cluster.shape != (count,):
        raise ShapeError(f"{name} must have one entry a value: got shape {cluster.shape} for {count} values; pass the same queries")
    if cluster.dtype.kind not in "iu":
        raise ShapeError(f"{name} must be integers: got {cluster.dtype}; number the users first")
    return cluster
