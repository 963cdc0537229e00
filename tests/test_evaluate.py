"""Ranks, slices, means and intervals of retrievers whose answers are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from shortlist import evaluate
from shortlist.catalogue import Catalogue
from shortlist.config import EvaluateSettings
from shortlist.dataset import Dataset, Examples
from shortlist.errors import DataError, ShapeError
from shortlist.evaluate import Ranked, evaluation_table, rank_positives, seen_items, slices_of
from shortlist.features.encoder import TableEncoder
from shortlist.metrics import NOT_FOUND, bootstrap_interval
from shortlist.queries import Queries, QueryEncoder


def examples_of(
    items: list[int], *, seeds: list[int] | None = None, histories: list[list[int]] | None = None, askers: list[int] | None = None
) -> Examples:
    count = len(items)
    lists = histories or [[]] * count
    ends = np.cumsum([len(line) for line in lists]).astype(np.int64)
    queries = Queries(
        np.array(seeds or [-1] * count, np.int32),
        np.full(count, -1, np.int32),
        np.array([item for line in lists for item in line], np.int32),
        ends - np.array([len(line) for line in lists], np.int64),
        ends,
    )
    asker = np.array(askers if askers is not None else range(count), np.int64)
    return Examples(queries, np.array(items, np.int32), np.ones(count, np.float32), np.arange(count), asker)


def dataset_of(counts: list[int], askers: list[int]) -> Dataset:
    """A dataset of which only the items' counts and who asked in training matter."""
    items = Catalogue(pl.DataFrame({"item": list(range(len(counts)))}), "item", "items")
    none = TableEncoder({})
    encoder = QueryEncoder(none, none, True, 0)
    return Dataset(none, encoder, items, None, {}, {}, examples_of([0] * len(askers), askers=askers), np.array(counts))


@dataclass(frozen=True)
class Scores:
    """A retriever that scores item j of every query by a fixed table, the naive way."""

    table: NDArray[np.float32]  # (M,)
    name: str = "fixed"

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for query in range(len(queries)):
            hidden = set() if exclude is None else set(exclude[query].tolist())
            best = sorted((row for row in range(len(self.table)) if row not in hidden), key=lambda row: (-self.table[row], row))[:k]
            rows[query, : len(best)], scores[query, : len(best)] = best, self.table[best]
        return rows, scores


def outcome_of(askers: list[int], split: str = "s", **slices: list[bool]) -> Any:
    return evaluate.Tested(split, np.array(askers), {name: np.array(mask) for name, mask in slices.items()}, 100, 0)


def settings(**values: Any) -> EvaluateSettings:
    return EvaluateSettings(**{"ks": (1, 3), "bootstrap": 101, **values})


# --- ranks


def test_positives_have_the_ranks_that_the_scores_say() -> None:
    retriever = Scores(np.array([0.5, 0.9, 0.1, 0.7, 0.3], np.float32))  # best first: 1, 3, 0, 4, 2
    ranked = rank_positives(retriever, examples_of([1, 0, 2, 4, 3]), 5, settings())
    assert ranked.model == "fixed"
    assert ranked.rank.tolist() == [1, 3, NOT_FOUND, NOT_FOUND, 2]  # ranks 4 and 5 are beyond the largest k
    # every list shows 1, 3, 0: one item of five at 1, three of five at 3
    assert ranked.coverage == {1: 0.2, 3: 0.6}


def test_a_model_that_cannot_tell_items_apart_scores_nothing() -> None:
    ranked = rank_positives(Scores(np.zeros(101, np.float32)), examples_of(list(range(101))), 101, settings(ks=(1, 10)))
    assert (ranked.rank == NOT_FOUND).all()


def test_a_tie_counts_against_the_model_also_at_the_edge_of_the_list() -> None:
    retriever = Scores(np.array([3, 2, 2, 1, 0], np.float32))
    ranked = rank_positives(retriever, examples_of([0, 1, 2, 3]), 5, settings(ks=(2,)))
    # three are asked for: 0, 1, 2; the tie of 1 and 2 reaches the end of the list, and might go on behind it
    assert ranked.rank.tolist() == [1, NOT_FOUND, NOT_FOUND, NOT_FOUND]
    assert rank_positives(retriever, examples_of([0, 1, 2, 3]), 5, settings(ks=(3,))).rank.tolist() == [1, 3, 3, NOT_FOUND]


