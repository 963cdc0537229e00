"""Item neighbours, EASE, content neighbours, content transfer and decayed popularity against hand numbers and slow versions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from scipy import sparse
from small_baselines import asking, by_row, project_of

from shortlist.baselines import item_knn
from shortlist.baselines.chosen_by import Shown, Window, chosen_by_asker, window_of
from shortlist.baselines.content_neighbours import content_neighbours
from shortlist.baselines.content_transfer import content_transfer
from shortlist.baselines.ease import ease_weights, train_ease
from shortlist.baselines.item_knn import nearest_items, train_item_knn
from shortlist.baselines.item_texts import item_texts
from shortlist.baselines.popularity import decayed_popularity
from shortlist.baselines.scored_corpus import ScoredCorpus
from shortlist.catalogue import Catalogue
from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import make_dataset
from shortlist.times import DAY_US

STEADY = property_settings(deadline=None, derandomize=True, max_examples=25)
ASKERS, ITEMS = 19, 13


def choices(seed: int, density: float = 0.3) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix((rng.random((ASKERS, ITEMS)) < density).astype(np.float32))


def window_with_texts(titles: list[str | None], kinds: list[str | None], **columns: Any) -> Window:
    project = project_of(len(titles), **columns)
    tree = config_tree(project.config)
    tree["item"] = {"features": {"item": "id", "title": "text", "kind": "category"}}
    config = config_from_tree(tree)
    table = pl.DataFrame({"item": range(len(titles)), "title": titles, "kind": kinds})
    dataset = make_dataset(type(project)(config, project.log, Catalogue(table, "item", "items"), None, {}, {}, False), project.log)
    return window_of(dataset, config)


# --- item neighbours


def test_shrunk_cosines_by_hand() -> None:
    # askers choose {0, 1}, {0, 1}, {0, 2}: c_01 = 2, c_02 = 1, c_0 = 3, c_1 = 2, c_2 = 1
    chosen = sparse.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], np.float32))
    nearest = nearest_items(chosen, 5, 1.0).toarray()
    a, b = 2 / (math.sqrt(6) + 1), 1 / (math.sqrt(3) + 1)
    assert nearest == pytest.approx(np.array([[0, a, b], [a, 0, 0], [b, 0, 0]]))
    assert nearest_items(chosen, 1, 1.0).toarray() == pytest.approx(np.array([[0, a, 0], [a, 0, 0], [b, 0, 0]]))


@STEADY
@given(st.integers(0, 1000), st.integers(1, 7), st.sampled_from([0.0, 3.0]))
def test_item_neighbours_agree_with_a_plain_loop(seed: int, neighbours: int, shrinkage: float) -> None:
    chosen = choices(seed)
    dense = chosen.toarray()
    expected = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        cosines = []
        for j in range(ITEMS):
            both = (dense[:, i] * dense[:, j]).sum()
            norm = math.sqrt(dense[:, i].sum() * dense[:, j].sum()) + shrinkage
            cosines.append(both / norm if i != j and both else 0.0)
        for j in sorted(range(ITEMS), key=lambda j: (-np.float32(cosines[j]), j))[:neighbours]:
            expected[i, j] = cosines[j]
    found = nearest_items(chosen, neighbours, shrinkage).toarray()
    assert np.sort(found, axis=1) == pytest.approx(np.sort(expected, axis=1), abs=1e-6)  # of cosines equal but for rounding, either
    weights = sparse.csr_matrix(np.random.default_rng(seed).random((5, ITEMS)).astype(np.float32))
    scores = train_item_knn(chosen, neighbours=neighbours, shrinkage=shrinkage)(weights)
    assert scores == pytest.approx(weights.toarray() @ found, abs=1e-5)


def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest_items(choices(3), 4, 1.0).toarray()
    monkeypatch.setattr(item_knn, "_BLOCK", 5)
    assert nearest_items(choices(3), 4, 1.0).toarray().tolist() == whole.tolist()


# --- EASE


def test_ease_by_hand() -> None:
    # X'X = [[2, 1], [1, 1]], l = 1: P = inverse of [[3, 1], [1, 2]] = [[2, -1], [-1, 3]] / 5
    # B = -P / diag(P) by columns off the diagonal: B_01 = (1/5) / (3/5) = 1/3, B_10 = (1/5) / (2/5) = 1/2
    chosen = sparse.csr_matrix(np.array([[1, 1], [1, 0]], np.float32))
    assert ease_weights(chosen, 1.0) == pytest.approx(np.array([[0, 1 / 3], [1 / 2, 0]]), abs=1e-6)


@STEADY
@given(st.integers(0, 1000), st.sampled_from([0.5, 10.0]))
def test_every_column_of_ease_is_its_own_ridge_regression(seed: int, regularization: float) -> None:
    """The definition: item j from all others, without itself. The closed form must come to the same."""
    chosen = choices(seed, 0.4)
    dense = chosen.toarray().astype(np.float64)
    found = ease_weights(chosen, regularization)
    for item in range(ITEMS):
        others = np.delete(dense, item, axis=1)
        solved = np.linalg.solve(others.T @ others + regularization * np.eye(ITEMS - 1), others.T @ dense[:, item])
        assert np.delete(found[:, item], item) == pytest.approx(solved, abs=1e-4)
        assert found[item, item] == 0


def test_ease_neither_hears_nor_scores_items_that_nobody_chose() -> None:
    chosen = sparse.csr_matrix(np.array([[1, 0, 1], [1, 0, 0]], np.float32))
    score = train_ease(chosen, regularization=1.0)
    scores = score(sparse.csr_matrix(np.array([[1.0, 5.0, 0.0], [0.0, 1.0, 0.0]], np.float32)))
    alone = ease_weights(sparse.csr_matrix(np.array([[1, 1], [1, 0]], np.float32)), 1.0)
    assert scores == pytest.approx(np.array([[0, 0, alone[0, 1]], [0, 0, 0]]), abs=1e-6)


# --- what the catalogue says


TITLES = ["red oak", "oak tree", None, "blue sea", "red red sea", "pine", "the tree"]
KINDS = ["a", "b", None, "a", "b", "c", "b"]


def slow_texts(titles: list[str | None], kinds: list[str | None]) -> np.ndarray:
    """(1 + log tf) (1 + log((1 + n) / (1 + df))), rows of length 1; words in one vocabulary, kinds apart."""
    documents = [[*(title or "").split(), *([f"kind={kind}"] if kind else [])] for title, kind in zip(titles, kinds, strict=True)]
    vocabulary = sorted({token for document in documents for token in document})
    rows = np.zeros((len(documents), len(vocabulary)))
    for row, document in enumerate(documents):
        for column, token in enumerate(vocabulary):
            if token in document:
                frequency = sum(token in other for other in documents)
                rows[row, column] = (1 + math.log(document.count(token))) * (1 + math.log((1 + len(documents)) / (1 + frequency)))
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / np.where(norms > 0, norms, 1)


def test_texts_and_categories_are_one_vector_an_item() -> None:
    window = window_with_texts(TITLES, KINDS, user=[1, 1], item=[0, 1], time=[1, 2])
    found, expected = item_texts(window), slow_texts(TITLES, KINDS)
    assert found.dtype == np.float32
    assert (found @ found.T).toarray() == pytest.approx(expected @ expected.T, abs=1e-6)
    assert found[2].nnz == 0  # nothing is said of it


def test_content_neighbours_score_the_cosine_with_what_is_shown() -> None:
    window = window_with_texts(TITLES, KINDS, user=[1, 1, 2], item=[0, 1, 4], time=[1, 2, 3])
    model = content_neighbours(window)({"half_life": 2.0})
    texts = slow_texts(TITLES, KINDS)
    said = texts[4] + 2**-0.5 * texts[0]  # the newest weighs 1, the one before 2^(-1/2)
    expected = texts @ said / np.sqrt((said**2).sum())
    assert model.score(asking([0, 4], []))[0] == pytest.approx(expected, abs=1e-6)
    assert not model.score(asking([]))[0].any()


@pytest.mark.parametrize("direct", [0.0, 0.3])
def test_content_transfer_agrees_with_a_plain_loop(direct: float) -> None:
    seeds, items = [0, 0, 1, 4, 4, 6], [3, 5, 5, 1, 3, 0]
    window = window_with_texts(TITLES, KINDS, seed=seeds, item=items)
    model = content_transfer(window)({"neighbours": 2, "power": 2.0, "direct": direct})
    texts = slow_texts(TITLES, KINDS)
    scores = model.score(asking(*[[]] * 8, seeds=[*range(7), -1]))
    for seed in range(7):
        near = sorted({*seeds}, key=lambda other: -float(texts[seed] @ texts[other]))[:2]
        weight = {other: float(texts[seed] @ texts[other]) ** 2 for other in near}
        total = sum(weight.values()) or 1.0
        for item in range(7):
            chosen = sum(weight[other] for other in near if (other, item) in zip(seeds, items, strict=True)) / total
            assert scores[seed, item] == pytest.approx(chosen + direct * float(texts[seed] @ texts[item]), abs=1e-5)
    assert not scores[7].any()  # no seed, nothing to say


def test_a_fitter_that_was_asked_before_answers_as_a_fresh_one() -> None:
    window = window_with_texts(TITLES, KINDS, seed=[0, 0, 1, 4, 4, 6], item=[3, 5, 5, 1, 3, 0])
    queries, used = asking(*[[]] * 7, seeds=list(range(7))), content_transfer(window)
    for neighbours, power in ((3, 1.0), (1, 4.0), (2, 2.0), (3, 1.0)):
        settings = {"neighbours": neighbours, "power": power, "direct": 0.0}
        assert used(settings).score(queries).tolist() == content_transfer(window)(settings).score(queries).tolist()


def test_a_new_seed_borrows_the_choices_of_seeds_like_it() -> None:
    window = window_with_texts(["red oak", "red oaks oak", "sea", "x", "y"], [None] * 5, seed=[0, 2], item=[3, 4])
    model = content_transfer(window)({"neighbours": 2, "power": 1.0, "direct": 0.0})
    rows, _ = model.retrieve(asking([], seeds=[1]), 1)
    assert rows.tolist() == [[3]]  # what seed 0 chose


# --- decayed popularity


def test_a_choice_weighs_half_after_a_half_life() -> None:
    day = DAY_US
    project = project_of(4, user=[1, 2, 3, 4], item=[0, 1, 1, 2], time=[0, day, 2 * day, 3 * day])
    model = decayed_popularity(window_of(make_dataset(project, project.log), project.config))({"half_life_days": 1.0})
    # ages 3, 2, 1, 0 days up to the newest: item 0 = 1/8, item 1 = 1/4 + 1/2, item 2 = 1
    assert model.score(asking([], []))[1] == pytest.approx([0.125, 0.75, 1.0, 0.0])
    assert model.retrieve(asking([]), 4)[0].tolist() == [[2, 1, 0, 3]]


# --- what all of them share


def test_what_queries_show_weighs_by_place_and_counts_once() -> None:
    shown = Shown(5, half_life=1.0).weights(asking([0, 3, 0, 2], [], seeds=[2, 4]))
    # newest first 2, 0, 3, 0: weights 1, 1/2, 1/4; the older 0 is not counted. A seed without a history is shown alone
    assert shown.toarray() == pytest.approx(np.array([[0.5, 0, 1, 0.25, 0], [0, 0, 0, 0, 1]]))


def test_a_seed_that_asks_shows_its_choices() -> None:
    choices_of = sparse.csr_matrix(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32))
    shown = Shown(3, choices=choices_of, seed_weight=0.25).weights(asking([], [], [], seeds=[0, 1, -1]))
    assert shown.toarray() == pytest.approx(np.array([[0.25, 1, 1], [0, 0.25, 0], [0, 0, 0]]))


def test_choices_of_nobody_are_not_anybodys() -> None:
    project = project_of(3, user=[1, None, 1, 2], item=[0, 1, 2, 0], time=[1, 2, 3, 4])
    window = window_of(make_dataset(project, project.log), project.config)
    assert sorted(chosen_by_asker(window).toarray().tolist()) == [[1, 0, 0], [1, 0, 1]]


def test_items_of_score_0_come_behind_by_popularity_and_the_prior_lifts_by_its_weight() -> None:
    popularity, table = np.array([0, 9, 3, 1]), np.array([[0, 0, 0.5, -1]], np.float32)
    plain = ScoredCorpus("m", lambda queries: table, popularity)
    assert plain.retrieve(asking([]), 4)[0].tolist() == [[2, 1, 0, 3]]
    lifted = ScoredCorpus("m", lambda queries: table, popularity, popularity_weight=3.0)
    # + 3 * .5 * log(1 + n) / log 10: items 0, 1.5, .5 + .903, -1 + .452
    scores = by_row(lifted.retrieve(asking([]), 4))[0]
    assert scores[1:] == pytest.approx([1.5, 0.5 + 1.5 * math.log(4) / math.log(10), -1 + 1.5 * math.log(2) / math.log(10)])


def test_what_a_query_shows_comes_last_if_so_tuned() -> None:
    table = np.array([[4, 3, 2, 1]], np.float32)
    last = ScoredCorpus("m", lambda queries: table, np.ones(4), seen_last=Shown(4))
    assert last.retrieve(asking([0, 2]), 4)[0].tolist() == [[1, 3, 0, 2]]
