"""Content neighbours: the items whose texts and categories are nearest to those of what the query shows. No choice is used.

What is shown weighs by its age; the score is the cosine of the weighted sum with the item. Where an item has no word in
common with it, popularity decides, behind all that have.
"""

from __future__ import annotations

import numpy as np

from shortlist.baselines.chosen_by import Shown, Window
from shortlist.baselines.item_texts import item_texts
from shortlist.baselines.of_history import HALF_LIFE, POPULARITY_WEIGHT, scored_corpus, seen_steps
from shortlist.baselines.scored_corpus import ScoredCorpus, Scores
from shortlist.baselines.tuning import Fitter, Settings, Steps
from shortlist.queries import Queries


def content_neighbours_steps(window: Window) -> Steps:
    """The steps of tuning. A seed that asks shows itself alone: what it chose are choices."""
    return (*seen_steps(window), *([] if window.seeds_ask else [HALF_LIFE]), POPULARITY_WEIGHT)


def content_neighbours(window: Window) -> Fitter:
    """Settings -> the baseline fitted on `window`."""
    texts = item_texts(window)
    words = texts.T.tocsr()

    def fit(settings: Settings) -> ScoredCorpus:
        shown = Shown(window.corpus_size, settings.get("half_life", np.inf))

        def score(queries: Queries) -> Scores:
            said = shown.weights(queries) @ texts
            length = np.sqrt(np.asarray(said.multiply(said).sum(axis=1)))  # (B, 1)
            return np.asarray((said @ words).toarray() / np.where(length > 0, length, 1), np.float32)

        return scored_corpus("content-neighbours", window, settings, score)

    return fit
