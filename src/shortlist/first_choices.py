"""First choices of a window: what words in common count where nothing else is known of an item.

The first time that an item is chosen, it is one that nobody had chosen. Which of all such items it is says what a match of words counts
among them, and a window has many first choices, where what is held out of it has few choices of new items (a month of MovieTweetings:
some 1,350 in its later half, and 40 to 54). Over those, with items j that had not been chosen by then and that a list may hold,

    P(i) = exp(mu <q, c(i)>) / sum_j exp(mu <q, c(j)>)

gives mu, what a match counts by words alone. Towers cannot be asked here: they were trained on these very choices. But what is left
out of a regression is said by what goes along with it: if <u, v> / T moves by beta for one of <q, c>, as held-out queries show without a
look at what they chose, then beside towers with a say of s

    m + m' + s beta = mu,    give or take its own error and _RULE_DEVIATION

This is believed before the held-out choices are looked at (likeliest.py). Popularity is no part of it: it must say the same of all items
that nobody chose. The queries of beta are all held-out ones, those of mu the ones that chose something new. Without times no choice is
the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from shortlist.dataset import Examples
from shortlist.features.content_codes import shown_codes
from shortlist.id_places import row_blocks
from shortlist.sections import EvaluateSettings
from shortlist.unlisted import is_tested, unlisted

Floats = NDArray[np.float32]
Unlisted = Sequence[NDArray[np.int64]] | None
_SKIPPED = 0.5  # of a window: an item that is chosen there for the first time was often chosen shortly before the window
_MOST_CELLS, _FEWEST_CHOICES = 10_000_000, 200  # of first choices by items, or so many choices where there are more items
_CELLS_AT_ONCE, _FEWEST_AT_ONCE = 1 << 20, 16  # or so many queries: a pass over all codes is dear
_DEVIATION = 5.0  # of mu, normal around 0, while it is searched for; as of m and m'
_RULE_DEVIATION = 0.7  # how far off what is left out may be; on development days anything from .3 to 1 did as well
_FLAT = 1e-4  # nats a choice and unit: the slope at which the search ends


@dataclass(frozen=True)
class AmongNew:
    """What is believed of items that nobody chose: m + m' + s `beside` is `total`, normal with `deviation`, in nats for equal words."""

    total: float
    beside: float
    deviation: float


@dataclass(frozen=True)
class FirstChoices:
    """F choices that were the first of an item.

    Item j is an alternative of choice f where closed[j] >= open[f], but for those that no list of f may hold.

    shown      (F, m) codes of what the queries show, of length 1 each, or 0
    positive   (F,) rows of the items chosen
    open       (F,) place of the choice in the log
    closed     (M,) place of the item's first row in the log, rewarded or not; the log's length where it has none
    unlisted   rows that no list may hold, by choice, -1 = none; None = lists may hold all
    """

    shown: Floats
    positive: NDArray[np.int64]
    open: NDArray[np.int64]
    closed: NDArray[np.int64]
    unlisted: Unlisted


