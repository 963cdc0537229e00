"""How likely an item is before anything is known of the query: its popularity of late. numpy only.

Catalogues drift: what was chosen yesterday says more about tomorrow than what was chosen a month ago, and how much more differs
from log to log. So the prior is a mixture of shares that forget at different speeds,

    P(i) = w_0 / M + sum_k w_k share_k(i),    share_k(i) ~ sum over choices of i of 2^(-age / half_life_k)

whose weights are those that best foretell the window's own later events from what came before each (expectation maximisation,
as for interpolated language models: Jelinek & Mercer, 1980). Half-lives are fractions of the window, so no unit is assumed.
The uniform part is what the log says of items that it has not met: how often somebody chose one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALF_LIVES = (2.0, 1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64)  # in window lengths
_FORETOLD = 0.25  # the share of the window, its newest, whose events judge the weights
_BLOCKS = 8  # in which they are foretold, each from all that came before it
_ITERATIONS = 100
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """The shares of all items at the end of a window.

    share    (M,) above 0, adds up to 1
    weights  of the parts: "uniform", and each half-life in days
    """

    share: Shares
    weights: dict[str, float]


def fit_prior(item_row: NDArray[np.integer], time: NDArray[np.int64], weight: NDArray[np.floating], corpus_size: int) -> Prior:
    """The prior at the newest of the N events.

    item_row  (N,) and time (N,) microseconds, rising
    weight    (N,) reward of each choice, 0 or above
    Raises    ValueError without a single rewarded event
    """
    if not (weight > 0).any():
        raise ValueError("a prior needs an event with a reward above 0: got none; is the training window empty?")
    length = max(int(time[-1] - time[0]), 1)
    half_lives = [max(part * length, 1.0) for part in HALF_LIVES]
    weights = _mixture(item_row, time, weight, corpus_size, half_lives)
    share = weights @ recency_shares(item_row, time, weight, corpus_size, half_lives, now=int(time[-1]))
    names = ["uniform", *(f"{half_life / 86_400e6:.3g} days" for half_life in half_lives)]
    return Prior(share / share.sum(), dict(zip(names, weights.round(4).tolist(), strict=True)))


def recency_shares(
    item_row: NDArray[np.integer],
    time: NDArray[np.int64],
    weight: NDArray[np.floating],
    corpus_size: int,
    half_lives: list[float],
    *,
    now: int,
) -> Shares:
    """(1 + K, M) the uniform share, and one a half-life (in microseconds); each line adds up to 1."""
    age = (now - time).astype(np.float64)
    shares = [np.full(corpus_size, 1 / corpus_size)]
    for half_life in half_lives:
        faded = weight * np.exp2(-age / half_life)
        counts = np.bincount(item_row, weights=faded, minlength=corpus_size)
        total = counts.sum()
        shares.append(counts / total if total > 0 else shares[0])  # all rewards of 0, or all so old that they vanish
    return np.array(shares)


def _mixture(
    item_row: NDArray[np.integer], time: NDArray[np.int64], weight: NDArray[np.floating], corpus_size: int, half_lives: list[float]
) -> Shares:
    """(1 + K,) the weights under which the newest events were likeliest, block by block from what came before each block."""
    first = int(time[-1]) - int((time[-1] - time[0]) * _FORETOLD)
    edges = np.linspace(first, int(time[-1]) + 1, _BLOCKS + 1).astype(np.int64)
    bounds = np.searchsorted(time, edges)  # events of one instant stay in one block
    foretold, counted = [], []
    for start, stop in itertools.pairwise(bounds):
        if start == 0 or start == stop:
            continue
        past = slice(0, start)
        shares = recency_shares(item_row[past], time[past], weight[past], corpus_size, half_lives, now=int(time[start]))
        foretold.append(shares[:, item_row[start:stop]])
        counted.append(weight[start:stop])
    weights = np.full(1 + len(half_lives), 1 / (1 + len(half_lives)))
    if not foretold:
        return weights
    likelihood, reward = np.concatenate(foretold, axis=1), np.concatenate(counted).astype(np.float64)  # (1 + K, E), (E,)
    if reward.sum() <= 0:
        return weights
    for _ in range(_ITERATIONS):
        parts = weights[:, None] * likelihood
        parts /= parts.sum(axis=0)  # the uniform part is above 0 everywhere
        weights = parts @ reward / reward.sum()
    # EM may take the uniform part to 0 where every foretold event was of a known item; an item not met yet stays possible
    least = 1 / (1 + len(reward))
    weights *= 1 - least
    weights[0] += least
    return weights
