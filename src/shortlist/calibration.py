"""The last act of training: five numbers that the choices held out are asked for, because training cannot know them.

    logits = s <u, v> / T + a b(i) + d n(i) + (m + m' n(i)) <q, c(i)>        n(i) = 1 where nobody chose the item, else 0

s       how much the towers say: towers that learned little from a small log get a small say, those that learn on get a louder one
a       how much popularity says (the bias b; with `model.popularity` = "recent" the log share of late, prior.py)
d       the level of items that nobody chose. They are never a positive, so that as negatives all of them, and content like theirs,
        would learn nothing but "not chosen"; where they are none (negatives.index_from = "chosen"), nothing is learned of their
        level. But held-out choices fall on items that had not been chosen before, and how often they do says it.
m, m'   how much it says that an item has words in common with what the query shows (features/content_codes.py), and how much more
        where nothing else is known of the item

The numbers are those under which the held-out choices are likeliest, by the softmax over the whole corpus; each choice that is
rewarded counts once, as in evaluation. They end in the temperature, the biases, the bias of the unknown ids and the table of matches:
search stays one inner product. Of an item that only held-out choices chose no more is learned than of one that nobody chose, and it is
published as such; but where the bias is recent popularity, it has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from shortlist.dataset import Dataset
from shortlist.encode import codes_for, encode_corpus, encode_queries
from shortlist.features.arrays import Ids
from shortlist.held_out import HeldOut, id_vocabulary, is_calibrated, unknown_row
from shortlist.id_places import row_blocks
from shortlist.learner import Learner
from shortlist.prior import Prior, fit_prior
from shortlist.sections import EvaluateSettings, ModelSettings
from shortlist.towers import BIAS, MATCH, extra_tables
from shortlist.unlisted import is_tested, unlisted

_MOST_CELLS = 100_000_000  # of held-out queries by items that are scored...
_FEWEST_QUERIES = 200  # ...or more, where the corpus is so large that fewer queries would be left
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
    """What queries show, (N, m), and what is said of items, (M, m): their products are <q, c>."""

    queries: NDArray[np.float32]
    items: NDArray[np.float32]


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
        self.size = 3 if codes is None else 5
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
        certainty = _DEVIATION[: self.size] ** -2.0
        away = point - _BELIEVED[: self.size]
        count = len(self.positive)
        self._point, self._hessian = point.copy(), (curvature + np.diag(certainty)) / count
        return (total + float(certainty @ away**2) / 2) / count, (gradient + certainty * away) / count

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
    codes = codes_for(model, dataset)
    corpus = encode_corpus(model, tables, dataset.item_features, codes=codes)
    queries = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature, dim = np.float32(model.temperature.detach()), model.settings.hidden[-1]
    return likeliest(
        queries[:, :dim] / temperature,
        corpus.vector[:, :dim],
        examples.item_row.astype(np.int64),
        corpus.vector[:, dim] / temperature,
        held_out.never,
        unlisted(examples.queries, settings),
        codes=None if codes is None else Codes(queries[:, dim + 1 :], codes),
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
    """The temperature, the biases, the bias of the unknown ids and what matches count become those that were found."""
    model, dataset = learner.model, learner.dataset
    assert model.id_feature is not None
    model.log_temperature.sub_(float(np.log(found.scale)))
    table = learner.tables.weights[f"item/{model.id_feature}{BIAS}"].mul_(found.popularity)
    if model.item.bias is not None:  # what the content adds
        model.item.bias.weight.mul_(found.popularity)
    unknown, known = id_vocabulary(dataset.item_encoder, model.id_feature).unknown, _known_rows(dataset, model.id_feature, never)
    table[unknown.start : unknown.stop] += found.level
    if not has_recent_popularity(model.settings):
        table[torch.from_numpy(known)] += found.level
    if codes_for(model, dataset) is not None:
        match = learner.tables.weights[f"item/{model.id_feature}{MATCH}"].fill_(found.match)
        match[unknown.start : unknown.stop] += found.match_of_never
        match[torch.from_numpy(known)] += found.match_of_never
        match *= model.temperature


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