def first_choices(fit: Examples, codes: Floats, history_last: int, settings: EvaluateSettings) -> FirstChoices | None:
    """Those of the later half of the learned examples `fit`, evenly spread where they are many; None where there is none.

    codes          (M, m) of all items
    history_last   so many items of a history are looked at
    settings       what lists leave out, and which choices are judged
    """
    if not fit.time.any():
        return None
    closed = np.full(len(codes), len(fit), np.int64)
    np.minimum.at(closed, fit.item_row, np.arange(len(fit)))
    places = np.sort(closed[(closed >= _SKIPPED * len(fit)) & (closed < len(fit))])
    places = places[(fit.weight[places] > 0) & is_tested(fit.take(places), settings)]
    if not len(places):
        return None
    count = min(len(places), max(_FEWEST_CHOICES, _MOST_CELLS // len(codes)))
    places = places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
    queries = fit.queries.take(places)
    shown = shown_codes(codes, queries.seed_row, queries.newest_first(history_last))
    return FirstChoices(shown, fit.item_row[places].astype(np.int64), places, closed, unlisted(queries, settings))


def words_alone(choices: FirstChoices, codes: Floats) -> tuple[float, float] | None:
    """(mu, its standard error) by likelihood, as a normal; None where choices say less than _DEVIATION does.

    codes   (M, m) of all items
    """
    own = np.einsum("fm,fm->f", choices.shown, codes[choices.positive]).astype(np.float64)
    count, certainty = len(own), _DEVIATION**-2
    curvature_at: dict[float, float] = {}

    def minus_log_posterior(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value a choice and its slope; the curvature, which comes with them, is kept."""
        strength = float(at[0])
        value, slope, curvature = certainty * strength**2 / 2, certainty * strength, certainty
        for rows in _blocks(count, len(codes)):
            products = choices.shown[rows] @ codes.T
            is_open = choices.closed >= choices.open[rows, None]
            chance, log_sum = _softmax(strength, products, is_open, choices.unlisted, rows)  # an item chosen is never unlisted
            mean = np.einsum("fm,fm->f", chance, products)
            value += float((log_sum - strength * own[rows]).sum())
            slope += float((mean - own[rows]).sum())
            curvature += float((np.einsum("fm,fm,fm->f", chance, products, products) - mean**2).sum())
        curvature_at[strength] = curvature
        return value / count, np.array([slope / count])

    def hessian(at: NDArray[np.float64]) -> NDArray[np.float64]:
        if float(at[0]) not in curvature_at:
            minus_log_posterior(at)
        return np.array([[curvature_at[float(at[0])] / count]])

    found = minimize(minus_log_posterior, [0.0], jac=True, hess=hessian, method="trust-exact", options={"gtol": _FLAT}).x
    curvature = count * float(hessian(found)[0, 0])
    of_choices = curvature - certainty  # what held the search is no evidence
    if of_choices < certainty:
        return None
    return float(found[0]) * curvature / of_choices, of_choices**-0.5


def beside_words(
    mu: float, shown: Floats, codes: Floats, *, queries: Floats, items: Floats, new: NDArray[np.bool_], left_out: Unlisted = None
) -> float:
    """beta: by how much <u, v> / T moves for one of <q, c>: by least squares within each query, over new items as words alone expect them.

    shown      (N, m) codes of what held-out queries show, and `codes` (M, m) of all items
    queries    (N, D) and items (M, D), whose product is <u, v> / T
    new        (M,) items that nobody chose; one at least
    left_out   rows that no list may hold, by query, -1 = none
    """
    both, words = 0.0, 0.0
    for rows in _blocks(len(shown), len(codes)):
        products = shown[rows] @ codes.T
        chance, _ = _softmax(mu, products, np.broadcast_to(new, products.shape), left_out, rows)
        away = products - np.einsum("nm,nm->n", chance, products)[:, None]
        both += float(np.einsum("nm,nm,nm->", chance, away, queries[rows] @ items.T))
        words += float(np.einsum("nm,nm,nm->", chance, away, away))
    return both / words if words > 0 else 0.0


def believed(mu: float, error: float, beta: float) -> AmongNew:
    """What calibration is told."""
    return AmongNew(mu, beta, float(np.hypot(error, _RULE_DEVIATION)))


def _softmax(
    strength: float, products: Floats, is_open: NDArray[np.bool_], left_out: Unlisted, rows: slice
) -> tuple[Floats, NDArray[np.float32]]:
    """((n, M) the softmax of each row over its alternatives, (n,) the log of its sum; 0 and -inf where a row has none)."""
    logits = np.where(is_open, np.float32(strength) * products, np.float32(-np.inf))
    for place, out in enumerate([] if left_out is None else left_out[rows]):
        logits[place, out[out >= 0]] = -np.inf
    log_sum: NDArray[np.float32] = logsumexp(logits, axis=1)
    return np.exp(logits - np.where(np.isfinite(log_sum), log_sum, 0)[:, None]), log_sum


def _blocks(queries: int, items: int) -> list[slice]:
    return list(row_blocks(queries, max(_FEWEST_AT_ONCE, _CELLS_AT_ONCE // items)))
