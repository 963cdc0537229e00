"""A baseline's judgement is read back while nothing has changed, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from small_evaluation import Scores, dataset_of, examples_of
from small_project import small_config

from shortlist import judged
from shortlist.baselines.chosen_by import window_of
from shortlist.baselines.item_texts import item_texts
from shortlist.catalogue import Catalogue
from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import Dataset, Examples
from shortlist.evaluate import Ranked
from shortlist.judged import Judged, baseline_key, judge, kept
from shortlist.sections import Config


def asked(tmp_path: Path) -> tuple[Dataset, Examples, Config]:
    config = small_config(tmp_path)
    dataset = dataset_of([3, 2, 1, 0], [1, 2])
    columns = {"title": ["oak", "pine", None, "elm"], "kind": ["a", "b", "a", "b"], "tags": [["x"], [], ["y"], None]}
    words = dataset.items.frame.with_columns(pl.Series(name, values) for name, values in columns.items())
    return replace(dataset, items=Catalogue(words, "item", "items")), examples_of([0, 1, 2], askers=[1, 2, 3]), config


def test_the_lists_of_the_shown_queries_are_kept_with_the_ranks(tmp_path: Path) -> None:
    dataset, _, config = asked(tmp_path)
    examples = examples_of([0, 1, 2], seeds=[3, 3, 1])
    table = Scores(np.array([1, 2, 3, 4], np.float32))
    found = judge(table, dataset, examples, np.array([0, 2]), config)
    assert found.ranked.rank.tolist() == [4, 3, 2] and found.shown.tolist() == [0, 2]
    assert found.rows.tolist() == [[3, 2, 1, 0]] * 2 and found.scores.tolist() == [[4, 3, 2, 1]] * 2
    unseen = msgspec.structs.replace(config, evaluate=msgspec.structs.replace(config.evaluate, seen_items="exclude"))
    assert judge(table, dataset, examples, np.array([2]), unseen).rows.tolist() == [[3, 2, 0, -1]]  # its seed, item 1, is left out


def test_items_of_a_list_are_compared_by_what_the_catalogue_says(tmp_path: Path) -> None:
    dataset, examples, config = asked(tmp_path)
    found = judge(Scores(np.array([1, 2, 3, 4], np.float32)), dataset, examples, np.array([0]), config).ranked.of_lists
    texts = item_texts(window_of(dataset, config)).toarray()
    pairs = [float(texts[one] @ texts[other]) for one in range(4) for other in range(one)]
    assert found["intra_list_similarity@10"] == pytest.approx(np.mean(pairs)) and 0 < np.mean(pairs) < 1
    silent = config_from_tree({**config_tree(config), "item": {"features": {"item_id": "id"}}})
    assert "intra_list_similarity@10" not in judge(Scores(np.ones(4, np.float32)), dataset, examples, np.array([0]), silent).ranked.of_lists


def test_what_is_written_is_read_back_under_its_key_alone(tmp_path: Path) -> None:
    made = Judged(
        Ranked("ials", np.array([1, 7]), {"gini@3": 0.5}, tuned={"factors": 64}),
        np.array([1]),
        np.array([[2, -1]]),
        np.array([[0.5, -np.inf]], np.float32),
    )
    path = tmp_path / "new folder" / "ials.npz"
    assert kept(path, "key", lambda: made) is made

    def never() -> Judged:
        raise AssertionError("made again")

    back = kept(path, "key", never)
    assert (back.ranked.model, back.ranked.of_lists, back.ranked.tuned) == ("ials", {"gini@3": 0.5}, {"factors": 64})
    assert (
        back.ranked.rank.tolist() == [1, 7]
        and back.shown.tolist() == [1]
        and back.rows.tolist() == [[2, -1]]
        and back.scores.tolist() == [[0.5, -np.inf]]
    )
    with pytest.raises(AssertionError, match="made again"):
        kept(path, "another key", never)
    path.write_bytes(path.read_bytes()[:-40])
    assert kept(path, "key", lambda: made) is made


def test_the_key_changes_with_all_that_a_baseline_sees_and_with_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, examples, config = asked(tmp_path)
    shown = np.array([0, 1])
    key = baseline_key("ials", dataset, examples, shown, config)
    other_seed = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, seed=7))
    assert baseline_key("ials", dataset, examples, shown, other_seed) == key
    other_ks = msgspec.structs.replace(config, evaluate=msgspec.structs.replace(config.evaluate, ks=(5,)))
    other_title = dataset.items.frame.with_columns(title=dataset.items.frame["title"].fill_null("ash"))
    changed = [
        baseline_key("ease", dataset, examples, shown, config),
        baseline_key("ials", dataset, examples, shown[:1], config),
        baseline_key("ials", dataset, examples, shown, other_ks),
        baseline_key("ials", dataset, replace(examples, item_row=examples.item_row[::-1]), shown, config),
        baseline_key("ials", replace(dataset, train=examples_of([1, 0], askers=[1, 2])), examples, shown, config),
        baseline_key("ials", replace(dataset, items=Catalogue(other_title, "item", "items")), examples, shown, config),
    ]
    monkeypatch.setattr(judged, "_code", lambda: "older")
    changed.append(baseline_key("ials", dataset, examples, shown, config))
    assert len({key, *changed}) == 8
