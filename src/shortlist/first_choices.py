"""First choices of a window: what words in common count where nothing else is known of an item.

The first time that an item is chosen, it is one that nobody had chosen. Which of all such items it is says what a match of words counts
among them, and a window has many first choices, where what is held out of it has few choices of new items (a month of MovieTweetings:
2,700, and 46). Over the first choices of a window's later half, with items j that had not been chosen by then,

    P(i) = exp(mu <q, c(i)>) / sum_j exp(mu <q, c(j)>)

gives mu, what a match counts by words alone. Towers cannot be asked here: they were trained on these very choices. But what is left
out of a regression is said by what goes along with it: if <u, v> / T moves by beta for one of <q, c>, as the choices held out show
without a look at what was chosen, then beside towers with a say of s

    m + m' + s beta = mu,    give or take its own error and _RULE

This is believed of m and m' before the held-out choices are looked at (likeliest.py). Without times no choice is the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from shortlist.dataset import Examples
from shortlist.features.content_codes import shown_codes
from shortlist.id_places import row_blocks

Floats = NDArray[np.float32]
_FIRST_HALF = 0.5  # of a window: an item that is chosen there for the first time was often chosen shortly before the window
_MOST_CELLS, _FEWEST_CHOICES = 10_000_000, 200  # of first choices by items, or so many choices where there are more items
_CELLS_AT_ONCE = 1 << 20
_DEVIATION = 5.0  # of mu before a choice is looked at, normal around 0, as of m and m'
_RULE = 0.7  # how far off what is left out may be; on development days anything from .3 to 1 did as well
_FLAT = 1e-4  # nats a choice and unit: the slope at which the search ends


@dataclass(frozen=True)
class AmongNew:
    """What is believed of items that nobody chose: m + m' + s `beside` is `total`, normal with `deviation`, in nats for equal words."""

    total: float
    beside: float
    deviation: float


@dataclass(frozen=True)
class FirstChoices:
    """What F queries show, whose choices were the first of an item.

    shown      (F, m) codes, of length 1 each, or 0
    positive   (F,) rows of the items chosen
    open       (F,) and `closed` (M,): of the M items, those are alternatives of a choice whose `closed` is not below its `open`
    """

    shown: Floats
    positive: NDArray[np.int64]
    open: NDArray[np.int64]
    closed: NDArray[np.int64]


def first_choices(fit: Examples, codes: Floats, history_last: int) -> FirstChoices | None:
    """Those of the later half of the learned examples `fit`, evenly spread where they are many; None where there is none.

    codes          (M, m) of all items
    history_last   so many items of a history are looked at
    """
    if not fit.time.any():
        return None
    first = np.full(len(codes), len(fit), np.int64)
    np.minimum.at(first, fit.item_row, np.arange(len(fit)))
    places = np.sort(first[(first >= _FIRST_HALF * len(fit)) & (first < len(fit))])
    places = places[fit.weight[places] > 0]
    if not len(places):
        return None
    count = min(len(places), max(_FEWEST_CHOICES, _MOST_CELLS // len(codes)))
    places = places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
    queries = fit.queries.take(places)
    shown = shown_codes(codes, queries.seed_row, queries.newest_first(history_last))
    return FirstChoices(shown, fit.item_row[places].astype(np.int64), places, first)


def words_alone(choices: FirstChoices, codes: Floats) -> tuple[float, float]:
    """(mu, its standard error), by likelihood and a belief of normal (0, _DEVIATION)."""
    own = np.einsum("fm,fm->f", choices.shown, codes[choices.positive]).astype(np.float64)
    count, certainty = len(own), _DEVIATION**-2
    curvature_at: dict[float, float] = {}

    def minus_log_likelihood(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value a choice and its slope; the curvature is kept."""
        strength = float(at[0])
        value, slope, curvature = certainty * strength**2 / 2, certainty * strength, certainty
        for rows in row_blocks(count, max(1, _CELLS_AT_ONCE // len(codes))):
            products = choices.shown[rows] @ codes.T
            is_open = choices.closed >= choices.open[rows, None]
            chance, log_sum = _softmax(np.where(is_open, np.float32(strength) * products, np.float32(-np.inf)))
            mean = np.einsum("fm,fm->f", chance, products)
            value += float((log_sum - strength * own[rows]).sum())
            slope += float((mean - own[rows]).sum())
            curvature += float((np.einsum("fm,fm,fm->f", chance, products, products) - mean**2).sum())
        curvature_at[strength] = curvature
        return value / count, np.array([slope / count])

    def hessian(at: NDArray[np.float64]) -> NDArray[np.float64]:
        if float(at[0]) not in curvature_at:
            minus_log_likelihood(at)
        return np.array([[curvature_at[float(at[0])] / count]])

    found = minimize(minus_log_likelihood, [0.0], jac=True, hess=hessian, method="trust-exact", options={"gtol": _FLAT}).x
    hessian(found)
    return float(found[0]), curvature_at[float(found[0])] ** -0.5


def among_new(mu: float, error: float, asked: Floats, codes: Floats, queries: Floats, items: Floats) -> AmongNew:
    """What mu, with its standard error, says beside towers.

    asked     (N, m) what held-out queries show
    codes     (M', m) of the items that nobody chose
    queries   (N, D) and items (M', D), whose product is <u, v> / T
    """
    return AmongNew(mu, _moved_along(mu, asked, codes, queries, items), float(np.hypot(error, _RULE)))


def _moved_along(strength: float, asked: Floats, codes: Floats, queries: Floats, items: Floats) -> float:
    """beta: the slope of <u, v> / T over <q, c>, by least squares within each query among the new items as words alone expect them."""
    both, words = 0.0, 0.0
    for rows in row_blocks(len(asked), max(1, _CELLS_AT_ONCE // len(codes))):
        products, towers = asked[rows] @ codes.T, queries[rows] @ items.T
        chance, _ = _softmax(strength * products)
        away = products - (chance * products).sum(axis=1, keepdims=True)
        both += float((chance * away * towers).sum())
        words += float((chance * away * away).sum())
    return both / words if words > 0 else 0.0


def _softmax(logits: Floats) -> tuple[Floats, Floats]:
    """((N, M) the softmax of each row, (N,) the log of its sum)."""
    highest = logits.max(axis=1, keepdims=True)
    chance = np.exp(logits - highest)
    total = chance.sum(axis=1, keepdims=True)
    return chance / total, (np.log(total) + highest)[:, 0]
