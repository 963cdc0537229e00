"""The numbers of calibration.py: those under which held-out choices are likeliest, by the softmax over the whole corpus.

Newton steps with the exact curvature over blocks of queries: a fit is some ten passes over queries x items, whatever the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from shortlist.first_choices import AmongNew
from shortlist.id_places import row_blocks

_CELLS_AT_ONCE = 1 << 22
# What is believed before anything is seen, normal, in nats: without held-out choices of some kind nothing runs away
_BELIEVED = np.array([0.0, 1.0, 0.0, 0.0, 0.0])  # log s, a, d, m, m'
_DEVIATION = np.array([1.0, 1.0, 3.0, 5.0, 5.0])
_FLAT = 1e-4  # nats a query and unit: the slope at which the search ends


@dataclass(frozen=True)
class Calibration:
    """The numbers: `scale` s above 0, `popularity` a, `level` d in nats, `match` m and `match_of_never` m' in nats for equal words."""

    scale: float = 1.0
    popularity: float = 1.0
    level: float = 0.0
    match: float = 0.0
    match_of_never: float = 0.0


@dataclass(frozen=True)
class Codes:
    """What queries show, (N, m), and what is said of items, (M, m): their products are <q, c>.

    among_new   what first choices say of (s, m, m'); None = nothing
    """

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    among_new: AmongNew | None = None


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
    start = _BELIEVED[: problem.size]
    found = minimize(problem.value, start, jac=True, hess=problem.hessian, method="trust-exact", options=until).x
    return Calibration(float(np.exp(found[0])), *found[1:].tolist())


class _Likelihood:
    """Minus the mean log-likelihood of N positives and of what was believed before, as a function of (log s, a, d) or (..., m, m')."""

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
        self.size, self.among_new = (3, None) if codes is None else (5, codes.among_new)
        self.terms = torch.from_numpy(np.stack([bias - bias.mean(), never.astype(np.float32)], axis=1))  # (M, 2) b, n
        self._point, self._hessian = np.full(self.size, np.nan), np.eye(self.size)

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
        along = np.array([of_towers, 0.0, 0.0, 1.0, 1.0])
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
        """Minus the log-likelihood, its gradient and its curvature in (s, a, d) or (s, a, d, m, m'), over blocks of queries.

        Under the softmax p of a query, the gradient is E_p[f] - f(positive) and the curvature E_p[f f'] - E_p[f] E_p[f]', where f are what
        the factors stand before: <u, v> / T, b, n, <q, c>, n <q, c>. Those that are of items alone are summed as products with (M, 2).
        """
        total, gradient, curvature = 0.0, np.zeros(self.size), np.zeros((self.size, self.size))
        fixed = self.terms @ torch.from_numpy(factors[1:3]).to(self.terms.dtype)  # (M,)
        products = self.terms[:, [0, 0, 1]] * self.terms[:, [0, 1, 1]]  # (M, 3) bb, bn, nn
        of_pairs = [0, *range(3, self.size)]  # which factors stand before what a query and an item make together
        for rows in row_blocks(len(self.positive), max(1, _CELLS_AT_ONCE // len(self.terms))):
            positive = self.positive[rows]
            pairs = [queries[rows] @ items.T for queries, items in self.sides]  # (b, M) each
            if len(pairs) > 1:
                pairs.append(pairs[1] * self.terms[:, 1])
            chance = fixed + sum(float(factors[place]) * pair for place, pair in zip(of_pairs, pairs, strict=True))
            own = chance.gather(1, positive[:, None])[:, 0]
            self._leave_out(chance, rows.start, positive)
            log_sum = torch.logsumexp(chance, dim=1)
            total += float((log_sum - own).double().sum())
            chance.sub_(log_sum[:, None]).exp_()
            mean = torch.zeros(len(positive), self.size, dtype=torch.float64)
            seen, second = torch.zeros_like(mean), torch.zeros(self.size, self.size, dtype=torch.float64)
            mean[:, 1:3], seen[:, 1:3] = (chance @ self.terms).double(), self.terms[positive].double()
            (bb, bn, nn) = (chance @ products).double().sum(dim=0)
            second[1:3, 1:3] = torch.stack([torch.stack([bb, bn]), torch.stack([bn, nn])])
            for number, (place, pair) in enumerate(zip(of_pairs, pairs, strict=True)):
                weighted = chance * pair
                mean[:, place] = weighted.sum(dim=1, dtype=torch.float64)
                seen[:, place] = pair.gather(1, positive[:, None])[:, 0].double()
                second[place, 1:3] = second[1:3, place] = (weighted @ self.terms).double().sum(dim=0)
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
