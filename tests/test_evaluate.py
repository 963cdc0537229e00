"""Which queries count, and ranks of retrievers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from small_evaluation import Scores, dataset_of, examples_of, settings_of

from shortlist import evaluate
from shortlist.errors import DataError
from shortlist.evaluate import queries_to_test, rank_positives
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.unlisted import seen_items, treatment_of_repeats

# --- ranks


def test_positives_have_the_ranks_that_the_scores_say() -> None:
    retriever = Scores(np.array([0.5, 0.9, 0.1, 0.7, 0.3], np.float32))  # best first: 1, 3, 0, 4, 2
    ranked = rank_positives(retriever, examples_of([1, 0, 2, 4, 3]), 5, settings_of())
    assert ranked.model == "fixed"
    assert ranked.rank.tolist() == [1, 3, NOT_FOUND, NOT_FOUND, 2]  # ranks 4 and 5 are beyond the largest k
    # every list shows 1, 3, 0: one item of five at 1, three of five at 3. Gini: one of five shown, (5 - 1) / 5; exposures
    # 0 0 5 5 5: sum (2i - 6) x = 5 * (0 + 2 + 4) = 30, M * sum = 75
    assert ranked.of_lists == {"coverage@1": 0.2, "gini@1": 0.8, "coverage@3": 0.6, "gini@3": 0.4}


def test_a_model_that_cannot_tell_items_apart_scores_nothing() -> None:
    ranked = rank_positives(Scores(np.zeros(101, np.float32)), examples_of(list(range(101))), 101, settings_of(ks=(1, 10)))
    assert (ranked.rank == NOT_FOUND).all()


def test_a_tie_counts_against_the_model_also_at_the_edge_of_the_list() -> None:
    retriever = Scores(np.array([3, 2, 2, 1, 0], np.float32))
    ranked = rank_positives(retriever, examples_of([0, 1, 2, 3]), 5, settings_of(ks=(2,)))
    # three are asked for: 0, 1, 2; the tie of 1 and 2 reaches the end of the list, and might go on behind it
    assert ranked.rank.tolist() == [1, NOT_FOUND, NOT_FOUND, NOT_FOUND]
    assert rank_positives(retriever, examples_of([0, 1, 2, 3]), 5, settings_of(ks=(3,))).rank.tolist() == [1, 3, 3, NOT_FOUND]


def test_a_cut_off_beyond_the_corpus_ranks_everything() -> None:
    ranked = rank_positives(Scores(np.array([1, 2, 3], np.float32)), examples_of([0, 1, 2]), 3, settings_of(ks=(2, 50)))
    assert (ranked.rank.tolist(), ranked.of_lists["coverage@2"], ranked.of_lists["coverage@50"]) == ([3, 2, 1], 2 / 3, 1.0)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    examples = examples_of(rng.integers(0, 13, 101).tolist(), histories=[rng.integers(0, 13, 3).tolist() for _ in range(101)])
    retriever = Scores(rng.integers(0, 7, 13).astype(np.float32))
    for seen in ("rank", "exclude"):
        chosen = settings_of(seen_items=seen)
        whole = rank_positives(retriever, examples, 13, chosen)
        with monkeypatch.context() as patch:
            patch.setattr(evaluate, "_BLOCK", 7)
            parts = rank_positives(retriever, examples, 13, chosen)
        assert (parts.rank.tolist(), parts.of_lists) == (whole.rank.tolist(), whole.of_lists)


# --- seen items


def test_seen_are_the_seed_and_the_whole_history() -> None:
    queries = examples_of([0, 0], seeds=[4, -1], histories=[[1, 2], []]).queries
    assert [line.tolist() for line in seen_items(queries)] == [[1, 2, 4], [-1]]


def test_excluding_seen_items_lifts_the_rank_and_counts_the_repeats() -> None:
    dataset = dataset_of([1, 1, 1, 1, 1], [0])
    # best first: 4, 3, 2, 1, 0; query 0 asks for its own history, query 1 for its seed, query 2 for item 1 having seen 4 and 2
    examples = examples_of([3, 2, 1], seeds=[-1, 2, 4], histories=[[3], [], [2]], askers=[7, 8, 9])
    kept, tested = queries_to_test(dataset, examples, settings_of(seen_items="exclude"), "day")
    assert (kept.item_row.tolist(), tested.asker.tolist(), tested.repeats_left_out) == ([1], [9], 2)
    retriever = Scores(np.arange(5, dtype=np.float32))
    assert rank_positives(retriever, kept, 5, settings_of(seen_items="exclude")).rank.tolist() == [2]  # 3, 1
    everything, all_tested = queries_to_test(dataset, examples, settings_of(), "day")
    assert (len(everything), len(all_tested), all_tested.repeats_left_out) == (3, 3, 0)
    assert rank_positives(retriever, everything, 5, settings_of(ks=(4,))).rank.tolist() == [2, 3, 4]


def test_excluding_the_seed_leaves_the_history_where_it_is() -> None:
    dataset, retriever = dataset_of([1, 1, 1, 1, 1], [0]), Scores(np.arange(5, dtype=np.float32))  # best first: 4, 3, 2, 1, 0
    # query 0 asks for its own history, query 1 for its seed, query 2 for item 1 having seen 2 and looking at 4
    examples = examples_of([3, 2, 1], seeds=[-1, 2, 4], histories=[[3], [], [2]], askers=[7, 8, 9])
    settings = settings_of(seen_items="exclude_seed", ks=(4,))
    kept, tested = queries_to_test(dataset, examples, settings, "day")
    assert (kept.item_row.tolist(), tested.repeats_left_out, treatment_of_repeats(settings)) == ([3, 1], 1, "keep")
    assert rank_positives(retriever, kept, 5, settings).rank.tolist() == [2, 3]
    new, _ = queries_to_test(dataset, examples, settings_of(seen_items="exclude_seed", repeats="drop"), "day")
    assert new.item_row.tolist() == [1]
    _, apart = queries_to_test(dataset, examples, settings_of(seen_items="exclude_seed", repeats="apart"), "day")
    assert apart.slices["repeats"].tolist() == [True, False]


def test_a_split_of_repeats_alone_is_an_error_and_not_a_mean_of_nothing() -> None:
    with pytest.raises(DataError, match=r"split day needs a query to test: got none, 2 left out .* seen_items \(now \"exclude\"\)"):
        queries_to_test(dataset_of([1, 1], [0]), examples_of([0, 1], histories=[[0], [1]]), settings_of(seen_items="exclude"), "day")


# --- repeats


REPEATS = examples_of([3, 2, 1, 4], seeds=[-1, 2, 4, -1], histories=[[3], [], [2], [1, 2]], askers=[7, 8, 9, 9])  # the first two


@pytest.mark.parametrize(
    ("values", "treatment"),
    [
        ({}, "keep"),
        ({"repeats": "keep"}, "keep"),
        ({"repeats": "drop"}, "drop"),
        ({"repeats": "apart"}, "apart"),
        ({"seen_items": "exclude"}, "drop"),
        ({"seen_items": "exclude", "repeats": "drop"}, "drop"),
    ],
)
def test_repeats_are_kept_unless_the_settings_or_the_lists_rule_them_out(values: dict[str, str], treatment: str) -> None:
    assert treatment_of_repeats(settings_of(**values)) == treatment
    kept, tested = queries_to_test(dataset_of([1] * 5, [0]), REPEATS, settings_of(**values), "day")
    if treatment == "drop":
        assert (kept.item_row.tolist(), tested.repeats_left_out, len(tested)) == ([1, 4], 2, 2)
    else:
        assert (kept.item_row.tolist(), tested.repeats_left_out, len(tested)) == ([3, 2, 1, 4], 0, 4)
    apart = {name: mask.tolist() for name, mask in tested.slices.items() if name in ("repeats", "new choices")}
    expected = {"repeats": [True, True, False, False], "new choices": [False, False, True, True]} if treatment == "apart" else {}
    assert apart == expected


def test_dropping_repeats_leaves_the_lists_as_they_are() -> None:
    dataset, retriever = dataset_of([1] * 5, [0]), Scores(np.arange(5, dtype=np.float32))  # best first: 4, 3, 2, 1, 0
    kept, _ = queries_to_test(dataset, REPEATS, settings_of(repeats="drop"), "day")
    # item 1, seen 4 and 2: ranked 4th of all, 2nd where what was seen is left out
    assert rank_positives(retriever, kept, 5, settings_of(ks=(4,), repeats="drop")).rank.tolist() == [4, 1]
    assert rank_positives(retriever, kept, 5, settings_of(ks=(4,), seen_items="exclude")).rank.tolist() == [2, 1]


def test_items_and_bands_of_the_queries_are_those_that_are_left() -> None:
    _, tested = queries_to_test(dataset_of([0, 9, 0, 5, 1], [0]), REPEATS, settings_of(repeats="drop"), "day")
    assert (tested.item_row.tolist(), tested.decile.tolist()) == ([1, 4], [1, 10])  # of 15 choices, none and 14 stand above


# --- lists


def test_novelty_and_similarity_are_reported_where_they_can_be() -> None:
    retriever = Scores(np.array([3, 2, 1], np.float32))
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    ranked = rank_positives(retriever, examples_of([0, 2]), 3, settings_of(), item_counts=np.array([3, 1, 1]), vectors=vectors)
    # one added: shares 4/8, 2/8, 2/8 -> 1, 2 and 2 bits; pairs 01, 02, 12 have cosines 1, 0, 0; a list of one has no pair
    assert ranked.of_lists["novelty@1"] == 1.0 and ranked.of_lists["novelty@3"] == pytest.approx(5 / 3)
    assert "intra_list_similarity@1" not in ranked.of_lists
    assert ranked.of_lists["intra_list_similarity@3"] == pytest.approx(1 / 3)
    assert not any(name.startswith(("novelty", "intra")) for name in rank_positives(retriever, examples_of([0]), 3, settings_of()).of_lists)


def test_an_item_of_which_nothing_is_known_is_left_out_of_the_similarity_and_holds_its_place() -> None:
    # the list is 3 2 1 0; nothing is known of 2, so the first three compare 3 and 1 alone: cosine 1; the first two hold no pair
    vectors = sparse.csr_matrix(np.array([[0, 1], [1, 0], [0, 0], [2, 0]], np.float32))
    ranked = rank_positives(Scores(np.array([1, 2, 3, 4], np.float32)), examples_of([0]), 4, settings_of(ks=(2, 3)), vectors=vectors)
    assert "intra_list_similarity@2" not in ranked.of_lists and ranked.of_lists["intra_list_similarity@3"] == pytest.approx(1)
