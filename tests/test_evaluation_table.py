"""Means, intervals and differences of ranks that are known, and the frame of all ranks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from small_evaluation import outcome_of, settings_of

from shortlist.errors import ShapeError
from shortlist.evaluate import Ranked
from shortlist.evaluation_table import evaluation_table, ranks_frame
from shortlist.metrics.intervals import bootstrap_interval, paired_interval
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.slices import NEVER


def ranked_of(ranks: list[int], model: str = "m", coverage: float = 0.5) -> Ranked:
    return Ranked(model, np.array(ranks), {"coverage@1": coverage, "coverage@3": coverage})


def test_every_split_weighs_alike_however_many_queries_it_has() -> None:
    tested = [outcome_of([1, 2, 3, 4], "mon"), outcome_of([1], "tue")]
    ranked = [[ranked_of([1, 2, 4, NOT_FOUND], coverage=0.25)], [ranked_of([1], coverage=0.75)]]
    table = evaluation_table(tested, ranked, settings_of())
    found = table["models"]["m"]
    # recall@1: monday 1/4, tuesday 1 -> (.25 + 1) / 2; recall@3: 2/4 and 1
    assert found["recall@1"]["mean"] == pytest.approx(0.625) and found["recall@3"]["mean"] == pytest.approx(0.75)
    # mrr@3: monday (1 + 1/2) / 4 = .375, tuesday 1; ndcg@1 = recall@1
    assert found["mrr@3"]["mean"] == pytest.approx(0.6875) and found["ndcg@1"]["mean"] == pytest.approx(0.625)
    assert found["coverage@1"] == {"mean": 0.5}
    assert found["recall@1"]["queries"] == table["queries"] == 5
    by_split = [split["models"]["m"]["recall@1"] for split in table["splits"]]
    assert by_split == [0.25, 1.0] and np.mean(by_split) == pytest.approx(found["recall@1"]["mean"])
    assert [split["name"] for split in table["splits"]] == ["mon", "tue"]


def test_ndcg_is_of_the_smallest_and_mrr_of_the_largest_cut_off() -> None:
    table = evaluation_table([outcome_of([1])], [[ranked_of([3])]], settings_of())
    assert set(table["models"]["m"]) == {
        *("recall@1", "recall@3", "ndcg@1", "mrr@3", "recall_per_user@1", "recall_per_user@3", "coverage@1", "coverage@3")
    }
    assert table["models"]["m"]["mrr@3"]["mean"] == pytest.approx(1 / 3)


def test_slices_hold_their_own_queries_and_an_empty_one_no_number() -> None:
    tested = [outcome_of([1, 2, 3], head=[True, False, True], none=[False] * 3), outcome_of([4], head=[True], none=[False])]
    table = evaluation_table(tested, [[ranked_of([1, 1, 9])], [ranked_of([1])]], settings_of())
    # head: queries of ranks 1 and 9 weigh 1/3 each, the one of the second split 1: (1/3 + 1) / (5/3) = .8
    assert table["slices"]["head"]["queries"] == 3
    assert table["slices"]["head"]["models"]["m"]["recall@1"]["mean"] == pytest.approx(0.8)
    assert table["slices"]["none"] == {"queries": 0, "models": {}}


def test_a_user_keeps_their_queries_of_all_splits_and_nobody_stands_alone() -> None:
    ranks = [1, 9, 1, 9, 1, 1]
    same = evaluation_table([outcome_of([5] * 3), outcome_of([5] * 3)], [[ranked_of(ranks[:3])], [ranked_of(ranks[3:])]], settings_of())
    interval = same["models"]["m"]["recall@1"]
    assert interval["low"] == interval["high"] == interval["mean"] == pytest.approx(4 / 6)  # one user: every resample is the log
    nobody = evaluation_table([outcome_of([-1] * 6)], [[ranked_of(ranks)]], settings_of())["models"]["m"]["recall@1"]
    alone = evaluation_table([outcome_of(list(range(6)))], [[ranked_of(ranks)]], settings_of())["models"]["m"]["recall@1"]
    assert nobody["low"] < nobody["mean"] < nobody["high"]
    hits = np.array([1.0, 0, 1, 0, 1, 1])
    expected = bootstrap_interval(hits, None, resamples=101, seed=0)
    assert (alone["mean"], alone["low"], alone["high"]) == pytest.approx(tuple(expected))


def test_models_stay_apart_and_the_table_is_json() -> None:
    ranked = [[ranked_of([1, 9], "good"), ranked_of([9, 9], "bad")]]
    table = evaluation_table([outcome_of([1, 2], x=[True, False])], ranked, settings_of())
    assert {name: model["recall@1"]["mean"] for name, model in table["models"].items()} == {"good": 0.5, "bad": 0.0}
    assert json.loads(json.dumps(table)) == table
    assert not any(math.isnan(value) for model in table["models"].values() for metric in model.values() for value in metric.values())


def test_the_same_seed_gives_the_same_intervals() -> None:
    ranks = np.random.default_rng(0).integers(1, 6, 101).tolist()
    tables = [evaluation_table([outcome_of(list(range(101)))], [[ranked_of(ranks)]], settings_of(seed=seed)) for seed in (1, 1, 2)]
    assert tables[0] == tables[1] != tables[2]


def test_two_models_of_one_name_or_in_another_order_are_refused() -> None:
    a, b = ranked_of([1], "a"), ranked_of([2], "b")
    for ranked in ([[a, a]], [[a, b], [b, a]], [[a, b], [a]]):
        with pytest.raises(ShapeError, match="every split must list the same models, each once, in one order: got"):
            evaluation_table([outcome_of([1])] * len(ranked), ranked, settings_of())


def test_a_user_with_many_choices_weighs_no_more_than_one_with_few() -> None:
    # monday: user 5 finds 2 of 3, user 6 none of 1, nobody (alone) 1 of 1 -> (2/3 + 0 + 1) / 3 = 5/9; tuesday: user 5 finds 0 of 2
    tested = [outcome_of([5, 6, 5, 5, -1]), outcome_of([5, 5])]
    found = evaluation_table(tested, [[ranked_of([1, 9, 9, 3, 2])], [ranked_of([NOT_FOUND, 4])]], settings_of())["models"]["m"]
    assert found["recall_per_user@3"]["mean"] == pytest.approx((5 / 9 + 0) / 2)
    assert found["recall_per_user@3"]["users"] == 4  # user 5 once a split
    assert found["recall@3"]["mean"] == pytest.approx((3 / 5 + 0) / 2)


def test_two_strangers_in_a_split_are_two_users() -> None:
    found = evaluation_table([outcome_of([-1, -1])], [[ranked_of([1, 9])]], settings_of())["models"]["m"]
    assert (found["recall_per_user@1"]["mean"], found["recall_per_user@1"]["users"]) == (0.5, 2)


def test_the_first_model_is_compared_with_every_other_on_the_same_queries() -> None:
    random = np.random.default_rng(3)
    ranks = {name: random.integers(1, 6, 31) for name in ("a", "b", "c")}
    asker = random.integers(0, 7, 31)
    ranked = [[Ranked(name, rank) for name, rank in ranks.items()]]
    compared = evaluation_table([outcome_of(asker.tolist())], ranked, settings_of(seed=5))["compared"]
    assert compared["model"] == "a" and list(compared["minus"]) == ["b", "c"]
    for other in ("b", "c"):
        hits, others_hits = (ranks[name] <= 3 for name in ("a", other))
        expected = paired_interval(hits.astype(float), others_hits.astype(float), asker, resamples=101, seed=5)
        found = compared["minus"][other]["recall@3"]
        assert (found["mean"], found["low"], found["high"], found["queries"]) == pytest.approx((*expected, 31))


def test_a_model_alone_is_compared_with_nobody() -> None:
    assert evaluation_table([outcome_of([1])], [[ranked_of([1])]], settings_of())["compared"] == {"model": "m", "minus": {}}


def test_a_metric_of_lists_that_one_split_lacks_is_left_out() -> None:
    ranked = [[Ranked("m", np.array([1]), {"gini@1": 0.25, "novelty@1": 3.0})], [Ranked("m", np.array([1]), {"gini@1": 0.75})]]
    found = evaluation_table([outcome_of([1]), outcome_of([1])], ranked, settings_of())["models"]["m"]
    assert found["gini@1"] == {"mean": 0.5} and "novelty@1" not in found


def test_every_rank_is_a_row_of_the_frame() -> None:
    monday = replace(
        outcome_of([7, -1], "mon"),
        item_row=np.array([3, 0], np.int32),
        decile=np.array([10, 0]),
        item_age_us=np.array([36 * 3_600_000_000, NEVER]),
    )
    ranked = [[ranked_of([1, NOT_FOUND], "a"), ranked_of([4, 2], "b")], [ranked_of([5], "a"), ranked_of([6], "b")]]
    frame = ranks_frame([monday, outcome_of([7], "tue")], ranked)
    columns = ["split", "query", "asker", "item_row", "item_id", "model", "seed", "rank", "popularity_decile", "item_age_days"]
    assert frame.columns == columns
    assert frame.rows() == [
        ("mon", 0, 7, 3, 30, "a", None, 1, 10, 1.5),
        ("mon", 1, None, 0, 0, "a", None, None, None, None),
        ("mon", 0, 7, 3, 30, "b", None, 4, 10, 1.5),
        ("mon", 1, None, 0, 0, "b", None, 2, None, None),
        ("tue", 0, 7, 0, 0, "a", None, 5, None, None),
        ("tue", 0, 7, 0, 0, "b", None, 6, None, None),
    ]


def test_the_frame_holds_what_the_table_says() -> None:
    random = np.random.default_rng(8)
    ranks = [random.choice([1, 2, 3, 4, NOT_FOUND], size) for size in (13, 29)]
    tested = [outcome_of(random.integers(0, 5, len(rank)).tolist(), str(len(rank))) for rank in ranks]
    ranked = [[Ranked("m", rank)] for rank in ranks]
    by_split = ranks_frame(tested, ranked).group_by("split").agg((pl.col("rank") <= 3).fill_null(False).mean().alias("recall"))
    table = evaluation_table(tested, ranked, settings_of())
    assert dict(by_split.rows()) == pytest.approx({split["name"]: split["models"]["m"]["recall@3"] for split in table["splits"]})


def test_a_model_with_several_trainings_has_their_mean_and_what_each_came_to() -> None:
    tested = [outcome_of([1, 2, 3, 4], "mon"), outcome_of([1], "tue")]
    entries = [[[1, 9, 9, 9], [1, 1, 9, 9]], [[9], [1]]]  # for each split, the ranks of seeds 5 and 6
    plain = [[9, 9, 9, 1], [9]]
    ranked = [
        [replace(ranked_of(ranks, "m", 0.2 * seed), seed=seed) for seed, ranks in zip((5, 6), split, strict=True)] + [ranked_of(other, "p")]
        for split, other in zip(entries, plain, strict=True)
    ]
    table = evaluation_table(tested, ranked, settings_of())
    found = table["models"]["m"]["recall@1"]
    # seed 5: (1/4 + 0) / 2 = .125; seed 6: (2/4 + 1) / 2 = .75
    assert found["seeds"] == pytest.approx([0.125, 0.75]) and found["mean"] == pytest.approx(0.4375) and found["queries"] == 5
    assert "seeds" not in table["models"]["p"]["recall@1"] and table["seeds"] == [5, 6]
    assert table["interval"] == "95 %, bootstrap over users and training seeds, 101 resamples"
    assert table["splits"][0]["models"]["m"]["recall@1"] == pytest.approx(3 / 8)
    assert table["models"]["m"]["coverage@1"]["mean"] == pytest.approx(1.1)  # (1.0 + 1.2) / 2: given, not counted
    minus = table["compared"]["minus"]["p"]["recall@1"]  # p: (1/4 + 0) / 2 = .125
    assert minus["mean"] == pytest.approx(0.3125) and minus["seeds"] == pytest.approx([0.0, 0.625])
    per_user = table["models"]["m"]["recall_per_user@1"]
    assert per_user["seeds"] == pytest.approx([0.125, 0.75]) and per_user["users"] == 5
    frame = ranks_frame(tested, ranked)
    assert frame.filter(split="tue").select("model", "seed", "rank").rows() == [("m", 5, 9), ("m", 6, 1), ("p", None, 9)]
    assert json.loads(json.dumps(table)) == table


def test_what_was_tuned_is_told_by_split() -> None:
    ranked = [[ranked_of([1], "m"), replace(ranked_of([1], "ials"), tuned={"factors": 64})]]
    table = evaluation_table([outcome_of([1])], ranked, settings_of())
    assert table["splits"][0]["tuned"] == {"ials": {"factors": 64}}


def test_splits_of_different_seeds_are_refused() -> None:
    ranked = [[replace(ranked_of([1]), seed=seed)] for seed in (0, 1)]
    with pytest.raises(ShapeError, match="every split must list the same models"):
        evaluation_table([outcome_of([1])] * 2, ranked, settings_of())
