"""The study of whole data sets: the project's own settings beside all baselines, every split of the protocol, several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shortlist.baselines.fit import BASELINES
from shortlist.learned import LearnedRetriever
from shortlist.project import Project, open_project
from shortlist.sections import Config
from shortlist.study.on_splits import Conditions, run_on_splits
from shortlist.study.tables import Results, heading, minus, of_model, over_users_and_seeds, plain_settings, results_of

MODEL = LearnedRetriever.name


def run_sets(configs: Mapping[str, Config], under: Callable[[str], Conditions]) -> dict[str, Any]:
    """{"study": "sets", "sets": {name: its table}}, one set after the other; `under` tells the conditions of each by its name."""
    return {"study": "sets", "sets": {name: table_of_set(open_project(config), under(name)) for name, config in configs.items()}}


def table_of_set(project: Project, under: Conditions) -> dict[str, Any]:
    """One set: the model's trials and the baselines', and what they come to."""
    outcome = run_on_splits(project, {MODEL: project.config}, under, baselines=BASELINES)
    return {**beside_baselines(results_of(outcome, project.config.evaluate)), "settings": plain_settings(project.config)}


def beside_baselines(results: Results) -> dict[str, Any]:
    """Every model with intervals, the model minus every baseline on the same queries, the verdict, and what all of it cost."""
    baselines = [name for name in results.ranks if name != MODEL]
    compared = minus(results, MODEL, baselines)
    trials = [trial for seeds in results.outcome.trials.values() for splits in seeds for trial in splits]
    return {
        **heading(results),
        "intervals": f"95 %, {over_users_and_seeds(results.settings)}; slices: over seeds, Student's t",
        "models": {name: _of_model(results, name) for name in (MODEL, *baselines)},
        "compared": {"model": MODEL, "minus": compared},
        "verdict": _verdict(results, baselines, compared),
        "left_out": results.outcome.left_out,
        "cost_seconds": round(sum(trial.fit_seconds + trial.test_seconds for trial in trials), 1),
    }


def _of_model(results: Results, name: str) -> dict[str, Any]:
    """As in other studies, but with intervals over users x seeds, which a baseline has as well, and the mean of each seed."""
    metrics = {
        metric: {**results.interval(values), "by_seed": results.mean_of_seeds(values)} for metric, values in results.metrics(name).items()
    }
    return {**of_model(results, name), "metrics": metrics}


def _verdict(results: Results, baselines: list[str], compared: Mapping[str, Any]) -> dict[str, Any]:
    """By metric: the best baseline (chosen on the very queries of the test, so in its favour) and the model's difference to it."""
    verdict = {}
    for metric in (f"recall@{results.longest}", f"ndcg@{min(results.settings.ks)}"):
        means = {name: results.mean_of_seeds(results.metrics(name)[metric])[0] for name in baselines}
        best = max(means, key=lambda name: means[name])
        difference = compared[best]["metrics"][metric]
        verdict[metric] = {
            "best_baseline": best,
            "of_baseline": means[best],
            "difference": difference,
            "above": bool(difference["low"] > 0),
        }
    return verdict
