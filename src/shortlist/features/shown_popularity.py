"""How popular is what a query shows? Who was shown obscure items chooses obscure ones, and popularity says less to them.

    r(q) = max(0, 1 + tau (g(q) - g_0))      what popularity counts for a query, 1 where it shows nothing
    g(q) = the mean of the published biases of what it shows: the seed counts 1, an item of the history by its age

tau and g_0 are found by calibration.py, of queries that are far from the 0: it keeps one that shows what was never seen from turning
popularity round. Like content codes, this is told beside the towers, of which small logs make none that know it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shortlist.features.content_codes import weights_by_age

Floats = NDArray[np.float32]
TASTE = "query/#popularity"  # the table (1, 2) of tau and g_0 among those of a model, as published biases are: tau / T and T g_0


def shown_popularity(bias: Floats, seed: NDArray[np.integer], history: NDArray[np.integer]) -> Floats:
    """(N,) g of N queries; NaN where one shows nothing.

    bias      (M,) of the items
    seed      (N,) and history (N, L), newest first: rows of `bias`, -1 = none
    """
    total, weight = np.where(seed >= 0, bias[np.maximum(seed, 0)], np.float32(0)), (seed >= 0).astype(np.float32)
    for place, by_age in enumerate(weights_by_age(history.shape[1])):
        there = history[:, place] >= 0
        total[there] += by_age * bias[history[there, place]]
        weight[there] += by_age
    weight[weight == 0] = np.nan
    return np.divide(total, weight, dtype=np.float32)


def popularity_factor(taste: Floats, shown: Floats) -> Floats:
    """(N,) r of queries with these g.

    taste   (2,) tau and g_0
    """
    factor = np.maximum(1 + taste[0] * (shown - taste[1]), np.float32(0))
    return np.where(np.isnan(shown), np.float32(1), factor).astype(np.float32)


def popularity_factor_of_one(taste: Floats, seed: np.float32 | None, history: Floats, weights: Floats) -> np.float32:
    """() r of one query, to the bit as the two above give it, by few operations.

    seed      () bias of the seed, None = none
    history   (n,) biases of the history, newest first, with their (n,) `weights`
    """
    if seed is None and not len(history):
        return np.float32(1)
    parts = np.zeros((2, len(history) + 1), np.float32)
    if seed is not None:
        parts[:, 0] = seed, 1
    np.multiply(weights, history, out=parts[0, 1:])
    parts[1, 1:] = weights
    total, weight = np.add.accumulate(parts, axis=1)[:, -1]  # one after the other, as there
    return max(np.float32(1 + taste[0] * (total / weight - taste[1])), np.float32(0))
