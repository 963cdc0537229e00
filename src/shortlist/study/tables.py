"""What a study reports: means over seeds, paired differences over users and trainings, slices, cost; all of it JSON-able."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shortlist.config import config_tree
from shortlist.metrics.intervals import bootstrap_interval
from shortlist.metrics.ranking import ndcg_at, recall_at
from shortlist.sections import Config, EvaluateSettings
from shortlist.study.on_splits import Outcome
from shortlist.study.trials import Trial, ranks_among_chosen_of, ranks_of

COMPARED_SLICES = ("head items", "mid items", "tail items", "unseen items")
Values = NDArray[np.float64]
Estimate = dict[str, float]


@dataclass(frozen=True, eq=False)
class Results:
    """An outcome as arrays: S seeds (one of a baseline), N queries of all splits, one split behind the other.

    ranks     model -> (S, N)
    among     model -> (S, N) ranks among items that training chose
    cluster   (N,) who asked; nobody in particular is a cluster of its own
    weight    (N,) 1 / (queries of the split): splits weigh alike
    chosen    (N,) was the item chosen in training?
    slices    by name (N,)
    """

    outcome: Outcome
    settings: EvaluateSettings
    ranks: dict[str, NDArray[np.int64]]
    among: dict[str, NDArray[np.int64]]
    cluster: NDArray[np.int64]
    weight: Values
    chosen: NDArray[np.bool_]
    slices: dict[str, NDArray[np.bool_]]

    @property
    def longest(self) -> int:
        """The length of the longest list."""
        return max(self.settings.ks)

    def metrics(self, model: str) -> dict[str, Values]:
        """Recall at every k and NDCG at the shortest, by name; (S, N) one value a training and query."""
        rank = self.ranks[model]
        shortest = min(self.settings.ks)
        found = {f"recall@{k}": _by_row(rank, recall_at, k) for k in self.settings.ks}
        return {**found, f"ndcg@{shortest}": _by_row(rank, ndcg_at, shortest)}

    def hits(self, model: str, *, among_chosen: bool = False) -> Values:
        """(S, N) 1 where the longest list holds the positive."""
        ranks = self.among if among_chosen else self.ranks
        return _by_row(ranks[model], recall_at, self.longest)

    def interval(self, values: Values, mask: NDArray[np.bool_] | None = None) -> Estimate:
        """Mean and 95 % interval over users x trainings, of the queries of `mask`."""
        kept = np.ones(len(self.weight), bool) if mask is None else mask
        of_trainings = values[:, kept].T  # (n, S)
        found = bootstrap_interval(
            of_trainings,
            self.cluster[kept],
            weight=self.weight[kept],
            resamples=self.settings.bootstrap,
            seed=self.settings.seed,
        )
        return {**found._asdict(), "queries": int(kept.sum())}

    def mean_of_seeds(self, values: Values, mask: NDArray[np.bool_] | None = None) -> list[float]:
        """(S,) the weighted mean over the queries of `mask`, by seed."""
        weight = self.weight if mask is None else self.weight * mask
        return [float(value) for value in values @ weight / weight.sum()]


def results_of(outcome: Outcome, settings: EvaluateSettings) -> Results:
    """The outcome as arrays."""
    tested = outcome.tested
    asker = np.concatenate([split.asker for split in tested])
    return Results(
        outcome,
        settings,
        {model: _side_by_side(seeds, ranks_of) for model, seeds in outcome.trials.items()},
        {model: _side_by_side(seeds, ranks_among_chosen_of) for model, seeds in outcome.trials.items()},
        np.where(asker < 0, -1 - np.arange(len(asker)), asker),
        np.concatenate([np.full(len(split), 1.0 / len(split)) for split in tested]),
        np.concatenate([split.decile > 0 for split in tested]),
        {name: np.concatenate([split.slices[name] for split in tested]) for name in tested[0].slices},
    )


def over_seeds(values: list[float]) -> Estimate:
    """Mean, and with two seeds or more the standard deviation and the 95 % interval of the mean (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean}
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "sd": deviation}


