"""What the charts of an evaluation show, against the table and hand-worked ranks; and what is said where data are missing."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import polars as pl
import pytest
from small_report import write_evaluation

from shortlist.report.figures import Figure, Missing, age_figure, coverage_figure, popularity_figure, recall_by_k_figure, recall_curves
from shortlist.report.inputs import Estimate, Evaluation, read_evaluation
from shortlist.report.training_figures import batch_size_figures, training_figures


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return read_evaluation(
        write_evaluation(tmp_path_factory.mktemp("figures") / "an evaluation", models=("two-tower", "popularity", "ials"), runs=2)
    )


def figure_of(found: Figure | Missing) -> Figure:
    assert isinstance(found, Figure)
    return found


def test_recall_by_k_agrees_with_counting_ranks(evaluation: Evaluation) -> None:
    curves = recall_curves(evaluation)
    assert evaluation.ranks is not None
    for model in evaluation.models:
        for k in (1, 7, 100):
            by_split = [
                np.mean(
                    [rank is not None and rank <= k for rank in evaluation.ranks.filter(split=split.name, model=model)["rank"].to_list()]
                )
                for split in evaluation.table.splits
            ]
            assert curves[model][k - 1] == pytest.approx(np.mean(by_split))
        assert curves[model][9] == pytest.approx(evaluation.table.models[model]["recall@10"].mean)
    figure = figure_of(recall_by_k_figure(evaluation))
    assert figure.columns == ("K", *evaluation.models) and [row[0] for row in figure.rows] == ["1", "2", "5", "10", "20", "50", "100"]
    assert figure.rows[3][1] == f"{evaluation.table.models['two-tower']['recall@10'].mean:.3f}"
    assert [len(series.points) for series in figure.chart.series] == [100] * 3 and figure.chart.x.is_log


def test_a_curve_by_hand(evaluation: Evaluation) -> None:
    # two splits: one query at rank 2, and two queries at rank 1 and beyond. Recall@1 = (0 + 1/2) / 2, recall@2 = (1 + 1/2) / 2
    rows = {"split": ["s", "t", "t"], "query": [0, 0, 1], "asker": [1, 1, None], "model": ["two-tower"] * 3, "rank": [2, 1, None]}
    ranks = pl.DataFrame(rows).with_columns(seed=pl.lit(None, dtype=pl.Int64))
    table = msgspec.structs.replace(evaluation.table, models={"two-tower": evaluation.table.models["two-tower"]})
    curve = recall_curves(replace(evaluation, ranks=ranks, table=table))["two-tower"]
    assert curve[:3].tolist() == [0.25, 0.75, 0.75] and curve[-1] == 0.75


def test_bands_of_popularity_are_the_tables_slices_and_an_empty_one_is_a_gap(evaluation: Evaluation) -> None:
    figure = figure_of(popularity_figure(evaluation))
    assert [row[0] for row in figure.rows] == [*map(str, range(1, 11)), "never"]
    first = evaluation.table.slices["popularity decile 1"]
    assert figure.chart.series[0].points[0].y == first.models["two-tower"]["recall@100"].mean
    assert figure.chart.series[0].points[0].low == first.models["two-tower"]["recall@100"].low
    assert figure.chart.series[1].points[0].low is None  # intervals of the first model alone
    assert figure.rows[9] == ("10", "0", "–", "–", "–") and figure.chart.series[0].points[9].y is None
    assert figure.chart.x.ticks[-1] == (10.75, "never")  # apart, and not joined to the line
    assert [point.y is None for point in figure.chart.series[0].points[-2:]] == [True, False]


def test_bands_of_age_say_their_days(evaluation: Evaluation) -> None:
    figure = figure_of(age_figure(evaluation))
    assert [row[0] for row in figure.rows] == ["< 1", "1–7", "7–30", "30–365", "≥ 365", "never"]
    queries = [evaluation.table.slices[name].queries for name in ("item age under a day", "item never chosen before")]
    assert [figure.rows[0][1], figure.rows[-1][1]] == [str(count) for count in queries]


def test_coverage_stands_against_recall_a_point_a_model(evaluation: Evaluation) -> None:
    figure = figure_of(coverage_figure(evaluation))
    # small_report.py: coverage .9, .45 and .3
    assert [series.points[0].x for series in figure.chart.series] == pytest.approx([0.9, 0.45, 0.3])
    assert [series.points[0].y for series in figure.chart.series] == [
        evaluation.table.models[model]["recall@100"].mean for model in evaluation.models
    ]


def test_training_curves_are_those_of_the_logs(evaluation: Evaluation) -> None:
    figures = training_figures(evaluation)
    assert not isinstance(figures, Missing) and len(figures) == 2
    loss, validation = figures
    assert [series.name for series in loss.chart.series] == [f"2000-12-1{day}/seed-{seed}" for day in (6, 7) for seed in (0, 1)]
    assert loss.rows[0] == ("2000-12-16/seed-0", "7.000", "5.050")  # 5 + 20 / 10 and 5 + 20 / 400
    assert validation.rows[1] == ("2000-12-16/seed-1", "5.350", "300")  # 5.25 + .1 after the third of four epochs of 100 steps


def test_the_study_of_negatives_rises_by_number_not_by_its_order_in_the_file(evaluation: Evaluation) -> None:
    (figure,) = batch_size_figures(evaluation)
    assert figure.rows == (("0", "0.400", "[0.390, 0.410]"), ("256", "0.500", "[0.490, 0.510]"))
    assert [point.y for point in figure.chart.series[0].points] == [0.4, 0.5]


def test_what_is_missing_is_said_with_the_command_that_makes_it(evaluation: Evaluation) -> None:
    bare = replace(evaluation, ranks=None, trained=[], studies=[], undrawn_studies=["study-x.json"])
    table = msgspec.structs.replace(bare.table, slices={}, models={"m": {"recall@100": evaluation.table.models["ials"]["recall@100"]}})
    bare = replace(bare, table=table)
    said = {
        found.what: found.command
        for found in (
            popularity_figure(bare),
            age_figure(bare),
            recall_by_k_figure(bare),
            coverage_figure(bare),
            training_figures(bare),
            batch_size_figures(bare),
        )
        if isinstance(found, Missing)
    }
    assert len(said) == 6 and set(said.values()) == {
        "shortlist evaluate CONFIG --out FOLDER",
        "shortlist study table2 CONFIG --json > FOLDER/study-table2.json",
    }
    assert any("a log without times has no ages" in what for what in said) and any("study-x.json" in what for what in said)


def test_a_list_of_one_item_has_no_curve(evaluation: Evaluation) -> None:
    table = msgspec.structs.replace(evaluation.table, models={"m": {"recall@1": Estimate(mean=0.5)}})
    short = replace(evaluation, table=table)
    found = recall_by_k_figure(short)
    assert isinstance(found, Missing) and "there is no curve to draw" in found.what
