"""Who is best, and is it certain? From the table where it compares them, from the ranks where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from small_report import write_evaluation

from shortlist.metrics.intervals import bootstrap_intervals
from shortlist.metrics.ranking import NOT_FOUND, recall_at
from shortlist.report.inputs import Estimate, Evaluation, read_evaluation
from shortlist.report.verdict import RESAMPLES, SEED, Verdict, ranked_queries, verdicts


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return read_evaluation(write_evaluation(tmp_path_factory.mktemp("verdict") / "e", models=("two-tower", "popularity", "ials"), runs=2))


def test_the_best_by_every_metric_that_ranks_queries(evaluation: Evaluation) -> None:
    found = verdicts(evaluation)
    assert list(found) == ["recall@10", "recall@100", "ndcg@10", "mrr@100"]  # neither per user nor of lists
    assert (found["recall@10"].best, found["recall@10"].runner_up) == ("two-tower", "popularity")
    assert found["recall@10"].ahead == {model: evaluation.table.compared.minus[model]["recall@10"] for model in ("popularity", "ials")}


def test_where_another_model_leads_the_difference_is_computed_from_the_ranks(evaluation: Evaluation) -> None:
    models = dict(evaluation.table.models)
    models["ials"] = {name: Estimate(mean=0.99) for name in models["ials"]}
    leading = replace(evaluation, table=msgspec.structs.replace(evaluation.table, models=models))
    found = verdicts(leading)["recall@10"]
    assert found.best == "ials" and found.runner_up == "two-tower" and set(found.ahead) == {"two-tower", "popularity"}
    queries = ranked_queries(evaluation.ranks, evaluation.models)  # type: ignore[arg-type]
    hits = {model: np.column_stack([recall_at(rank, 10) for rank in queries.ranks[model].T]) for model in evaluation.models}
    differences = [hits["ials"] - hits[other] for other in ("two-tower", "popularity")]
    expected = bootstrap_intervals(differences, queries.cluster, weight=queries.weight, resamples=RESAMPLES, seed=SEED)
    for lead, bounds in zip((found.ahead["two-tower"], found.ahead["popularity"]), expected, strict=True):
        assert (lead.mean, lead.low, lead.high) == pytest.approx(tuple(bounds))
    assert verdicts(replace(leading, ranks=None))["recall@10"].ahead == {}


def test_ranks_by_query_keep_queries_apart_and_trainings_together() -> None:
    rows = [
        ("t", 1, None, "a", 0, 3),
        ("t", 0, 7, "a", 0, None),
        ("s", 0, 7, "a", 0, 1),
        ("s", 0, 7, "a", 5, 2),
        ("t", 0, 7, "a", 5, 4),
        ("t", 1, None, "a", 5, None),
        ("s", 0, 7, "b", None, 9),
        ("t", 0, 7, "b", None, 8),
        ("t", 1, None, "b", None, 7),
    ]
    schema = {"split": pl.String, "query": pl.Int64, "asker": pl.Int64, "model": pl.String, "seed": pl.Int64, "rank": pl.Int64}
    found = ranked_queries(pl.DataFrame(rows, schema=schema, orient="row"), ["a", "b"])
    assert found.ranks["a"].tolist() == [[1, 2], [NOT_FOUND, 4], [3, NOT_FOUND]] and found.ranks["b"].tolist() == [[9], [8], [7]]
    assert found.weight.tolist() == [1.0, 0.5, 0.5]
    assert found.cluster[0] == found.cluster[1] == 7 and found.cluster[2] < 0  # nobody stands alone


def test_certain_is_only_what_is_above_every_other_for_certain() -> None:
    apart, close = Estimate(mean=0.2, low=0.1, high=0.3), Estimate(mean=0.1, low=-0.01, high=0.2)
    assert Verdict("recall@10", "a", "b", {"b": apart, "c": apart}).is_certain
    assert not Verdict("recall@10", "a", "b", {"b": apart, "c": close}).is_certain
    assert not Verdict("recall@10", "a", "b", {}).is_certain and Verdict("recall@10", "a", None, {}).lead is None
    assert Verdict("recall@10", "a", "b", {"b": close}).lead == close


def test_a_model_alone_has_no_runner_up(tmp_path: Path) -> None:
    found = verdicts(read_evaluation(write_evaluation(tmp_path / "e", models=("two-tower",))))["recall@100"]
    assert (found.best, found.runner_up, found.ahead, found.is_certain) == ("two-tower", None, {}, False)
