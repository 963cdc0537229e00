"""What an evaluation says -> charts, each with its numbers as a table; or, where its data are missing, what makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.report.chart import Chart, Point, Series
from shortlist.report.inputs import Estimate, Evaluation, Slice
from shortlist.report.scales import linear_axis, log_axis, named_axis
from shortlist.report.verdict import ranked_queries
from shortlist.report.wording import interval, metric_name, number
from shortlist.slices import AGE_BANDS, DECILES
from shortlist.times import DAY_US

EVALUATE = "shortlist evaluate CONFIG --out FOLDER"
_NEVER, _APART = "never", 0.75  # the band of what has no decile, or no age, stands so many steps apart
_DECILES = {f"popularity decile {decile}": str(decile) for decile in range(1, DECILES + 1)} | {"unseen items": _NEVER}
_SHOWN_KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_DAYS = [start // DAY_US for start in AGE_BANDS.values()]
_AGES = {
    **{name: f"{low}–{high}" if low else f"< {high}" for name, low, high in zip(AGE_BANDS, _DAYS, _DAYS[1:], strict=False)},
    list(AGE_BANDS)[-1]: f"≥ {_DAYS[-1]}",
    "item never chosen before": _NEVER,
}


@dataclass(frozen=True)
class Missing:
    """A part of the page that cannot be made."""

    what: str
    command: str | None = None  # that makes it


@dataclass(frozen=True)
class Figure:
    """A chart, what it says, and its numbers."""

    chart: Chart
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def popularity_figure(evaluation: Evaluation) -> Figure | Missing:
    """Recall at the longest list by popularity decile of the item chosen."""
    title = "popularity decile of the item (1 = most chosen)"
    caption = (
        "Each decile drew a tenth of the choices in training: the first holds few items, the last many. never: in the corpus, not chosen "
        "in training. The bars are intervals of the first model; a gap is a band without queries."
    )
    return _by_band(evaluation, "popularity", "Recall by popularity", title, _DECILES, caption)


def age_figure(evaluation: Evaluation) -> Figure | Missing:
    """Recall at the longest list by the time since the chosen item was first chosen."""
    caption = (
        "The age of an item counts from its first choice in the log. never: nobody had chosen it before the query. The bars are intervals "
        "of the first model; a gap is a band without queries."
    )
    return _by_band(
        evaluation, "age", "Recall by item age", "age of the item, days", _AGES, caption, without=" (a log without times has no ages)"
    )


def recall_by_k_figure(evaluation: Evaluation) -> Figure | Missing:
    """Recall@K for every K up to the longest list."""
    if evaluation.ranks is None:
        return Missing("ranks.parquet is not in this folder: recall is known only at the cut-offs of the table.", EVALUATE)
    longest = evaluation.cut_offs[-1]
    if longest == 1:
        return Missing("The longest list has one item: there is no curve to draw. Evaluate with longer lists (evaluate.ks).", EVALUATE)
    curves = recall_curves(evaluation)
    series = tuple(
        Series(model, tuple(Point(k, float(value)) for k, value in enumerate(curve, start=1)), place, place == 0, has_marks=False)
        for place, (model, curve) in enumerate(curves.items())
    )
    shown = [k for k in _SHOWN_KS if k < longest] + [longest]
    chart = Chart(
        "recall-by-k",
        "Recall by length of the list",
        summary(f"Recall@K for K from 1 to {longest}", series),
        log_axis("K, length of the list (logarithmic)", 1, longest),
        linear_axis("Recall@K", [float(curve.max()) for curve in curves.values()], from_zero=True),
        series,
    )
    rows = tuple((f"{k:,}", *(number(curve[k - 1]) for curve in curves.values())) for k in shown)
    return Figure(chart, "How often the item chosen next is among the first K.", ("K", *curves), rows)


def recall_curves(evaluation: Evaluation) -> dict[str, NDArray[np.float64]]:
    """For each model recall@1 ... recall@K of the longest list, (K,); every split, and every training, weighs alike."""
    assert evaluation.ranks is not None
    queries, longest = ranked_queries(evaluation.ranks, evaluation.models), evaluation.cut_offs[-1]
    curves = {}
    for model, ranks in queries.ranks.items():
        weight = np.broadcast_to(queries.weight[:, None], ranks.shape)
        found = ranks <= longest
        at_rank = np.bincount(ranks[found], weights=weight[found], minlength=longest + 1)[1:]
        curves[model] = np.cumsum(at_rank) / weight.sum()
    return curves


def coverage_figure(evaluation: Evaluation) -> Figure | Missing:
    """Recall against coverage at the longest list, a point a model."""
    k = evaluation.cut_offs[-1]
    coverage, recall = f"coverage@{k}", f"recall@{k}"
    known = {model: (metrics[coverage].mean, metrics[recall]) for model, metrics in evaluation.table.models.items() if coverage in metrics}
    if not known:
        return Missing(f"evaluation.json has no {coverage}.", EVALUATE)
    series = tuple(
        Series(model, (point(*known[model]),), place, place == 0, has_line=False)
        for place, model in enumerate(evaluation.models)
        if model in known
    )
    chart = Chart(
        "coverage",
        "Coverage and recall",
        f"{metric_name(recall)} against {metric_name(coverage)}: "
        + "; ".join(f"{model} {number(found.mean)} at {number(covered)}" for model, (covered, found) in known.items()),
        linear_axis(f"{metric_name(coverage)}, share of the corpus", [covered for covered, _ in known.values()], from_zero=True),
        linear_axis(metric_name(recall), highs([found for _, found in known.values()]), from_zero=True),
        series,
    )
    rows = tuple((model, *cells(found), number(covered)) for model, (covered, found) in known.items())
    caption = f"Coverage: the share of the corpus that is in at least one list of {k}. Up is better; right shows more of the catalogue."
    return Figure(chart, caption, ("model", metric_name(recall), "95 % interval", metric_name(coverage)), rows)


def _by_band(
    evaluation: Evaluation, key: str, title: str, x_title: str, labels: dict[str, str], caption: str, *, without: str = ""
) -> Figure | Missing:
    """Recall at the longest list in each band of queries; `labels` are what the axis calls the slices, in order.

    without   why there may be no such bands
    """
    metric = f"recall@{evaluation.cut_offs[-1]}"
    bands = {name: evaluation.table.slices[name] for name in labels if name in evaluation.table.slices}
    if not any(band.queries for band in bands.values()):
        return Missing(f"evaluation.json has no queries by {key} of the item{without}.", EVALUATE)
    names = [labels[name] for name in bands]
    places = [place + (_APART if label == _NEVER else 0.0) for place, label in enumerate(names)]
    series = tuple(_of_bands(model, places, list(bands.values()), metric, style) for style, model in enumerate(evaluation.models))
    estimates = [band.models[model][metric] for band in bands.values() for model in band.models]
    tops = highs([band.models[evaluation.models[0]][metric] for band in bands.values() if band.queries])
    y = linear_axis(metric_name(metric), [*(estimate.mean for estimate in estimates), *tops], from_zero=True)
    chart = Chart(key, title, summary(f"{metric_name(metric)} by {x_title}", series), named_axis(x_title, names, places), y, series)
    rows = tuple(
        (labels[name], f"{band.queries:,}", *(_with_interval(band, model, metric) for model in evaluation.models))
        for name, band in bands.items()
    )
    return Figure(chart, caption, (x_title, "queries", *evaluation.models), rows)


def _of_bands(model: str, places: Sequence[float], bands: Sequence[Slice], metric: str, style: int) -> Series:
    points = []
    for x, band in zip(places, bands, strict=True):
        if not x.is_integer():  # a band of another kind than those before it is not joined to them
            points.append(Point(x, None))
        found = band.models[model][metric] if band.queries else None
        is_first = style == 0 and found is not None
        points.append(
            Point(x, found.mean if found else None, found.low if found and is_first else None, found.high if found and is_first else None)
        )
    return Series(model, tuple(points), style, is_main=style == 0)


def summary(what: str, series: Sequence[Series]) -> str:
    """What a chart shows, in a sentence: each line from its first to its last value."""
    ends = [(one.name, one.drawn[0].y, one.drawn[-1].y) for one in series if one.drawn]
    return f"{what}: " + "; ".join(f"{name or 'line'} from {number(first or 0.0)} to {number(last or 0.0)}" for name, first, last in ends)


def point(x: float, estimate: Estimate) -> Point:
    return Point(x, estimate.mean, estimate.low, estimate.high)


def highs(estimates: Sequence[Estimate]) -> list[float]:
    return [estimate.mean if estimate.high is None else estimate.high for estimate in estimates]


def lows(estimates: Sequence[Estimate]) -> list[float]:
    return [estimate.mean if estimate.low is None else estimate.low for estimate in estimates]


def cells(estimate: Estimate) -> tuple[str, str]:
    return number(estimate.mean), interval(estimate)


def _with_interval(band: Slice, model: str, metric: str) -> str:
    return " ".join(cells(band.models[model][metric])) if band.queries else "–"
