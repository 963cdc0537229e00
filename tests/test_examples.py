"""Example queries in words: who, what before, what next, and every model's list with the hit marked."""

from __future__ import annotations

import numpy as np
import polars as pl
from small_evaluation import examples_of

from shortlist.catalogue import Catalogue
from shortlist.config import config_from_tree
from shortlist.dataset import asker_numbers
from shortlist.evaluate import Ranked
from shortlist.examples import EXAMPLES, described_examples, drawn_examples, item_words
from shortlist.files import Places
from shortlist.judged import Judged
from shortlist.log import EventLog
from shortlist.metrics.ranking import NOT_FOUND

FILMS = Catalogue(pl.DataFrame({"item_id": [10, 20, 30, 40], "title": ["Alien", None, "Brazil", "Cube"]}), "item_id", "items")
TREE = {
    "data": {"events": "e"},
    "columns": {"item": "item_id", "user": "user_id"},
    "item": {"features": {"item_id": "id", "title": "text"}},
    "evaluate": {"protocol": "holdout"},
}


def log_of(users: list[str | None]) -> EventLog:
    return EventLog(pl.DataFrame({"user": pl.Series(users, dtype=pl.String)}), Places(("e",), (0,)), "e", {})


def test_a_record_says_who_asked_what_came_before_and_what_each_model_lists() -> None:
    numbers = asker_numbers(pl.Series(["ann", "bob"])).tolist()
    examples = examples_of([3, 0], seeds=[2, -1], histories=[[0, 1, 2], []], askers=[numbers[1], -1])
    shown = np.array([2, 5])  # of six that were tested
    judged = {
        "a": Judged(Ranked("a", np.arange(1, 7)), shown, np.array([[3, 0], [1, -1]]), np.array([[0.5, 0.25], [1.0, -np.inf]], np.float32)),
        "b": Judged(Ranked("b", np.full(6, NOT_FOUND)), shown, np.array([[1, 2], [0, 1]]), np.array([[9, 8], [7, 6]], np.float32)),
    }
    first, second = described_examples("day", examples, FILMS, config_from_tree(TREE), log_of(["bob", None, "ann"]), judged)
    # the seed, Brazil, is the newest of the history and is said once; item 20 has no title
    assert {key: first[key] for key in ("split", "who", "seed", "history", "next")} == {
        "split": "day",
        "who": "bob",
        "seed": "Brazil",
        "history": ["20", "Alien"],
        "next": "Cube",
    }
    assert first["ranks"] == {"a": 3, "b": None} and second["ranks"] == {"a": 6, "b": None}
    assert first["lists"]["a"] == [
        {"item": 40, "text": "Cube", "score": 0.5, "hit": True},
        {"item": 10, "text": "Alien", "score": 0.25, "hit": False},
    ]
    assert [entry["hit"] for entry in first["lists"]["b"]] == [False, False]
    assert (second["who"], second["seed"], second["history"], second["next"]) == (None, None, [], "Alien")
    assert [entry["item"] for entry in second["lists"]["a"]] == [20]  # a padded list ends


def test_a_seed_that_is_not_in_its_history_is_said_beside_it() -> None:
    (record,) = described_examples("day", examples_of([0], seeds=[3], histories=[[1, 2]]), FILMS, config_from_tree(TREE), log_of([]), {})
    assert (record["seed"], record["history"]) == ("Cube", ["Brazil", "20"])


def test_twenty_queries_are_shared_out_over_the_splits() -> None:
    drawn = [drawn_examples(1009, split, 7, seed=0) for split in range(7)]
    assert [len(rows) for rows in drawn] == [3, 3, 3, 3, 3, 3, 2] and sum(map(len, drawn)) == EXAMPLES
    assert all((np.diff(rows) > 0).all() and rows.min() >= 0 and rows.max() < 1009 for rows in drawn)
    assert drawn[0].tolist() == drawn_examples(1009, 0, 7, seed=0).tolist() != drawn_examples(1009, 0, 7, seed=1).tolist()
    assert drawn_examples(2, 0, 1, seed=0).tolist() == [0, 1]


def test_items_are_called_by_their_text_and_by_an_id_that_is_a_word() -> None:
    assert item_words(FILMS, config_from_tree(TREE)) == ["Alien", "20", "Brazil", "Cube"]
    named = Catalogue(pl.DataFrame({"item_id": ["gimp", "vim"], "title": ["image editor", "vim"]}), "item_id", "items")
    assert item_words(named, config_from_tree(TREE)) == ["gimp: image editor", "vim"]
    known = Catalogue(pl.DataFrame({"item_id": ["Alien (1979)", "B"], "title": ["Alien", "B side"]}), "item_id", "items")
    assert item_words(known, config_from_tree(TREE)) == ["Alien (1979)", "B side"]
    bare = {**TREE, "item": {"features": {"item_id": "id"}}}
    assert item_words(FILMS, config_from_tree(bare)) == ["10", "20", "30", "40"]


def test_the_first_text_that_is_not_the_id_itself_is_taken() -> None:
    tree = {**TREE, "item": {"features": {"name": {"kind": "text", "column": "item_id"}, "summary": {"kind": "text", "column": "title"}}}}
    named = Catalogue(pl.DataFrame({"item_id": ["gimp"], "title": ["image editor"]}), "item_id", "items")
    assert item_words(named, config_from_tree(tree)) == ["gimp: image editor"]
