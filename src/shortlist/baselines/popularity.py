"""Popularity in the training window: the same list for everybody. Plain, or with choices that count less the older they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.baselines.chosen_by import Window
from shortlist.baselines.of_history import scored_corpus, seen_steps
from shortlist.baselines.scored_corpus import ScoredCorpus, Scores
from shortlist.baselines.top_rows import top_rows
from shortlist.baselines.tuning import Fitter, Settings, Steps
from shortlist.dataset import Dataset
from shortlist.queries import Queries
from shortlist.times import DAY_US


class Popularity:
    """Scores every item by how often the window chose it."""

    name = "popularity"

    def __init__(self, dataset: Dataset) -> None:
        self.scores = dataset.item_counts.astype(np.float32)  # (M,)

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        if exclude is None:
            rows, scores = top_rows(self.scores[None, :], k)
            return np.repeat(rows, len(queries), axis=0), np.repeat(scores, len(queries), axis=0)
        block = np.broadcast_to(self.scores, (len(queries), len(self.scores)))
        return top_rows(block, k, exclude)


def decay_steps(window: Window) -> Steps:
    """The steps of tuning: half-lives from a thousandth of a long window to longer than it."""
    return (*seen_steps(window), ("half_life_days", (8.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0, 32.0, 64.0, 128.0, 256.0)))


def decayed_popularity(window: Window) -> Fitter:
    """Settings -> the baseline that scores an item by its choices in `window`, each 2^(-age / half-life), age up to the newest choice."""
    train = window.train
    age_days = (train.time.max() - train.time) / DAY_US

    def fit(settings: Settings) -> ScoredCorpus:
        weight = np.exp2(-age_days / settings["half_life_days"])
        scores = np.bincount(train.item_row, weights=weight, minlength=window.corpus_size).astype(np.float32)

        def score(queries: Queries) -> Scores:
            return np.broadcast_to(scores, (len(queries), len(scores)))

        return scored_corpus("decayed-popularity", window, settings, score)

    return fit


def obstacle_to_decay(window: Window) -> str | None:
    """Why choices cannot be told by age; None where they can."""
    return None if window.has_time else "choices without times have no age: it would be the same as popularity"
