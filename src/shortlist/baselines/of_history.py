"""Baselines that learn from who chose what, and score items by what a query shows: what they share.

They differ in one function: the choices of askers -> (what queries show -> scores). How a query is read, how it is tuned and
what stands behind the scores is the same for all, so a difference between two of them is one of method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scipy import sparse

from shortlist.baselines.chosen_by import Window, chosen_by_asker, shown_in
from shortlist.baselines.scored_corpus import ScoredCorpus, Scores
from shortlist.baselines.tuning import Fitter, Settings, Step, Steps

HALF_LIFE: Step = ("half_life", (4.0, 1.0, 2.0, 8.0, 16.0, 64.0, 512.0))  # in places behind the newest item
SEED_WEIGHT: Step = ("seed_weight", (1.0, 0.25))  # of the seed as an item, beside its choices
WITH_SEED: Step = ("with_seed", (True, False))  # is the seed one of its own choices in training?
POPULARITY_WEIGHT: Step = ("popularity_weight", (0.0, 0.1, 0.3, 1.0))
SEEN_LAST: Step = ("seen_last", (True, False))
ScoreShown = Callable[[sparse.csr_matrix], Scores]  # weights (B, M) of what queries show -> (B, M)
Train = Callable[..., ScoreShown]  # choices (A, M) of askers, and the method's own settings by name


@dataclass(frozen=True)
class HistoryMethod:
    """A method by what is its own.

    name    what the tables call it
    train   learns, under the settings that `steps` names
    steps   its own settings
    """

    name: str
    train: Train
    steps: Steps

    def steps_in(self, window: Window) -> Steps:
        """All steps of tuning: how a query is read, the method's own settings, and how it is read once more, under those."""
        reading = SEED_WEIGHT if window.seeds_ask else HALF_LIFE
        with_seed = [WITH_SEED] if window.seeds_ask else []
        return (*seen_steps(window), *with_seed, reading, *self.steps, reading, POPULARITY_WEIGHT)

    def fitter(self, window: Window) -> Fitter:
        """Settings -> the baseline fitted on `window`. What was trained last is kept: reading a query otherwise costs no training."""
        names = [name for name, _ in self.steps]

        @lru_cache(maxsize=1)
        def trained(with_seed: bool, *values: Any) -> ScoreShown:
            return self.train(chosen_by_asker(window, with_seed=with_seed), **dict(zip(names, values, strict=True)))

        def fit(settings: Settings) -> ScoredCorpus:
            score = trained(settings.get("with_seed", False), *(settings[name] for name in names))
            shown = shown_in(window, **{name: settings[name] for name in ("half_life", "seed_weight") if name in settings})
            return scored_corpus(self.name, window, settings, lambda queries: score(shown.weights(queries)))

        return fit


def obstacle_to_histories(window: Window) -> str | None:
    """Why nothing can be learned of who chose what, or queries show nothing to apply it to; None where it can."""
    queries = window.train.queries
    if not (window.train.asker >= 0).any():
        return "it learns from all that one asker chose: the log names no user, and no seed to ask in a user's place"
    if not ((queries.seed_row >= 0) | (queries.history_end > queries.history_start)).any():
        return "it scores by what a query shows: queries of this log have neither a seed nor a history; name [columns] time, or a history"
    return None


def seen_steps(window: Window) -> Steps:
    """Whether items that the query shows come last, where lists may hold them: a seed's own choices always, if queries do not show them."""
    return (SEEN_LAST,) if window.seeds_ask or window.config.evaluate.seen_items != "exclude" else ()


def scored_corpus(name: str, window: Window, settings: Settings, score: Callable[..., Scores]) -> ScoredCorpus:
    """The baseline of these scores, with `popularity_weight` and `seen_last` as the settings say; absent ones are off."""
    seen = shown_in(window) if settings.get("seen_last", False) else None
    return ScoredCorpus(name, score, window.popularity, settings.get("popularity_weight", 0.0), seen, settings)