def test_a_cut_off_beyond_the_corpus_ranks_everything() -> None:
    ranked = rank_positives(Scores(np.array([1, 2, 3], np.float32)), examples_of([0, 1, 2]), 3, settings(ks=(2, 50)))
    assert (ranked.rank.tolist(), ranked.coverage) == ([3, 2, 1], {2: 2 / 3, 50: 1.0})


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    examples = examples_of(rng.integers(0, 13, 101).tolist(), histories=[rng.integers(0, 13, 3).tolist() for _ in range(101)])
    retriever = Scores(rng.integers(0, 7, 13).astype(np.float32))
    for seen in ("rank", "exclude"):
        chosen = settings(seen_items=seen)
        whole = rank_positives(retriever, examples, 13, chosen)
        with monkeypatch.context() as patch:
            patch.setattr(evaluate, "_BLOCK", 7)
            parts = rank_positives(retriever, examples, 13, chosen)
        assert (parts.rank.tolist(), parts.coverage) == (whole.rank.tolist(), whole.coverage)


# --- seen items


def test_seen_are_the_seed_and_the_whole_history() -> None:
    queries = examples_of([0, 0], seeds=[4, -1], histories=[[1, 2], []]).queries
    assert [line.tolist() for line in seen_items(queries)] == [[1, 2, 4], [-1]]


def test_excluding_seen_items_lifts_the_rank_and_counts_the_repeats() -> None:
    dataset = dataset_of([1, 1, 1, 1, 1], [0])
    # best first: 4, 3, 2, 1, 0; query 0 asks for its own history, query 1 for its seed, query 2 for item 1 having seen 4 and 2
    examples = examples_of([3, 2, 1], seeds=[-1, 2, 4], histories=[[3], [], [2]], askers=[7, 8, 9])
    kept, tested = evaluate.queries_to_test(dataset, examples, settings(seen_items="exclude"), "day")
    assert (kept.item_row.tolist(), tested.asker.tolist(), tested.repeats_left_out) == ([1], [9], 2)
    retriever = Scores(np.arange(5, dtype=np.float32))
    assert rank_positives(retriever, kept, 5, settings(seen_items="exclude")).rank.tolist() == [2]  # 3, 1
    everything, all_tested = evaluate.queries_to_test(dataset, examples, settings(), "day")
    assert (len(everything), len(all_tested), all_tested.repeats_left_out) == (3, 3, 0)
    assert rank_positives(retriever, everything, 5, settings(ks=(4,))).rank.tolist() == [2, 3, 4]


def test_a_split_of_repeats_alone_is_an_error_and_not_a_mean_of_nothing() -> None:
    with pytest.raises(DataError, match=r"split day needs a query to test: got none, 2 left out .* seen_items \(now \"exclude\"\)"):
        evaluate.queries_to_test(dataset_of([1, 1], [0]), examples_of([0, 1], histories=[[0], [1]]), settings(seen_items="exclude"), "day")


# --- slices


def test_head_mid_and_tail_by_hand() -> None:
    # 12 choices: items 3, 1, 0, 4, 5 were chosen 4, 3, 2, 2, 1 times, item 2 never.
    # Above them stand 0, 4, 7, 9, 11 choices: 0 < 4 head; 4 <= 4, 7 < 8 mid; 9, 11 tail.
    slices = slices_of(dataset_of([2, 3, 0, 4, 2, 1], [0]), examples_of([0, 1, 2, 3, 4, 5]))
    bands = {name: np.flatnonzero(mask).tolist() for name, mask in slices.items() if name.endswith("items")}
    assert bands == {"head items": [3], "mid items": [0, 1], "tail items": [4, 5], "unseen items": [2]}


def test_an_item_on_the_border_belongs_to_the_higher_band() -> None:
    # 3 choices; above stand 0, 1, 2 of them; the first begins in the head and ends on its border
    slices = slices_of(dataset_of([1, 1, 1], [0]), examples_of([0, 1, 2]))
    assert [np.flatnonzero(slices[name]).tolist() for name in ("head items", "mid items", "tail items")] == [[0], [1], [2]]
    # one item drew nearly all: it is head alone, and no item is mid
    slices = slices_of(dataset_of([9, 1], [0]), examples_of([0, 1]))
    assert [np.flatnonzero(slices[name]).tolist() for name in ("head items", "mid items", "tail items")] == [[0], [], [1]]


def test_every_query_is_in_one_band_and_one_kind_of_user() -> None:
    rng = np.random.default_rng(6)
    dataset = dataset_of(rng.integers(0, 5, 53).tolist(), [1, 2, 3])
    slices = slices_of(dataset, examples_of(rng.integers(0, 53, 211).tolist(), askers=rng.integers(-1, 6, 211).tolist()))
    assert (np.sum([mask for name, mask in slices.items() if name.endswith("items")], axis=0) == 1).all()
    assert (slices["known users"] ^ slices["unseen users"]).all()


