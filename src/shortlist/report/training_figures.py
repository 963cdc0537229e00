"""Charts of what comes before the evaluation: how training went, and what the number of uniform negatives does."""

from __future__ import annotations

from shortlist.report.chart import COLOURS, Chart, Point, Series
from shortlist.report.figures import EVALUATE, Figure, Missing, cells, highs, lows, point, summary
from shortlist.report.inputs import BatchSizeStudy, Estimate, Evaluation
from shortlist.report.scales import linear_axis, named_axis
from shortlist.report.training import Points, thinned
from shortlist.report.wording import metric_name, number

_OTHER_RUN = 7  # the style of grey
STUDY = "shortlist study table2 CONFIG --json > FOLDER/study-table2.json"


def training_figures(evaluation: Evaluation) -> list[Figure] | Missing:
    """Training loss and validation loss by step, a line a run."""
    loss = {run.name: run.loss for run in evaluation.trained if run.loss}
    validation = {run.name: run.validation_loss for run in evaluation.trained if run.validation_loss}
    if not loss and not validation:
        return Missing("There is no train.jsonl with a loss below this folder: training was not logged here.", EVALUATE)
    found = []
    if loss:
        thin = {name: thinned(points) for name, points in loss.items()}
        together = max(size for _, size in thin.values())
        note = f" A point is the mean of {together} logged steps." if together > 1 else ""
        found.append(
            _curves(
                "training-loss",
                "Training loss",
                {name: points for name, (points, _) in thin.items()},
                "The loss of single batches against sampled negatives, as it was minimised." + note,
                ("run", "first", "last"),
                [(name, number(points[0][1]), number(points[-1][1])) for name, (points, _) in thin.items()],
            )
        )
    if validation:
        found.append(
            _curves(
                "validation-loss",
                "Validation loss",
                validation,
                "Against the whole corpus, after each epoch, on choices held out of training. The weights of the lowest point are kept. "
                "Not comparable with the training loss.",
                ("run", "lowest", "at step"),
                [(run.name, *_lowest(run.validation_loss)) for run in evaluation.trained if run.validation_loss],
                has_marks=True,
            )
        )
    return found


def batch_size_figures(evaluation: Evaluation) -> list[Figure] | Missing:
    """For each study with rows by B': the metric by the number of uniform negatives."""
    if not evaluation.studies:
        others = f" ({', '.join(evaluation.undrawn_studies)} holds no rows by B′.)" if evaluation.undrawn_studies else ""
        return Missing(f"There is no study of the number of uniform negatives B′ in this folder.{others}", STUDY)
    return [_batch_size(study, place) for place, study in enumerate(evaluation.studies)]


def _batch_size(study: BatchSizeStudy, place: int) -> Figure:
    rows = sorted(study.rows, key=lambda row: row.index_batch_size)
    estimates = [Estimate(mean=row.mean, low=row.low, high=row.high) for row in rows]
    points = tuple(point(float(x), estimate) for x, estimate in enumerate(estimates))
    series = (Series("", points, is_main=True),)
    name = metric_name(study.metric)
    chart = Chart(
        f"batch-size-{place}",
        f"{name} by B′ ({study.study})",
        summary(f"{name} by the number of uniform negatives, from {rows[0].index_batch_size:,} to {rows[-1].index_batch_size:,}", series),
        named_axis("B′, uniform negatives a batch (steps not to scale)", [f"{row.index_batch_size:,}" for row in rows]),
        linear_axis(name, [*highs(estimates), *lows(estimates)]),
        series,
    )
    caption = f"{study.split or 'One split'}. Bars are 95 % intervals over seeds, where there are several. {name} does not start at 0."
    lines = tuple((f"{row.index_batch_size:,}", *cells(estimate)) for row, estimate in zip(rows, estimates, strict=True))
    return Figure(chart, caption, ("B′", name, "95 % interval"), lines)


def _curves(
    key: str,
    title: str,
    runs: dict[str, Points],
    caption: str,
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
    *,
    has_marks: bool = False,
) -> Figure:
    """A line a run. Of very many, only the last is named."""
    last, many = len(runs) - 1, len(runs) > COLOURS
    series = tuple(
        Series(
            "" if many and place < last else name,
            tuple(Point(x, y) for x, y in points),
            0 if place == last else _OTHER_RUN + COLOURS * place,  # one grey, in different dashes and shapes
            is_main=place == last,
            has_marks=has_marks and not many,
        )
        for place, (name, points) in enumerate(runs.items())
    )
    every = [point for points in runs.values() for point in points]
    steps = linear_axis("training step", [x for x, _ in every], from_zero=True)
    y = linear_axis("loss, nats per query", [value for _, value in every])
    return Figure(Chart(key, title, summary(f"{title} by training step", series), steps, y, series), caption, columns, tuple(rows))


def _lowest(points: Points) -> tuple[str, str]:
    step, loss = min(points, key=lambda point: point[1])
    return number(loss), f"{step:,.0f}"
