"""A sweep: settings drawn by Optuna (TPE), judged inside the training window, the best of them tested once.

The draw of each trial depends on the seed, its number and the trials before, so a sweep that was interrupted goes on to the same
end. One process at a time: a trial that another left unfinished counts as interrupted, and is drawn again.
"""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from shortlist.config import overridden
from shortlist.errors import ConfigError, TrainingError
from shortlist.evaluate import rank_positives
from shortlist.learned import LearnedRetriever
from shortlist.metrics.ranking import recall_at
from shortlist.project import Project
from shortlist.sections import Config
from shortlist.study.on_splits import Conditions, Ready, run_on_splits, tested_splits
from shortlist.study.space import Space
from shortlist.study.tables import heading, minus, of_model, plain_settings, results_of
from shortlist.study.trials import Prepared, Watch, model_digest, train_model
from shortlist.study.validation import validation_split

if TYPE_CHECKING:  # an optional dependency
    import optuna

CONFIGURED, WINNER = "as configured", "winner of the sweep"
DATABASE = "sweep.sqlite"
REASON, SECONDS = "reason", "seconds"  # user attributes of a trial
_RANDOM_AT_FIRST = 10  # trials before TPE has enough to learn from
_NEVER_PRUNED = 5  # complete trials before one is pruned
_WARM_UP_EPOCHS = 2
CHANGE_THE_LOSS = {  # settings under which validation losses are losses of different things
    *("negatives.kind", "negatives.index_from", "negatives.index_batch_size", "negatives.unchosen_weight", "negatives.mined_from"),
    *("loss.design", "loss.logq_weight", "loss.frequencies", "model.item_bias"),
    *("train.calibrate", "train.validation_fraction", "train.validation_at_most"),
}