def test_nobody_is_not_a_known_user() -> None:
    slices = slices_of(dataset_of([1], [5, -1]), examples_of([0, 0, 0], askers=[5, 6, -1]))
    assert (slices["known users"].tolist(), slices["unseen users"].tolist()) == ([True, False, False], [False, True, True])


# --- the table


def ranked_of(ranks: list[int], model: str = "m", coverage: float = 0.5) -> Ranked:
    return Ranked(model, np.array(ranks), {1: coverage, 3: coverage})


def test_every_split_weighs_alike_however_many_queries_it_has() -> None:
    tested = [outcome_of([1, 2, 3, 4], "mon"), outcome_of([1], "tue")]
    ranked = [[ranked_of([1, 2, 4, NOT_FOUND], coverage=0.25)], [ranked_of([1], coverage=0.75)]]
    table = evaluation_table(tested, ranked, settings(), corpus_size=10)
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
    table = evaluation_table([outcome_of([1])], [[ranked_of([3])]], settings(), corpus_size=10)
    assert set(table["models"]["m"]) == {"recall@1", "recall@3", "ndcg@1", "mrr@3", "coverage@1", "coverage@3"}
    assert table["models"]["m"]["mrr@3"]["mean"] == pytest.approx(1 / 3)


def test_slices_hold_their_own_queries_and_an_empty_one_no_number() -> None:
    tested = [outcome_of([1, 2, 3], head=[True, False, True], none=[False] * 3), outcome_of([4], head=[True], none=[False])]
    table = evaluation_table(tested, [[ranked_of([1, 1, 9])], [ranked_of([1])]], settings(), corpus_size=10)
    # head: queries of ranks 1 and 9 weigh 1/3 each, the one of the second split 1: (1/3 + 1) / (5/3) = .8
    assert table["slices"]["head"]["queries"] == 3
    assert table["slices"]["head"]["models"]["m"]["recall@1"]["mean"] == pytest.approx(0.8)
    assert table["slices"]["none"] == {"queries": 0, "models": {}}


def test_a_user_keeps_their_queries_of_all_splits_and_nobody_stands_alone() -> None:
    ranks = [1, 9, 1, 9, 1, 1]
    same = evaluation_table(
        [outcome_of([5] * 3), outcome_of([5] * 3)], [[ranked_of(ranks[:3])], [ranked_of(ranks[3:])]], settings(), corpus_size=9
    )
    interval = same["models"]["m"]["recall@1"]
    assert interval["low"] == interval["high"] == interval["mean"] == pytest.approx(4 / 6)  # one user: every resample is the log
    nobody = evaluation_table([outcome_of([-1] * 6)], [[ranked_of(ranks)]], settings(), corpus_size=9)["models"]["m"]["recall@1"]
    alone = evaluation_table([outcome_of(list(range(6)))], [[ranked_of(ranks)]], settings(), corpus_size=9)["models"]["m"]["recall@1"]
    assert nobody["low"] < nobody["mean"] < nobody["high"]
    hits = np.array([1.0, 0, 1, 0, 1, 1])
    expected = bootstrap_interval(hits, None, resamples=101, seed=0)
    assert (alone["mean"], alone["low"], alone["high"]) == pytest.approx(tuple(expected))


def test_models_stay_apart_and_the_table_is_json() -> None:
    ranked = [[ranked_of([1, 9], "good"), ranked_of([9, 9], "bad")]]
    table = evaluation_table([outcome_of([1, 2], x=[True, False])], ranked, settings(), corpus_size=10)
    assert {name: model["recall@1"]["mean"] for name, model in table["models"].items()} == {"good": 0.5, "bad": 0.0}
    assert json.loads(json.dumps(table)) == table
    assert not any(math.isnan(value) for model in table["models"].values() for metric in model.values() for value in metric.values())


def test_the_same_seed_gives_the_same_intervals() -> None:
    ranks = np.random.default_rng(0).integers(1, 6, 101).tolist()
    tables = [
        evaluation_table([outcome_of(list(range(101)))], [[ranked_of(ranks)]], settings(seed=seed), corpus_size=9) for seed in (1, 1, 2)
    ]
    assert tables[0] == tables[1] != tables[2]


def test_two_models_of_one_name_or_in_another_order_are_refused() -> None:
    a, b = ranked_of([1], "a"), ranked_of([2], "b")
    for ranked in ([[a, a]], [[a, b], [b, a]], [[a, b], [a]]):
        with pytest.raises(ShapeError, match="every split must list the same models, each once, in one order: got"):
            evaluation_table([outcome_of([1])] * len(ranked), ranked, settings(), corpus_size=9)