def of_model(results: Results, model: str) -> dict[str, Any]:
    """What one model did: metrics, slices, never-chosen items, lists, each over seeds; and what it cost."""
    trials = [trial for seed in results.outcome.trials[model] for trial in seed]
    hits = results.hits(model)
    facts = {
        "seeds": len(results.outcome.trials[model]),
        "metrics": {name: over_seeds(results.mean_of_seeds(values)) for name, values in results.metrics(model).items()},
        "slices": {name: over_seeds(results.mean_of_seeds(hits, mask)) for name, mask in results.slices.items() if mask.any()},
        "never_chosen": _never_chosen(results, model),
        "lists": _mean_lists(trials),
        "fit_seconds": _mean([trial.fit_seconds for trial in trials]),
        "test_seconds": _mean([trial.test_seconds for trial in trials]),
    }
    epochs = [trial.epochs for trial in trials if trial.epochs is not None]
    negatives = [trial.negatives for trial in trials if trial.negatives is not None]
    if epochs:
        facts["best_epoch"] = _mean(epochs)
    if negatives:
        facts["negatives_per_row"] = _mean(negatives)
    if trials[0].settings:
        facts["settings"] = [trial.settings for trial in trials]
    return facts


def minus(results: Results, model: str, others: Iterable[str]) -> dict[str, Any]:
    """`model` minus each other one, on the same queries: metrics, slices, and how much of it never-chosen items account for.

    In "never_chosen" are the differences on queries whose item training chose, in the whole corpus and among chosen items
    alone; "through_never_chosen" is the first minus the second: what `model` gains by listing fewer items that nobody chose.
    """
    return {other: _minus(results, model, other) for other in others if other != model}


def heading(results: Results) -> dict[str, Any]:
    """What all numbers of the table are about."""
    tested = results.outcome.tested
    settings = results.settings
    return {
        "protocol": settings.protocol,
        "splits": [split.split for split in tested],
        "train_examples": [split.train_rows for split in tested],
        "queries": len(results.weight),
        "corpus_size": len(tested[0].items),
        "slice_queries": {name: int(mask.sum()) for name, mask in results.slices.items()},
        "seen_items": settings.seen_items or "rank",
        "ties": "count against the model",
        "intervals": f"95 %; means: over seeds, Student's t; differences: bootstrap over users x seeds, {settings.bootstrap} resamples",
        "commits": results.outcome.commits,
    }


def over_users_and_seeds(settings: EvaluateSettings) -> str:
    """What the intervals of differences are, in words."""
    return f"bootstrap over users x seeds, {settings.bootstrap} resamples"


def plain_settings(config: Config) -> dict[str, Any]:
    """The settings as JSON holds them."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config_tree(config)))
    return plain


def _minus(results: Results, model: str, other: str) -> dict[str, Any]:
    ours, theirs = results.metrics(model), results.metrics(other)
    hits = results.hits(model) - results.hits(other)
    among = results.hits(model, among_chosen=True) - results.hits(other, among_chosen=True)
    k, chosen = results.longest, results.chosen
    found: dict[str, Any] = {
        "metrics": {name: results.interval(ours[name] - theirs[name]) for name in ours},
        "slices": {name: results.interval(hits, results.slices[name]) for name in COMPARED_SLICES if results.slices[name].any()},
    }
    if chosen.any():
        found["never_chosen"] = {
            f"recall@{k} of chosen items": results.interval(hits, chosen),
            f"recall@{k} of chosen items, among chosen items": results.interval(among, chosen),
            "through_never_chosen": results.interval(hits - among, chosen),
        }
    return found


def _never_chosen(results: Results, model: str) -> dict[str, Any]:
    """Recall of chosen items in the whole corpus and among chosen items alone, and where never-chosen items stand."""
    k = results.longest
    found: dict[str, Any] = {}
    if results.chosen.any():
        for name, among in ((f"recall@{k} of chosen items", False), (f"recall@{k} of chosen items, among chosen items", True)):
            found[name] = over_seeds(results.mean_of_seeds(results.hits(model, among_chosen=among), results.chosen))
    lists = _mean_lists([trial for seed in results.outcome.trials[model] for trial in seed], never_chosen=True)
    return {**found, **lists}


def _mean_lists(trials: list[Trial], *, never_chosen: bool = False) -> Estimate:
    """The metrics of lists that all trials have, each the mean over them."""
    names = [name for name in trials[0].lists if name.startswith("never_chosen") == never_chosen]
    return {name: _mean([trial.lists[name] for trial in trials]) for name in names if all(name in trial.lists for trial in trials)}


def _mean(values: list[float] | list[int]) -> float:
    return round(float(np.mean(values)), 6)


def _side_by_side(seeds: list[list[Trial]], ranks: Callable[[Trial], NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.stack([np.concatenate([ranks(trial) for trial in of_splits]) for of_splits in seeds])


def _by_row(rank: NDArray[np.int64], metric: Callable[[NDArray[np.int64], int], Values], k: int) -> Values:
    return np.stack([metric(line, k) for line in rank])
