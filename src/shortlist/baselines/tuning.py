"""Settings of a baseline, chosen on the newest choices of its own training window. Nothing that is tested is looked at.

A greedy search, one setting after the other, by the recall that the evaluation will report; then a fit on the whole window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.baselines.chosen_by import Window
from shortlist.baselines.scored_corpus import ScoredCorpus
from shortlist.dataset import Examples
from shortlist.unlisted import is_tested, unlisted

VALIDATION_SHARE = 0.05
MOST_QUERIES = 2000  # that a setting is judged on
Settings = Mapping[str, Any]
Fitter = Callable[[Settings], ScoredCorpus]
Step = tuple[str, tuple[Any, ...]]  # a setting and its values, of which the first is the start
Steps = Sequence[Step]  # in the order they are tried; a setting may come back


def tuned(window: Window, fitter: Callable[[Window], Fitter], steps: Steps) -> ScoredCorpus:
    """The baseline fitted on `window` with the settings that did best on the part of it that was held out meanwhile.

    fitter   window -> (settings -> baseline)
    Its `settings` say what was chosen and, as "tuned_on", on how many queries: 0 where the log is too small to hold any out,
    and the first values stand.
    """
    fitted, held = hold_out(window)
    examples = window.train.take(held)
    settings = {name: values[0] for name, values in reversed(steps)}
    if len(held):
        fit, k = fitter(window.only(fitted)), max(window.config.evaluate.ks)
        exclude = unlisted(examples.queries, window.config.evaluate)
        settings = greedy(settings, steps, lambda tried: recall(fit(tried), examples, k, exclude))
    return replace(fitter(window)(settings), settings={**settings, "tuned_on": len(held)})


def greedy(start: Settings, steps: Steps, judge: Callable[[Settings], float]) -> dict[str, Any]:
    """The best settings found by changing one at a time, step after step; of equals, the one tried first."""
    best = dict(start)
    best_value = judge(best)
    for name, values in steps:
        for value in values:
            if value == best[name]:
                continue
            tried = {**best, name: value}
            found = judge(tried)
            if found > best_value:
                best, best_value = tried, found
    return best


def hold_out(window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(training examples to fit on, those to judge by): the newest share, or random pairs of asker and item without times.

    Events of one instant stay on one side. Those to judge by are at most MOST_QUERIES, and such as the evaluation would test.
    """
    train = window.train
    held = _newest(train) if window.has_time else _random_pairs(train)
    judged = np.flatnonzero(held)
    judged = judged[is_tested(train.take(judged), window.config.evaluate)]
    spread = np.linspace(0, max(len(judged) - 1, 0), min(len(judged), MOST_QUERIES)).astype(np.intp)
    fitted = np.flatnonzero(~held)
    return fitted, judged[spread] if len(fitted) else judged[:0]


def _newest(train: Examples) -> NDArray[np.bool_]:
    count = round(VALIDATION_SHARE * len(train))
    if not count:
        return np.zeros(len(train), bool)
    return np.asarray(train.time >= train.time[len(train) - count])


def _random_pairs(train: Examples) -> NDArray[np.bool_]:
    """A pair is held out with all its examples; those of nobody, one by one."""
    asker = np.where(train.asker >= 0, train.asker, -1 - np.arange(len(train)))
    pairs = np.unique(np.stack([asker, train.item_row.astype(np.int64)]), axis=1, return_inverse=True)[1].ravel()
    draws = np.random.default_rng(0).random(int(pairs.max(initial=-1)) + 1)
    held: NDArray[np.bool_] = (draws < VALIDATION_SHARE)[pairs]
    return held


def recall(model: ScoredCorpus, examples: Examples, k: int, exclude: Sequence[NDArray[np.int64]] | None = None) -> float:
    """The share of `examples` whose item is among the best k, ties against it. Cheaper than to retrieve: nothing is sorted."""
    hits = 0
    for start, queries in model.blocks(examples.queries):
        scores = model.scores(queries)
        numbers = np.arange(len(queries))
        positive = scores[numbers, examples.item_row[start : start + len(queries)]]
        for query, known in enumerate(exclude[start : start + len(queries)] if exclude is not None else ()):
            scores[query, known[known >= 0]] = -np.inf
        hits += int(((scores >= positive[:, None]).sum(axis=1) <= k).sum())
    return hits / len(examples)
