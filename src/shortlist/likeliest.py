"""The numbers of calibration.py: those under which held-out choices are likeliest, by the softmax over the whole corpus.

Newton steps with the exact curvature over blocks of queries: a fit is ten to fifteen passes over queries x items, whatever the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from shortlist.features.shown_popularity import shown_popularity
from shortlist.first_choices import AmongNew
from shortlist.id_places import row_blocks

_CELLS_AT_ONCE = 1 << 22
# What is believed before anything is seen, normal, in nats: without held-out choices of some kind nothing runs away
_BELIEVED = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # log s, a, d, m, m', tau
_DEVIATION = np.array([1.0, 1.0, 3.0, 5.0, 5.0, 1.0])
_ROUNDS = 3  # of the search: how popular what is shown is goes by the a and d of the round before, which hardly move after the second
_LEAST_POPULARITY = 0.05  # a below which popularity says nothing, to nobody
_FLAT = 1e-4  # nats a query and unit: the slope at which the search ends


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
    until = {"gtol": _FLAT, "maxiter": 50}
    found = _BELIEVED[: problem.size]
    for _ in range(_ROUNDS if problem.sees_shown else 1):
        problem.look_at_shown(level=found[2] / max(found[1], _LEAST_POPULARITY))
        found = minimize(problem.value, found, jac=True, hess=problem.hessian, method="trust-exact", options=until).x
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
        self.terms = torch.from_numpy(np.stack([bias - bias.mean(), never.astype(np.float32)], axis=1))  # (M, 2) b, n
        self._point, self._hessian = np.full(self.size, np.nan), np.eye(self.size)

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
        self._point = np.full(self.size, np.nan)  # what is known of a point was of another g

    def value(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value and its gradient."""
        scale = float(np.exp(point[0]))
        total, gradient, curvature = self._sums(np.concatenate([[scale], point[1:]]))
        # from s to log s
        by_point = np.ones(self.size)
        by_point[0] = scale
        gradient, curvature = gradient * by_point, curvature * np.outer(by_point, by_point)
        curvature[0, 0] += gradient[0]
        total, gradient, curvature = self._with_belief(point, total, gradient, curvature)
        certainty = _DEVIATION[: self.size] ** -2.0
        away = point - _BELIEVED[: self.size]
        count = len(self.positive)
        self._point, self._hessian = point.copy(), (curvature + np.diag(certainty)) / count
        return (total + float(certainty @ away**2) / 2) / count, (gradient + certainty * away) / count

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

    def hessian(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """The second derivatives; they come with the value, which is asked for first."""
        if not np.array_equal(point, self._point):
            self.value(point)
        return self._hessian

    @torch.no_grad()
    def _sums(self, factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Minus the log-likelihood, its gradient and its curvature in (s, a, d), (s, a, d, m, m') or (..., tau), over blocks of queries.

        Under the softmax p of a query, the gradient is E_p[f] - f(positive) and the curvature E_p[f f'] - E_p[f] E_p[f]', where f are the
        slopes of a logit: <u, v> / T, r b, r n, <q, c>, n <q, c>, g (a b + d n). What is of items alone is summed as products with (M, 2).
        tau bends a and d: d^2 logit / (da dtau) = g b.
        """
        total, gradient, curvature = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        fixed = self.terms @ torch.from_numpy(factors[1:3]).to(self.terms.dtype)  # (M,)
        products = self.terms[:, [0, 0, 1]] * self.terms[:, [0, 1, 1]]  # (M, 3) bb, bn, nn
        of_pairs = [0, 3, 4][: 1 if self.size == 3 else 3]  # which factors stand before what a query and an item make together
        of_items, taste = torch.from_numpy(factors[1:3]), float(factors[5]) if self.sees_shown else 0.0
        for rows in row_blocks(len(self.positive), max(1, _CELLS_AT_ONCE // len(self.terms))):
            positive = self.positive[rows]
            pairs = [queries[rows] @ items.T for queries, items in self.sides]  # (b, M) each
            if len(pairs) > 1:
                pairs.append(pairs[1] * self.terms[:, 1])
            away = self.away_from_usual[rows]
            factor = 1 + taste * away  # (b, 1) r
            chance = factor * fixed + sum(float(factors[place]) * pair for place, pair in zip(of_pairs, pairs, strict=True))
            own = chance.gather(1, positive[:, None])[:, 0]
            self._leave_out(chance, rows.start, positive)
            log_sum = torch.logsumexp(chance, dim=1)
            total += float((log_sum - own).double().sum())
            chance.sub_(log_sum[:, None]).exp_()
            mean = torch.zeros(len(positive), self.size, dtype=torch.float64)
            seen, second = torch.zeros_like(mean), torch.zeros(self.size, self.size, dtype=torch.float64)
            g, r = away.double(), factor.double()
            mean_terms, seen_terms = (chance @ self.terms).double(), self.terms[positive].double()  # (b, 2)
            squares = (chance @ products).double()[:, [0, 1, 1, 2]].reshape(-1, 2, 2)  # (b, 2, 2) E[(b, n) (b, n)']
            mean[:, 1:3], seen[:, 1:3] = r * mean_terms, r * seen_terms
            second[1:3, 1:3] = (r[:, :, None] ** 2 * squares).sum(dim=0)
            if self.sees_shown:
                mean[:, 5:], seen[:, 5:] = g * (mean_terms @ of_items)[:, None], g * (seen_terms @ of_items)[:, None]
                second[5, 1:3] = second[1:3, 5] = (r * g * (squares @ of_items)).sum(dim=0)
                second[5, 5] = (g[:, 0] ** 2 * (squares @ of_items @ of_items)).sum()
                bend = (g * (mean_terms - seen_terms)).sum(dim=0).numpy()
                curvature[5, 1:3] += bend
                curvature[1:3, 5] += bend
            for number, (place, pair) in enumerate(zip(of_pairs, pairs, strict=True)):
                weighted = chance * pair
                mean[:, place] = weighted.sum(dim=1, dtype=torch.float64)
                seen[:, place] = pair.gather(1, positive[:, None])[:, 0].double()
                with_terms = (weighted @ self.terms).double()  # (b, 2)
                second[place, 1:3] = second[1:3, place] = (r * with_terms).sum(dim=0)
                if self.sees_shown:
                    second[place, 5] = second[5, place] = (g[:, 0] * (with_terms @ of_items)).sum()
                for other, again in zip(of_pairs[number:], pairs[number:], strict=True):
                    second[place, other] = second[other, place] = (weighted * again).sum(dtype=torch.float64)
            gradient += (mean - seen).sum(dim=0).numpy()
            curvature += (second - mean.T @ mean).numpy()
        return total, gradient, curvature

    def _leave_out(self, logits: torch.Tensor, start: int, positive: torch.Tensor) -> None:
        """The cells that are no alternatives become -inf; a positive stays."""
        if self.left_out is None:
            return
        for place, own in enumerate(positive.tolist()):
            rows = self.left_out[start + place]
            logits[place, torch.from_numpy(rows[(rows >= 0) & (rows != own)])] = -torch.inf
