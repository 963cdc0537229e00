"""The last act of training: six numbers that the choices held out are asked for, because training cannot know them.

    logits = s <u, v> / T + r(q) (a b(i) + d n(i)) + (m + m' n(i)) <q, c(i)>        n(i) = 1 where nobody chose the item, else 0

s       how much the towers say: towers that learned little from a small log get a small say, those that learn on get a louder one
a       how much popularity says (the bias b; with `model.popularity` = "recent" the log share of late, prior.py)
d       the level of items that nobody chose. They are never a positive, so that as negatives all of them, and content like theirs,
        would learn nothing but "not chosen"; where they are none (negatives.index_from = "chosen"), nothing is learned of their
        level. But held-out choices fall on items that had not been chosen before, and how often they do says it.
m, m'   how much it says that an item has words in common with what the query shows (features/content_codes.py), and how much more
        where nothing else is known of the item; of that the first choices of all items say something as well (first_choices.py)
tau     how much less popularity says to who was shown what is not popular: r(q) = 1 + tau (g(q) - g_0), features/shown_popularity.py;
        where popularity is recent, and items match by words

The numbers are those under which the held-out choices are likeliest, by the softmax over the whole corpus; each choice that is
rewarded counts once, as in evaluation. They end in the temperature, the biases, the bias of the unknown ids, and the tables of matches
and of taste: search stays one inner product. Of an item that only held-out choices chose no more is learned than of one that nobody
chose, and it is published as such; but where the bias is recent popularity, it has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shortlist.dataset import Dataset
from shortlist.encode import codes_for, encode_corpus, encode_queries
from shortlist.features.arrays import Ids
from shortlist.features.shown_popularity import TASTE
from shortlist.first_choices import AmongNew, believed, beside_words, first_choices, words_alone
from shortlist.held_out import HeldOut, id_vocabulary, is_calibrated, unknown_row
from shortlist.learner import Learner
from shortlist.likeliest import Calibration, Codes, likeliest
from shortlist.prior import Prior, fit_prior
from shortlist.sections import EvaluateSettings, ModelSettings
from shortlist.towers import BIAS, MATCH, extra_tables
from shortlist.unlisted import is_tested, unlisted

_MOST_CELLS = 100_000_000  # of held-out queries by items that are scored...
_FEWEST_QUERIES = 200  # ...or more, where the corpus is so large that fewer queries would be left


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
    calibration, among_new = Calibration(), None
    if is_fitted:
        if is_recent:
            fit = held_out.fit
            _set_biases(learner, held_out.dataset, fit_prior(fit.item_row, fit.time, fit.weight, size))
        calibration, among_new = _of_held_out(learner, held_out, settings)
    facts: dict[str, Any] = {**asdict(calibration), **({} if among_new is None else {"among_new": asdict(among_new)})}
    _forget_noise(learner, held_out)
    if is_recent:
        prior = fit_prior(train.item_row, train.time, train.weight, size)
        _set_biases(learner, dataset, prior)
        facts["prior"] = prior.weights
    _apply(learner, held_out.never, calibration)
    return {**facts, "temperature": float(model.temperature.detach())}


def _of_held_out(learner: Learner, held_out: HeldOut, settings: EvaluateSettings) -> tuple[Calibration, AmongNew | None]:
    """What the held-out choices ask for, and what first choices had said; of many, as many as fit speak, evenly spread."""
    examples = held_out.examples
    rewarded = examples.take(np.flatnonzero(examples.weight > 0))
    tested = rewarded.take(np.flatnonzero(is_tested(rewarded, settings)))
    examples = tested if len(tested) else rewarded  # a positive is never left out
    if not len(examples):
        return Calibration(), None
    count = min(len(examples), max(_FEWEST_QUERIES, _MOST_CELLS // len(held_out.never)))
    examples = examples.take(np.linspace(0, len(examples) - 1, count).astype(np.int64))
    model, tables, dataset = learner.model, learner.tables.weights, held_out.dataset
    codes = codes_for(model, dataset)
    corpus = encode_corpus(model, tables, dataset.item_features, codes=codes)
    queries = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature, dim = np.float32(model.temperature.detach()), model.settings.hidden[-1]
    towers, left_out = (queries[:, :dim] / temperature, corpus.vector[:, :dim]), unlisted(examples.queries, settings)
    matches = None if codes is None else Codes(queries[:, dim + 1 :], codes)
    if matches is not None and has_recent_popularity(model.settings):  # learned popularity goes along with words as well
        among_new = _of_first_choices(held_out, matches, towers, model.history_last, settings, left_out)
        shown = (examples.queries.seed_row, examples.queries.newest_first(model.history_last))
        matches = replace(matches, among_new=among_new, shown=shown)
    found = likeliest(
        *towers,
        examples.item_row.astype(np.int64),
        corpus.vector[:, dim] / temperature,
        held_out.never,
        left_out,
        codes=matches,
    )
    return found, None if matches is None else matches.among_new


def _of_first_choices(
    held_out: HeldOut,
    codes: Codes,
    towers: tuple[NDArray[np.float32], NDArray[np.float32]],
    history_last: int,
    settings: EvaluateSettings,
    left_out: Sequence[NDArray[np.int64]] | None,
) -> AmongNew | None:
    """What the first choices among those learned from say of the items that none of them chose; None where they say nothing."""
    if not held_out.never.any():
        return None
    choices = first_choices(held_out.fit, codes.items, history_last, settings)
    found = None if choices is None else words_alone(choices, codes.items)
    if found is None:
        return None
    (mu, error), (queries, items) = found, towers
    beta = beside_words(mu, codes.queries, codes.items, queries=queries, items=items, new=held_out.never, left_out=left_out)
    return believed(mu, error, beta)


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
    if TASTE in learner.tables.weights:
        ids = dataset.item_features[model.id_feature]
        assert isinstance(ids, Ids)
        mean = float(table[torch.from_numpy(ids.values), 0].mean())  # over the corpus: recent popularity is in this table alone
        temperature = float(model.temperature.detach())  # published biases are T times as large
        learner.tables.weights[TASTE].copy_(torch.tensor([[found.taste / temperature, temperature * (found.usual + mean)]]))


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
