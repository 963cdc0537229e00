"""The last act of training: three numbers that the choices held out are asked for, because training cannot know them.

    logits = s <u, v> / T + a b(i) + d [i was never chosen]

s   how much the towers say: towers that learned little from a small log get a small say, those that learn on get a louder one
a   how much popularity says (the bias b; with `model.popularity` = "recent" the log share of late, prior.py)
d   the level of items that nobody chose. They are never a positive, so that as negatives all of them, and content like theirs,
    would learn nothing but "not chosen"; where they are none (negatives.index_from = "chosen"), nothing is learned of their
    level. But held-out choices fall on items that had not been chosen before, and how often they do says it.

Where items that nobody chose were negatives (a small log, by default), their level was learned with the rest, and s alone is fitted.
The numbers are those under which the held-out choices are likeliest, by the softmax over the whole corpus; each choice that is
rewarded counts once, as in evaluation. They end in the temperature, the biases and the bias of the unknown ids: search stays one
inner product. Of an item that only held-out choices chose no more is learned than of one that nobody chose, and it is published as
such; but where the bias is recent popularity, it has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from shortlist.config import EvaluateSettings, ModelSettings
from shortlist.dataset import Dataset
from shortlist.encode import encode_corpus, encode_queries
from shortlist.features.arrays import Ids
from shortlist.held_out import HeldOut, id_vocabulary, is_calibrated, unknown_row
from shortlist.learner import Learner
from shortlist.prior import Prior, fit_prior
from shortlist.towers import BIAS, extra_tables
from shortlist.unlisted import is_tested, unlisted

_MOST_CELLS = 100_000_000  # of held-out queries by items that are scored...
_FEWEST_QUERIES = 200  # ...or more, where the corpus is so large that fewer queries would be left
_CELLS_AT_ONCE = 1 << 24
# What is believed before anything is seen, normal, in nats: without held-out choices of some kind nothing runs away
_LOG_SCALE_DEVIATION, _POPULARITY_DEVIATION, _LEVEL_DEVIATION = 1.0, 1.0, 3.0
_FLAT = 1e-4  # nats a query and unit: the slope at which the search for the three ends


@dataclass(frozen=True)
class Calibration:
    """The three numbers: `scale` s above 0, `popularity` a, `level` d in nats."""

    scale: float = 1.0
    popularity: float = 1.0
    level: float = 0.0


def has_recent_popularity(settings: ModelSettings) -> bool:
    """Is the items' bias a prior, and not learned?"""
    return settings.item_bias and settings.popularity == "recent"


def calibrate(learner: Learner, held_out: HeldOut, settings: EvaluateSettings) -> dict[str, Any]:
    """What was found; the learner's temperature and item biases are then those that are published.

    held_out   what the learner did not learn from; may be empty
    settings   what lists leave out when they are judged is no alternative here either, and choices not judged are not looked at

    Does nothing to a model without biases or ids. Where nothing is held out, or `train.calibrate` is off, recent popularity becomes
    the bias, and nothing is fitted.
    """
    model, dataset, train = learner.model, learner.dataset, learner.dataset.train
    is_recent, size = has_recent_popularity(model.settings), len(dataset.items)
    is_fitted = is_calibrated(learner) and len(held_out.examples) > 0
    if model.id_feature is None or not (is_recent or is_fitted):
        return {}
    calibration = Calibration()
    if is_fitted:
        if is_recent:
            fit = held_out.fit
            _set_biases(learner, held_out.dataset, fit_prior(fit.item_row, fit.time, fit.weight, size))
        calibration = _of_held_out(learner, held_out, settings)
    facts: dict[str, Any] = asdict(calibration)
    _forget_noise(learner, held_out)
    if is_recent:
        prior = fit_prior(train.item_row, train.time, train.weight, size)
        _set_biases(learner, dataset, prior)
        facts["prior"] = prior.weights
    _apply(learner, held_out.never, calibration)
    return {**facts, "temperature": float(model.temperature.detach())}