def run_sweep(project: Project, space: Space, under: Conditions, *, trials: int, seed: int = 0) -> dict[str, Any]:
    """The table of a sweep: its trials, best first, and the best one beside the settings as they are, on the test split.

    trials   that shall be finished in all, those of earlier calls included
    seed     of the draws
    Judged by recall at the longest list on the validation split of the oldest tested split's training window; so no test event
    is seen before the winner stands. A trial whose validation loss after an epoch is above the median of the trials before is
    pruned, unless the sweep goes over a setting that changes what the loss is (CHANGE_THE_LOSS).
    Raises   ConfigError without Optuna, or where no trial could be finished
    """
    optuna = _optuna()
    oldest = tested_splits(project, every_split=under.every_split)[0]
    ready = Ready(project, validation_split(oldest.train_log, project.config), under, None)
    judged = ready.of(project.config)
    prunes = CHANGE_THE_LOSS.isdisjoint(space)
    under.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{under.folder / DATABASE}",
        study_name=_study_name(project.config, space, judged, seed),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(_NEVER_PRUNED, _WARM_UP_EPOCHS) if prunes else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
    while (number := len(_finished(study))) < trials:
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_AT_FIRST, seed=seed * 1_000_003 + number)
        _one_trial(study, space, project.config, ready, under, f"trial {number + 1} of {trials}")
    best = _best(study)
    winner = overridden(project.config, _overrides(space, best.params))
    outcome = run_on_splits(project, {CONFIGURED: project.config, WINNER: winner}, under)
    results = results_of(outcome, project.config.evaluate)
    return {
        "study": "sweep",
        **heading(results),
        "settings": plain_settings(project.config),
        "over": {name: list(values.texts) for name, values in space.items()},
        "validation": {
            "split": judged.tested.split,
            "of": f"the training window of {oldest.name}",
            "train_examples": len(judged.dataset.train),
            "queries": len(judged.tested),
            "metric": f"recall@{max(project.config.evaluate.ks)}",
        },
        "pruned_by": "validation loss" if prunes else None,
        "trials": [_told(trial) for trial in sorted(_finished(study), key=_rank)],
        "winner": best.params,
        "variants": {name: of_model(results, name) for name in results.ranks},
        "compared": {"model": WINNER, "minus": minus(results, WINNER, results.ranks)},
        "left_out": {},
    }


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise ConfigError('a sweep needs Optuna: got no such package; install "shortlist[study]"') from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _one_trial(study: optuna.Study, space: Space, config: Config, ready: Ready, under: Conditions, title: str) -> None:
    """Draws, trains and judges one trial, and writes into the study's database what came of it."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    trial = study.ask()
    overrides = [f"{name}={values.suggested(trial, name)}" for name, values in space.items()]
    title = f"{title}: {', '.join(overrides)}"
    started = time.perf_counter()
    try:
        drawn = overridden(config, overrides)
        found = judge(ready.of(drawn), drawn, under, title, _watch(trial, optuna.TrialPruned))
    except (ConfigError, TrainingError) as error:  # of these settings together
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=states.FAIL)
    except optuna.TrialPruned:
        trial.set_user_attr(SECONDS, round(time.perf_counter() - started, 1))
        study.tell(trial, state=states.PRUNED)
    else:
        trial.set_user_attr(SECONDS, round(time.perf_counter() - started, 1))
        study.tell(trial, found)


def judge(prepared: Prepared, config: Config, under: Conditions, title: str, watch: Watch | None = None) -> float:
    """Recall at the longest list, on the prepared split, of the model that these settings train."""
    log_file = prepared.folder / f"sweep-{model_digest(prepared, config)}.jsonl"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.unlink(missing_ok=True)
    with under.log_to(log_file, title) as log:
        learner = train_model(prepared.dataset, config, log, watch).learner
    retriever = LearnedRetriever(learner.model, learner.tables.weights, prepared.corpus)
    rank = rank_positives(retriever, prepared.examples, len(prepared.corpus.items), config.evaluate).rank
    return float(np.mean(recall_at(rank, max(config.evaluate.ks))))


def _watch(trial: optuna.Trial, pruned: type[Exception]) -> Watch:
    def watch(epoch: int, loss: float) -> None:
        if not math.isfinite(loss):
            return  # the trainer tells
        trial.report(-loss, epoch)  # the study maximises
        if trial.should_prune():
            raise pruned

    return watch


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to an end of their own: complete, pruned, or failed for a reason that their settings gave."""
    ended = ("COMPLETE", "PRUNED")
    return [trial for trial in study.trials if trial.state.name in ended or REASON in trial.user_attrs]


def _best(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The complete trial of the highest value, of equals the first. Raises ConfigError where there is none."""
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not complete:
        reasons = [trial.user_attrs[REASON] for trial in study.trials if REASON in trial.user_attrs]
        raise ConfigError(f"no trial of the sweep was finished: {reasons[-1] if reasons else 'all were pruned'}; widen --over or --trials")
    return min(complete, key=_rank)


def _rank(trial: optuna.trial.FrozenTrial) -> tuple[float, int]:
    return (-trial.value if trial.value is not None and trial.state.name == "COMPLETE" else math.inf, trial.number)


def _told(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    found: dict[str, Any] = {"number": trial.number, "state": trial.state.name.lower(), "settings": trial.params}
    if trial.state.name == "COMPLETE":
        found["value"] = trial.value
    if trial.intermediate_values:
        found["best_loss"] = -max(trial.intermediate_values.values())
        found["epochs"] = len(trial.intermediate_values)
    return {**found, **trial.user_attrs}


def _overrides(space: Space, params: Mapping[str, Any]) -> list[str]:
    return [f"{name}={params[name]}" for name in space]


def _study_name(config: Config, space: Space, judged: Prepared, seed: int) -> str:
    """Changes with the data, the settings, the space and the seed: only then is it another sweep."""
    named = repr((model_digest(judged, config), sorted(space.items()), judged.folder.name, seed))
    return xxhash.xxh3_64_hexdigest(named.encode())
