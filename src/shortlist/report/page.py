"""An evaluation -> one HTML file that needs nothing else: no script, font, picture or style from outside.

Whatever comes from data goes through the templates' escaping; only drawings (chart.svg), which escape for themselves, are put in whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from shortlist import __version__
from shortlist.evaluation_folder import split_folder
from shortlist.report.chart import COLOURS, svg
from shortlist.report.figures import EVALUATE, Missing, age_figure, coverage_figure, popularity_figure, recall_by_k_figure
from shortlist.report.inputs import Estimate, Evaluation, Split, read_evaluation
from shortlist.report.training import Trained
from shortlist.report.training_figures import batch_size_figures, training_figures
from shortlist.report.verdict import Verdict, verdicts
from shortlist.report.wording import headline, interval, measured, metric_name, number, score, tuned_words


@dataclass(frozen=True)
class Bar:
    """One model in the headline: its recall, and lengths in percent of the longest bar's interval."""

    model: str
    style: int
    estimate: Estimate
    length: float
    low: float
    high: float


def write_report(folder: Path, out: Path, *, title: str | None = None) -> Path:
    """`out`, the page of the evaluation in `folder`; an older file of that name is replaced when the new one is whole.

    title   what was evaluated; None = the name of the folder
    Raises  DataError where the folder holds no evaluation, or a damaged one
    """
    text = render(read_evaluation(folder), title=title or folder.resolve().name)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)
    return out


def render(evaluation: Evaluation, *, title: str) -> str:
    """The page."""
    found = verdicts(evaluation)
    primary = found[f"recall@{evaluation.cut_offs[-1]}"]
    template = _environment().get_template("report.html")
    return template.render(
        title=title,
        version=__version__,
        table=evaluation.table,
        models=evaluation.models,
        styles={model: place % COLOURS for place, model in enumerate(evaluation.models)},
        primary=primary,
        headline=headline(primary, evaluation),
        bars=bars(evaluation, primary),
        measured=measured(evaluation),
        ranked=list(found),
        verdicts=found,
        others=_other_metrics(evaluation, found),
        trainings=seed_rows(evaluation, list(found)),
        tuned=[(split.name, model, tuned_words(tuned)) for split in evaluation.table.splits for model, tuned in split.tuned.items()],
        windows=[(split, _window(run)) for split, run in _runs_of_splits(evaluation)],
        popularity=popularity_figure(evaluation),
        age=age_figure(evaluation),
        recall_by_k=recall_by_k_figure(evaluation),
        coverage=coverage_figure(evaluation),
        training=training_figures(evaluation),
        warned=[run for run in evaluation.trained if run.warned],
        batch_sizes=batch_size_figures(evaluation),
        examples=evaluation.examples,
        longest=evaluation.cut_offs[-1],
        no_examples=Missing("examples.json is not in this folder.", EVALUATE),
        settings=next((run for run in evaluation.trained if run.settings is not None), None),
        settings_differ=len({run.settings for run in evaluation.trained}) > 1,
        evaluate_command=EVALUATE,
    )


def bars(evaluation: Evaluation, primary: Verdict) -> list[Bar]:
    """The models by the headline's metric, best first; equal ones in the order of the table."""
    estimates = {model: metrics[primary.metric] for model, metrics in evaluation.table.models.items()}
    longest = max(estimate.mean if estimate.high is None else estimate.high for estimate in estimates.values()) or 1.0
    found = []
    for style, (model, estimate) in enumerate(estimates.items()):
        low, high = (estimate.mean if bound is None else bound for bound in (estimate.low, estimate.high))
        found.append(Bar(model, style % COLOURS, estimate, *(100 * value / longest for value in (estimate.mean, low, high))))
    return sorted(found, key=lambda bar: -bar.estimate.mean)


def seed_rows(evaluation: Evaluation, ranked: list[str]) -> list[tuple[str, int, list[float]]]:
    """(model, seed, its mean by each of the metrics) for every training of the models that were trained several times."""
    seeds, found = evaluation.table.seeds, []
    for model, metrics in evaluation.table.models.items():
        if len(seeds) > 1 and metrics[ranked[0]].seeds is not None:
            by_metric = [metrics[name].seeds or [] for name in ranked]
            found += [(model, seed, [values[place] for values in by_metric]) for place, seed in enumerate(seeds)]
    return found


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shortlist.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "metric": metric_name,
        "number": number,
        "interval": interval,
        "score": score,
        "svg": svg,
    }
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    return environment


def _other_metrics(evaluation: Evaluation, ranked: dict[str, Verdict]) -> list[str]:
    """The metrics that do not rank queries: of whole lists, and per user."""
    every: dict[str, Any] = {name: None for metrics in evaluation.table.models.values() for name in metrics}
    return [name for name in every if name not in ranked]


def _runs_of_splits(evaluation: Evaluation) -> Iterator[tuple[Split, Trained | None]]:
    """Each split with the first run that was trained for it."""
    by_folder: dict[str, Trained] = {}
    for run in evaluation.trained:
        by_folder.setdefault(run.name.split("/")[0], run)
    for split in evaluation.table.splits:
        yield split, by_folder.get(split_folder(split.name))


def _window(run: Trained | None) -> str:
    """From when to when a run learned, by its own record."""
    first, last = (None, None) if run is None else (run.facts.get("first_time"), run.facts.get("last_time"))
    return f"{first[:10]} to {last[:10]}" if isinstance(first, str) and isinstance(last, str) else "–"
