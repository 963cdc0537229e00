"""The tables by hand numbers: two splits of 2 and 4 queries, two trainings, lists of at most 2."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_evaluation import outcome_of

from shortlist import evaluate
from shortlist.sections import EvaluateSettings
from shortlist.study.on_splits import Outcome
from shortlist.study.paper import BATCH, MLP, MNS, TABLE1, TABLE2, ratios
from shortlist.study.table1 import beside_the_paper
from shortlist.study.table2 import rows_at_fixed_batch, sizes
from shortlist.study.tables import Results, heading, minus, of_model, over_seeds, results_of
from shortlist.study.trials import Trial

SETTINGS = EvaluateSettings(ks=(1, 2), bootstrap=50)


def one_split(name: str, chosen: list[bool]) -> evaluate.Tested:
    slices = {"head items": chosen, "unseen items": [not was for was in chosen], "mid items": chosen, "tail items": [False] * len(chosen)}
    askers = [11, -1, 13, -1][: len(chosen)]
    return replace(outcome_of(askers, name, **slices), decile=np.array([1 if was else 0 for was in chosen]))


def trial(ranks: list[int | None], among: list[int | None] | None = None, commit: str | None = None, seconds: float = 1.0) -> Trial:
    return Trial(
        ranks=ranks,
        ranks_among_chosen=among or ranks,
        lists={"coverage@2": 0.5, "never_chosen_share@2": 0.25, "never_chosen_of_corpus": 0.5},
        fit_seconds=seconds,
        test_seconds=0.5,
        commit=commit,
        epochs=3,
        negatives=10,
    )


@pytest.fixture
def results() -> Results:
    first, second = one_split("first", [True, False]), one_split("second", [True, True, True, False])
    good = [
        [trial([1, 2], seconds=2.0), trial([1, 2, None, None], commit="a")],  # seed 0 on both splits
        [trial([1, None], seconds=4.0), trial([1, 2, 2, None], commit="b")],
    ]
    base = [[trial([2, None], [1, None]), trial([None, 2, None, None], [1, 2, None, None])]]
    return results_of(Outcome([first, second], {"good": good, "base": base}), SETTINGS)


def test_splits_weigh_alike_and_seeds_are_apart(results: Results) -> None:
    # recall@2, seed 0: (2/2 + 2/4) / 2 = .75; seed 1: (1/2 + 3/4) / 2 = .625
    assert results.mean_of_seeds(results.metrics("good")["recall@2"]) == [0.75, 0.625]
    # ndcg@1: seeds 0 and 1 have rank 1 in the first query of each split: (1/2 + 1/4) / 2
    assert results.mean_of_seeds(results.metrics("good")["ndcg@1"]) == [0.375, 0.375]


def test_the_facts_of_a_model_by_hand(results: Results) -> None:
    found = of_model(results, "good")
    assert found["metrics"]["recall@2"]["mean"] == 0.6875 and found["seeds"] == 2
    # slice of chosen items: weights 1/2 (first split) and three of 1/4; seed 0 hits 1/2 + 1/4 + 1/4, seed 1 all: 1 / 1.25 = .8 and 1
    assert found["slices"]["head items"]["mean"] == pytest.approx(0.9)
    assert "tail items" not in found["slices"]  # nobody asked for one
    assert found["fit_seconds"] == 2.0 and found["best_epoch"] == 3 and found["negatives_per_row"] == 10
    assert found["lists"] == {"coverage@2": 0.5} and found["never_chosen"]["never_chosen_share@2"] == 0.25


def test_differences_by_hand_with_a_baseline_of_one_seed(results: Results) -> None:
    found = minus(results, "good", ["good", "base"])
    assert list(found) == ["base"]
    # base, recall@2: (1/2 + 1/4) / 2 = .375; good .6875
    assert found["base"]["metrics"]["recall@2"]["mean"] == pytest.approx(0.3125)
    assert found["base"]["metrics"]["recall@2"]["queries"] == 6
    assert found["base"]["slices"]["unseen items"]["queries"] == 2 and "tail items" not in found["base"]["slices"]


def test_what_comes_through_never_chosen_items_by_hand(results: Results) -> None:
    never = minus(results, "good", ["base"])["base"]["never_chosen"]
    # chosen items weigh 1/2, 1/4, 1/4, 1/4. base hits 1/2 + 1/4 of 1.25 = .6; among chosen items 1/2 + 1/4 + 1/4 = .8; good .9 in both
    assert never["recall@2 of chosen items"]["mean"] == pytest.approx(0.3)
    assert never["recall@2 of chosen items, among chosen items"]["mean"] == pytest.approx(0.1)
    assert never["through_never_chosen"]["mean"] == pytest.approx(0.2)


def test_the_interval_over_seeds_is_students_by_hand() -> None:
    # mean 2, deviation 1, three seeds: t(.975, 2) = 4.30265; half-width 4.30265 / sqrt(3) = 2.48414
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["sd"] == 1
    assert math.isclose(found["high"] - 2, 2.48414, abs_tol=1e-4) and math.isclose(2 - found["low"], 2.48414, abs_tol=1e-4)
    assert over_seeds([0.5]) == {"mean": 0.5}


def test_the_heading_names_every_commit_that_made_a_trial(results: Results) -> None:
    found = heading(results)
    assert found["commits"] == [None, "a", "b"] or found["commits"] == ["a", "b", None]
    assert found["splits"] == ["first", "second"] and found["queries"] == 6
    assert found["slice_queries"] == {"head items": 4, "unseen items": 2, "mid items": 4, "tail items": 0}


def single(name: str, ranks: list[int | None]) -> tuple[str, list[list[Trial]]]:
    return name, [[trial(ranks)]]


def test_ratios_stand_beside_the_papers() -> None:
    settings = EvaluateSettings(ks=(10, 100), bootstrap=5)
    outcome = Outcome([one_split("one", [True] * 4)], dict([single(MLP, [1, 5, 50, None]), single(BATCH, [1, None, None, None])]))
    found = beside_the_paper(results_of(outcome, settings))
    batch = found[f"{BATCH} / {MLP}"]
    assert batch["recall@10"] == {"paper": pytest.approx(0.3987 / 0.4283), "ours": 0.5}
    assert batch["recall@100"]["ours"] == pytest.approx(1 / 3) and "ours" not in batch["recall@50"]
    assert all(list(metric) == ["paper"] for metric in found[f"{MNS} / {MLP}"].values())  # it was not trained here


def test_a_ratio_to_nothing_is_left_out() -> None:
    outcome = Outcome([one_split("one", [True] * 2)], dict([single("a", [None, None]), single("b", [1, 1])]))
    found = ratios({"a": {"recall@1": 0.4}, "b": {"recall@1": 0.2}}, results_of(outcome, SETTINGS), "a")
    assert found == {"b / a": {"recall@1": {"paper": 0.5}}}


def test_the_papers_own_claims_follow_from_the_numbers_kept() -> None:
    # "-12.7 %" and "+2.9 %" at Recall@100; the best B' is 8192 in every column
    assert TABLE1[BATCH]["recall@100"] / TABLE1[MLP]["recall@100"] == pytest.approx(1 - 0.127, abs=5e-4)
    assert TABLE1[MNS]["recall@100"] / TABLE1[MLP]["recall@100"] == pytest.approx(1.029, abs=5e-4)
    assert {max(TABLE2, key=lambda size, name=name: TABLE2[size][name]) for name in TABLE2[1024]} == {8192}
    assert TABLE2[1024] == TABLE1[MNS]


def test_rows_by_b_prime_leave_out_what_was_not_trained() -> None:
    outcome = Outcome([one_split("one", [True] * 2)], dict([single(sizes(8, 0), [1, None]), single(sizes(8, 4), [1, 2])]))
    drawn = rows_at_fixed_batch(results_of(outcome, SETTINGS), 8, (0, 4, 16))
    assert drawn["metric"] == "recall@2" and drawn["split"] == "one"
    assert drawn["rows"] == [{"index_batch_size": 0, "batch_size": 8, "mean": 0.5}, {"index_batch_size": 4, "batch_size": 8, "mean": 1.0}]
