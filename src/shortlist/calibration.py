"""The last act of training, for logs with times: how much the towers say beside what is popular of late.

While it trains, a model whose `model.popularity` is "recent" meets popularity as a fixed bias. Here that bias becomes the
prior (prior.py) of the window's end, and the temperature is set to what the examples held out for validation ask for:

    logits = s <u, v> / T + log P(i),    s = argmax of their likelihood under the softmax over the whole corpus

Towers that have learned little from a small log get a small say (s < 1), and no more is needed to be no worse than the prior.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shortlist.config import ModelSettings
from shortlist.dataset import Dataset, Examples
from shortlist.encode import encode_corpus, encode_queries
from shortlist.features.arrays import Ids
from shortlist.learner import Learner
from shortlist.prior import Prior, fit_prior
from shortlist.towers import BIAS

SCALES = np.exp2(np.arange(-5, 4) / 2)  # of the towers' logits: .18 to 2.8
_MOST_CELLS = 200_000_000  # of held-out queries by items that are scored
_CELLS_AT_ONCE = 1 << 24


def has_recent_popularity(settings: ModelSettings) -> bool:
    """Is the items' bias a prior, and not learned?"""
    return settings.item_bias and settings.popularity == "recent"


def calibrate(learner: Learner, dataset: Dataset, fit: Examples, validation: Examples) -> dict[str, Any]:
    """What was found; the learner's temperature and item biases are then those that are published.

    fit          what the learner learned from
    validation   what it did not, and which came later; may be empty: then the temperature stays

    Does nothing to a model that learns its biases.
    """
    settings = learner.model.settings
    if not has_recent_popularity(settings) or learner.model.id_feature is None:
        return {}
    size = len(dataset.items)
    scale = 1.0
    if len(validation):
        before = fit_prior(fit.item_row, fit.time, fit.weight, size)
        similarity_temperature = float(learner.model.temperature.detach())
        scale = likeliest_scale(*_held_out_vectors(learner, dataset, validation, size), before, similarity_temperature)
    train = dataset.train
    prior = fit_prior(train.item_row, train.time, train.weight, size)
    _set_biases(learner, dataset, prior)
    with torch.no_grad():
        learner.model.log_temperature.sub_(float(np.log(scale)))
    return {"scale": round(scale, 4), "temperature": float(learner.model.temperature.detach()), "prior": prior.weights}


def likeliest_scale(
    queries: NDArray[np.float32], items: NDArray[np.float32], positive: NDArray[np.int64], prior: Prior, temperature: float
) -> float:
    """The s under which the positives (N,) of `queries` (N, D) were likeliest among `items` (M, D), between the grid's points too."""
    losses = np.zeros(len(SCALES))
    log_share = np.log(prior.share).astype(np.float32)
    at_once = max(1, _CELLS_AT_ONCE // len(items))
    for start in range(0, len(queries), at_once):
        rows = slice(start, start + at_once)
        logits = queries[rows] @ items.T / np.float32(temperature)  # (b, M)
        own = np.arange(len(logits)), positive[rows]
        for place, scale in enumerate(SCALES):
            scored = logits * np.float32(scale) + log_share
            losses[place] += float((_log_sum_exp(scored) - scored[own]).sum())
    return float(np.exp(_lowest(np.log(SCALES), losses)))


def _log_sum_exp(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    largest = scores.max(axis=1)
    total: NDArray[np.float32] = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    return total


def _lowest(points: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Where the parabola through the lowest of evenly spaced points and its neighbours is lowest; an end of the grid stays."""
    place = int(values.argmin())
    if place in (0, len(points) - 1):
        return float(points[place])
    left, middle, right = values[place - 1 : place + 2]
    bend = left - 2 * middle + right
    step = points[1] - points[0]
    return float(points[place] + (0.0 if bend <= 0 else step * (left - right) / (2 * bend)))


def _held_out_vectors(
    learner: Learner, dataset: Dataset, validation: Examples, size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """(queries, items, positives) without the coordinate of the bias; of many examples, so many as fit, evenly spread."""
    count = min(len(validation), max(200, _MOST_CELLS // size))
    kept = validation.take(np.linspace(0, len(validation) - 1, count).astype(np.int64))
    model, tables = learner.model, learner.tables.weights
    corpus = encode_corpus(model, tables, dataset.item_features)
    queries = encode_queries(model, tables, kept.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    return queries[:, :-1], corpus.vector[:, :-1], kept.item_row.astype(np.int64)


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