def likeliest(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    positive: NDArray[np.int64],
    bias: NDArray[np.float32],
    never: NDArray[np.bool_],
    left_out: Sequence[NDArray[np.int64]] | None = None,
    *,
    level_free: bool = True,
) -> Calibration:
    """The calibration under which the positives were likeliest among the items.

    queries      (N, D), so that their product with `items` (M, D) is <u, v> / T
    positive     (N,) rows of items
    bias         (M,) b, in nats
    never        (M,) items that were never chosen
    left_out     rows of items that are no alternatives, by query, -1 = none; None = all are
    level_free   are all three fitted? If not, s alone is
    """
    terms = np.stack([np.ones_like(bias), bias - bias.mean(), never.astype(np.float32)], axis=1)
    problem = _Likelihood(torch.from_numpy(queries), torch.from_numpy(items), torch.from_numpy(positive), torch.from_numpy(terms), left_out)
    free = np.array([True, level_free, level_free])
    found = np.array([0.0, 1.0, 0.0])

    def value(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found[free] = point
        mean, slope = problem.value(found)
        return mean, slope[free]

    def hessian(point: NDArray[np.float64]) -> NDArray[np.float64]:
        found[free] = point
        curvature: NDArray[np.float64] = problem.hessian(found)[np.ix_(free, free)]
        return curvature

    until = {"gtol": _FLAT, "maxiter": 50}
    found[free] = minimize(value, found[free], jac=True, hess=hessian, method="trust-exact", options=until).x
    log_scale, popularity, level = found.tolist()
    return Calibration(float(np.exp(log_scale)), popularity, level)


class _Likelihood:
    """Minus the mean log-likelihood of N positives and of what was believed before, as a function of (log s, a, d)."""

    def __init__(
        self,
        queries: torch.Tensor,
        items: torch.Tensor,
        positive: torch.Tensor,
        terms: torch.Tensor,
        left_out: Sequence[NDArray[np.int64]] | None,
    ) -> None:
        """terms   (M, 3) one, the bias b, and n: 1 where the item was never chosen, else 0"""
        self.queries, self.items, self.positive, self.terms, self.left_out = queries, items, positive, terms, left_out
        self.products = torch.cat([terms, terms[:, 1:2] * terms[:, 1:], terms[:, 2:]], dim=1)  # 1, b, n, bb, bn, nn = n
        self._point, self._hessian = np.full(3, np.nan), np.eye(3)

    def value(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value and its gradient (3,)."""
        scale = float(np.exp(point[0]))
        total, gradient, curvature = self._sums(scale, point[1], point[2])
        # from s to log s
        slope = scale * gradient[0]
        gradient, curvature = gradient * [scale, 1, 1], curvature * np.outer([scale, 1, 1], [scale, 1, 1])
        curvature[0, 0] += slope
        certainty = np.array([_LOG_SCALE_DEVIATION, _POPULARITY_DEVIATION, _LEVEL_DEVIATION]) ** -2.0
        away = point - np.array([0.0, 1.0, 0.0])
        self._point, self._hessian = point.copy(), curvature + np.diag(certainty)
        count = len(self.positive)
        self._hessian /= count
        return (total + float(certainty @ away**2) / 2) / count, (gradient + certainty * away) / count

    def hessian(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3, 3); it comes with the value, which is asked for first."""
        if not np.array_equal(point, self._point):
            self.value(point)
        return self._hessian

    @torch.no_grad()
    def _sums(self, scale: float, popularity: float, level: float) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Minus the log-likelihood, its gradient (3,) and its curvature (3, 3) in (s, a, d), over blocks of queries."""
        total, gradient, curvature = 0.0, np.zeros(3), np.zeros((3, 3))
        fixed = self.terms @ torch.tensor([0.0, popularity, level], dtype=self.terms.dtype)  # (M,)
        at_once = max(1, _CELLS_AT_ONCE // len(self.items))
        for start in range(0, len(self.queries), at_once):
            positive = self.positive[start : start + at_once]
            similarity = self.queries[start : start + at_once] @ self.items.T  # (b, M)
            chance = torch.add(fixed, similarity, alpha=scale)
            own = chance.gather(1, positive[:, None])[:, 0]
            self._leave_out(chance, start, positive)
            log_sum = torch.logsumexp(chance, dim=1)
            total += float((log_sum - own).double().sum())
            chance.sub_(log_sum[:, None]).exp_()
            plain = (chance @ self.products).double()  # (b, 6) means of 1, b, n, bb, bn, nn
            chance.mul_(similarity)
            crossed = (chance @ self.terms).double()  # (b, 3) means of x, xb, xn
            squared = chance.mul_(similarity).sum(dim=1, dtype=torch.float64)  # (b,) mean of xx
            mean = torch.stack([crossed[:, 0], plain[:, 1], plain[:, 2]], dim=1)
            seen = torch.stack([similarity.gather(1, positive[:, None])[:, 0], self.terms[positive, 1], self.terms[positive, 2]], dim=1)
            gradient += (mean - seen).sum(dim=0).numpy()
            xx, (xb, xn), (bb, bn, nn) = squared.sum(), crossed[:, 1:].sum(dim=0), plain[:, 3:].sum(dim=0)
            curvature += (torch.tensor([[xx, xb, xn], [xb, bb, bn], [xn, bn, nn]]) - mean.T @ mean).numpy()
        return total, gradient, curvature

    def _leave_out(self, logits: torch.Tensor, start: int, positive: torch.Tensor) -> None:
        """The cells that are no alternatives become -inf; a positive stays."""
        if self.left_out is None:
            return
        for place, own in enumerate(positive.tolist()):
            rows = self.left_out[start + place]
            logits[place, torch.from_numpy(rows[(rows >= 0) & (rows != own)])] = -torch.inf


def _of_held_out(learner: Learner, held_out: HeldOut, settings: EvaluateSettings) -> Calibration:
    """What the held-out choices ask for; of many, as many as fit speak, evenly spread."""
    examples = held_out.examples
    rewarded = examples.take(np.flatnonzero(examples.weight > 0))
    tested = rewarded.take(np.flatnonzero(is_tested(rewarded, settings)))
    examples = tested if len(tested) else rewarded  # a positive is never left out
    if not len(examples):
        return Calibration()
    count = min(len(examples), max(_FEWEST_QUERIES, _MOST_CELLS // len(held_out.never)))
    examples = examples.take(np.linspace(0, len(examples) - 1, count).astype(np.int64))
    model, tables, dataset = learner.model, learner.tables.weights, held_out.dataset
    corpus = encode_corpus(model, tables, dataset.item_features)
    queries = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature = np.float32(model.temperature.detach())
    return likeliest(
        queries[:, :-1] / temperature,
        corpus.vector[:, :-1],
        examples.item_row.astype(np.int64),
        corpus.vector[:, -1] / temperature,
        held_out.never,
        unlisted(examples.queries, settings),
        level_free=held_out.level_free,
    )


@torch.no_grad()
def _forget_noise(learner: Learner, held_out: HeldOut) -> None:
    """Nothing comes back: rows of ids that no step has moved, which hold what they started as, become those of unknown ids."""
    name, dataset = learner.model.id_feature, learner.dataset
    assert name is not None
    rows, unknown = _known_rows(dataset, name, held_out.never), id_vocabulary(dataset.item_encoder, name).unknown
    for table in (f"item/{name}", *extra_tables(learner.model.settings, name)):
        weights, sums = learner.tables.weights[table], learner.tables.sums[table].numpy()
        still = rows[(sums[rows] == np.float32(learner.settings.adagrad_start)).all(axis=1)]
        weights[torch.from_numpy(still)] = weights[torch.from_numpy(unknown_row(still, unknown))]


@torch.no_grad()
def _apply(learner: Learner, never: NDArray[np.bool_], found: Calibration) -> None:
    """The temperature, the biases and the bias of the unknown ids become those that were found."""
    model, dataset = learner.model, learner.dataset
    assert model.id_feature is not None
    model.log_temperature.sub_(float(np.log(found.scale)))
    table = learner.tables.weights[f"item/{model.id_feature}{BIAS}"].mul_(found.popularity)
    if model.item.bias is not None:  # what the content adds
        model.item.bias.weight.mul_(found.popularity)
    unknown = id_vocabulary(dataset.item_encoder, model.id_feature).unknown
    table[unknown.start : unknown.stop] += found.level
    if not has_recent_popularity(model.settings):
        table[torch.from_numpy(_known_rows(dataset, model.id_feature, never))] += found.level


def _known_rows(dataset: Dataset, name: str, items: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows of the id table that those of `items` (M,) have whose id is known."""
    ids = dataset.item_features[name]
    assert isinstance(ids, Ids)
    return ids.values[items & (ids.values >= id_vocabulary(dataset.item_encoder, name).unknown.stop)].astype(np.int64)


@torch.no_grad()
def _set_biases(learner: Learner, dataset: Dataset, prior: Prior) -> None:
    """The bias of an id's row becomes the log share of its item; of a row that many share, the log of their mean share."""
    name = learner.model.id_feature
    ids = dataset.item_features[name] if name is not None else None
    assert isinstance(ids, Ids)
    table = learner.tables.weights[f"item/{name}{BIAS}"]
    items = np.bincount(ids.values, minlength=len(table))
    shares = np.bincount(ids.values, weights=prior.share, minlength=len(table))
    log_share = np.log(np.where(items > 0, shares / np.maximum(items, 1), prior.share.min()))
    table.copy_(torch.from_numpy((log_share - log_share[items > 0].mean()).astype(np.float32))[:, None])
