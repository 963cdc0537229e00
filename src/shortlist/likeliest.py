"""The numbers of calibration.py: those under which held-out choices are likeliest, by the softmax over the whole corpus.

Newton steps with the exact curvature over blocks of queries: a fit is six to ten passes over queries x items, whatever the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch.nn import functional

from shortlist.features.shown_popularity import shown_popularity
from shortlist.first_choices import AmongNew
from shortlist.id_places import row_blocks

_CELLS_AT_ONCE = 1 << 22
_CELLS_KEPT = 1 << 26  # whose products are kept from pass to pass: 270 MB, or 540 where items match by words
# What is believed before anything is seen, normal, in nats: without held-out choices of some kind nothing runs away
_BELIEVED = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # log s, a, d, m, m', tau
_DEVIATION = np.array([1.0, 1.0, 3.0, 5.0, 5.0, 1.0])
_ROUNDS = 3  # of the search: how popular what is shown is goes by the a and d of the round before, which hardly move after the second
_SEARCH = {"gtol": 1e-9, "maxiter": 50}  # a slope says nothing of what is left to gain: some directions are flat
_LEAST_POPULARITY = 0.05  # a below which popularity says nothing, to nobody
_TO_GAIN = 1e-7  # nats a query: the search ends where the next step would gain less, a few times what float32 can tell


@dataclass(frozen=True)
class Calibration:
    """The numbers: `scale` s above 0, `popularity` a, `level` d in nats, `match` m and `match_of_never` m' in nats for equal words;
    `taste` tau a nat of published bias, and `usual` g_0 in nats above the mean of the corpus."""

    scale: float = 1.0
    popularity: float = 1.0
    level: float = 0.0
    match: float = 0.0
    match_of_never: float = 0.0
    taste: float = 0.0
    usual: float = 0.0


@dataclass(frozen=True)
class Codes:
    """What queries show, (N, m), and what is said of items, (M, m): their products are <q, c>.

    among_new   what first choices say of (s, m, m'); None = nothing
    shown       rows of the items that queries show: seed (N,), and history (N, L), newest first, -1 = none; None = tau stays 0
    """

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    among_new: AmongNew | None = None
    shown: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None


def likeliest(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    positive: NDArray[np.int64],
    bias: NDArray[np.float32],
    never: NDArray[np.bool_],
    left_out: Sequence[NDArray[np.int64]] | None = None,
    *,
    codes: Codes | None = None,
) -> Calibration:
    """The calibration under which the positives were likeliest among the items.

    queries      (N, D), so that their product with `items` (M, D) is <u, v> / T
    positive     (N,) rows of items
    bias         (M,) b, in nats
    never        (M,) items that were never chosen
    left_out     rows of items that are no alternatives, by query, -1 = none; None = all are
    codes        of the same queries and items; None = they do not match by words
    """
    problem = _Likelihood(queries, items, positive, bias, never, left_out, codes)
    search = {"jac": True, "hess": problem.hessian, "method": "trust-exact", "callback": problem.stop_at_top, "options": _SEARCH}
    found = _BELIEVED[: problem.size]
    for _ in range(_ROUNDS if problem.sees_shown else 1):
        problem.look_at_shown(level=found[2] / max(found[1], _LEAST_POPULARITY))
        found = minimize(problem.value, found, **search).x
    calibration = Calibration(float(np.exp(found[0])), *found[1:5].tolist())
    if not problem.sees_shown:
        return calibration
    if codes is not None and found[1] < _LEAST_POPULARITY:
        return likeliest(queries, items, positive, bias, never, left_out, codes=replace(codes, shown=None))
    # found by b + (d / a) n; published is a b + d n
    return replace(calibration, taste=float(found[5] / found[1]), usual=float(problem.usual * found[1]))


class _Likelihood:
    """Minus the mean log-likelihood of N positives and of what was believed before, by (log s, a, d), (..., m, m') or (..., tau)."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        items: NDArray[np.float32],
        positive: NDArray[np.int64],
        bias: NDArray[np.float32],
        never: NDArray[np.bool_],
        left_out: Sequence[NDArray[np.int64]] | None,
        codes: Codes | None,
    ) -> None:
        """As `likeliest` takes them."""
        self.positive, self.left_out = torch.from_numpy(positive), left_out
        self.sides = [(torch.from_numpy(queries), torch.from_numpy(items))]
        if codes is not None:
            self.sides.append((torch.from_numpy(codes.queries), torch.from_numpy(codes.items)))
        self.among_new, self.shown = (None, None) if codes is None else (codes.among_new, codes.shown)
        self.size = 3 if codes is None else 5 if codes.shown is None else 6
        self.away_from_usual, self.usual = torch.zeros(len(positive), 1), 0.0  # (N, 1) g - g_0, by b + (d / a) n, and g_0
        b, n = torch.from_numpy(bias - bias.mean()), torch.from_numpy(never.astype(np.float32))
        self.terms, self.of_items = torch.stack([b, n], dim=1), torch.stack([torch.ones_like(b), b, n, b * n, b * b])  # (M, 2), (5, M)
        self._blocks = list(row_blocks(len(positive), max(1, _CELLS_AT_ONCE // len(b))))
        self._kept: list[tuple[torch.Tensor, torch.Tensor | None]] = []  # of the first blocks
        self._last: list[tuple[NDArray[np.float64], tuple[float, NDArray[np.float64], NDArray[np.float64]]]] = []

    @property
    def sees_shown(self) -> bool:
        """Is there a tau?"""
        return self.shown is not None

    def look_at_shown(self, *, level: float) -> None:
        """Nothing comes back: g and g_0 are those of a `level` d / a."""
        if self.shown is None:
            return
        bias = self.terms[:, 0].numpy() + np.float32(level) * self.terms[:, 1].numpy()
        shown = shown_popularity(bias - bias.mean(), *self.shown)
        known = ~np.isnan(shown)
        self.usual = float(shown[known].mean()) if known.any() else 0.0
        self.away_from_usual = torch.from_numpy(np.where(known, shown - np.float32(self.usual), np.float32(0)))[:, None]
        self._last = []  # what is known of a point was of another g

    def value(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value and its gradient."""
        return self._at(point)[:2]

    def hessian(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """The second derivatives."""
        return self._at(point)[2]

    def stop_at_top(self, point: NDArray[np.float64]) -> None:
        """Ends the search, by StopIteration, where a Newton step would gain next to nothing."""
        _, gradient, curvature = self._at(point)
        with suppress(np.linalg.LinAlgError):  # not convex: go on
            step = np.linalg.solve(np.linalg.cholesky(curvature), gradient)
            if step @ step / 2 < _TO_GAIN:
                raise StopIteration

    def _at(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Value, gradient and curvature, kept for the two points that a search goes between: each is asked for several times."""
        for known, found in self._last:
            if np.array_equal(known, point):
                return found
        scale = float(np.exp(point[0]))
        total, gradient, curvature = self._sums(np.concatenate([[scale], point[1:]]))
        # from s to log s
        by_point = np.ones(self.size)
        by_point[0] = scale
        gradient, curvature = gradient * by_point, curvature * np.outer(by_point, by_point)
        curvature[0, 0] += gradient[0]
        total, gradient, curvature = self._with_belief(point, total, gradient, curvature)
        certainty = _DEVIATION[: self.size] ** -2.0
        away, count = point - _BELIEVED[: self.size], len(self.positive)
        made = (
            (total + float(certainty @ away**2) / 2) / count,
            (gradient + certainty * away) / count,
            (curvature + np.diag(certainty)) / count,
        )
        self._last = [(point.copy(), made), *self._last[:1]]
        return made

    def _with_belief(
        self, point: NDArray[np.float64], total: float, gradient: NDArray[np.float64], curvature: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """The same with what is believed of m + m' + s beta, beta = `among_new.beside`."""
        if self.among_new is None:
            return total, gradient, curvature
        of_towers = float(np.exp(point[0])) * self.among_new.beside
        along = np.zeros(self.size)
        along[[0, 3, 4]] = of_towers, 1.0, 1.0
        away, certainty = of_towers + point[3] + point[4] - self.among_new.total, self.among_new.deviation**-2
        bent = np.outer(along, along)
        bent[0, 0] += away * of_towers
        return total + certainty * away**2 / 2, gradient + certainty * away * along, curvature + certainty * bent

    @torch.no_grad()
    def _sums(self, factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Minus the log-likelihood, its gradient and its curvature in (s, a, d), (s, a, d, m, m') or (..., tau), over blocks of queries.

        Under the softmax p of a query, the gradient is E_p[f] - f(positive) and the curvature E_p[f f'] - E_p[f] E_p[f]', where f are the
        slopes of a logit: x = <u, v> / T, r b, r n, y = <q, c>, n y, g (a b + d n). They are J h, of h = (x, b, n, y, n y) and what a
        query is alone. tau bends a and d: d^2 logit / (da dtau) = g b.
        """
        total, gradient, curvature = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        popularity = torch.from_numpy(factors[1:3])
        prior = self.terms @ popularity.to(self.terms.dtype)  # (M,)
        taste = float(factors[5]) if self.sees_shown else 0.0
        for number, rows in enumerate(self._blocks):
            positive, away = self.positive[rows], self.away_from_usual[rows]  # (b,), (b, 1) g
            towers, words = self._products(number, rows)
            factor = 1 + taste * away  # (b, 1) r
            chance = (float(factors[0]) * towers).addr_(factor[:, 0], prior)
            if words is not None:
                chance.addcmul_(words, float(factors[3]) + float(factors[4]) * self.terms[:, 1])
            own = chance.gather(1, positive[:, None])[:, 0]
            self._leave_out(chance, rows.start, positive)
            top = chance.amax(dim=1)
            mass = chance.sub_(top[:, None]).exp_().sum(dim=1)  # (b,) what the chances add up to, until they are divided by it
            total += float((top + mass.log() - own).double().sum())

            seen = [products.gather(1, positive[:, None]) for products in (towers, words) if products is not None]
            seen[1:1] = [self.terms[positive]]
            if words is not None:
                seen.append(seen[2] * seen[1][:, 1:])
            mean, second = _moments(chance, towers, words, self.of_items, mass=mass.double())
            off, spread = mean - torch.cat(seen, dim=1).double(), second - mean[:, :, None] * mean[:, None, :]
            slopes = self._slopes(away.double(), factor.double(), popularity)  # (b, size, h) J
            gradient += torch.einsum("bsh,bh->s", slopes, off).numpy()
            curvature += torch.einsum("bsh,bhi,bti->st", slopes, spread, slopes).numpy()
            if self.sees_shown:
                bend = (away.double() * off[:, 1:3]).sum(dim=0).numpy()
                curvature[5, 1:3] += bend
                curvature[1:3, 5] += bend
        return total, gradient, curvature

    def _slopes(self, away: torch.Tensor, factor: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
        """(b, size, h) what a logit of each query gains with each number, a unit of (x, b, n) or (x, b, n, y, n y)."""
        slopes = torch.zeros(len(away), self.size, min(self.size, 5), dtype=torch.float64)
        slopes[:, range(slopes.shape[2]), range(slopes.shape[2])] = 1.0
        slopes[:, 1, 1] = slopes[:, 2, 2] = factor[:, 0]
        if self.sees_shown:
            slopes[:, 5, 1:3] = away * popularity
        return slopes

    def _products(self, number: int, rows: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(b, M) x and y of a block of queries, y None where nothing matches by words; kept for the next pass while there is room."""
        if number < len(self._kept):
            return self._kept[number]
        made = [queries[rows] @ items.T for queries, items in self.sides]
        products = (made[0], made[1] if len(made) > 1 else None)
        if rows.stop * len(self.terms) <= _CELLS_KEPT:
            self._kept.append(products)
        return products

    def _leave_out(self, logits: torch.Tensor, start: int, positive: torch.Tensor) -> None:
        """The cells that are no alternatives become -inf; a positive stays."""
        if self.left_out is None:
            return
        for place, own in enumerate(positive.tolist()):
            rows = self.left_out[start + place]
            logits[place, torch.from_numpy(rows[(rows >= 0) & (rows != own)])] = -torch.inf


def _moments(
    chance: torch.Tensor, towers: torch.Tensor, words: torch.Tensor | None, of_items: torch.Tensor, *, mass: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(E[h], E[h h']), (b, h) and (b, h, h) float64, of h = (x, b, n) or (x, b, n, y, n y) under p.

    chance          (b, M) p times `mass` (b,); used up
    towers, words   (b, M) x and y
    of_items        (5, M) 1, b, n, b n, b b

    A pass over cells for each of p, p x and p y, summed by what is of items alone, then for p x x, p x y and p y y: n n = n.
    """
    alone, of_towers = _summed(chance, of_items), chance * towers
    by_towers = _summed(of_towers, of_items)
    mean = torch.stack([by_towers[:, 0], alone[:, 1], alone[:, 2]], dim=1)
    second = torch.empty(len(chance), 3, 3, dtype=torch.float64)
    second[:, 0, 0] = torch.linalg.vecdot(of_towers, towers, dim=1)
    second[:, 0, 1:] = second[:, 1:, 0] = by_towers[:, 1:3]
    second[:, 1:, 1:] = alone[:, [4, 3, 3, 2]].reshape(-1, 2, 2)
    if words is None:
        return mean / mass[:, None], second / mass[:, None, None]
    of_words = chance.mul_(words)
    by_words = _summed(of_words, of_items)
    both, twice = _summed(of_towers.mul_(words), of_items), _summed(of_words.mul_(words), of_items)
    with_words = torch.stack([both[:, [0, 2]], by_words[:, [1, 3]], by_words[:, [2, 2]]], dim=1)  # (b, 3, 2) E[(x, b, n) (y, n y)']
    among_words = twice[:, [0, 2, 2, 2]].reshape(-1, 2, 2)
    upper, lower = torch.cat([second, with_words], dim=2), torch.cat([with_words.mT, among_words], dim=2)
    mean, second = torch.cat([mean, by_words[:, [0, 2]]], dim=1), torch.cat([upper, lower], dim=1)
    return mean / mass[:, None], second / mass[:, None, None]


def _summed(cells: torch.Tensor, of_items: torch.Tensor) -> torch.Tensor:
    """(b, 5) float64: the sums of `cells` (b, M) by each row of `of_items` (5, M), which takes three times as long the other way round."""
    return functional.linear(cells, of_items).double()
