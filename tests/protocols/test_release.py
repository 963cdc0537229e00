"""What the next snapshot added, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.config import config_from_tree
from shortlist.errors import ConfigError, DataError
from shortlist.project import Project, open_project
from shortlist.protocols.configured import splits
from shortlist.protocols.split import Split
from shortlist.sections import Config, FeatureTable

OLD_ITEMS, NEW_ITEMS = list("abcdx"), list("abcdn")  # x is gone, n is new
OLD = {"seed": ["a", "a", "b", None], "item": ["b", "c", "c", "x"]}
NEW = {
    "seed": ["a", "a", "b", "n", None, "a", None, "x"],
    "item": ["b", "d", "n", "c", "a", "x", "x", "a"],
}  # (a, b) is known; (a, x) and (nobody, x) ask for an item that is gone; x asks, which is no candidate any more


def written(folder: Path, old: dict[str, Any] = OLD, new: dict[str, Any] = NEW) -> Config:
    frames = {"events": old, "next_events": new, "items": {"item": OLD_ITEMS}, "next_items": {"item": NEW_ITEMS}}
    for name, columns in frames.items():
        pl.DataFrame(columns).with_columns(kind=pl.lit("k")).write_parquet(folder / f"{name}.parquet")
    path = {name: str(folder / f"{name}.parquet") for name in frames}
    return config_from_tree(
        {
            "data": {"events": path["events"], "items": path["items"]},
            "columns": {role: role for role in ("user", "seed", "item", "time") if role in old},
            "item": {"features": {"item": "id", "kind": "category"}},
            "query": {"features": {"history": "items"} if "user" in old else {"seed": "item"}},
            "evaluate": {"protocol": "release", "next_events": path["next_events"], "next_items": path["next_items"]},
        }
    )


def release(config: Config) -> tuple[Project, Split]:
    project = open_project(config)
    (split,) = splits(project.log, project.config)
    return project, split


def new_pairs(split: Split) -> list[tuple[Any, ...]]:
    role = "user" if "user" in split.log.frame.columns else "seed"
    return split.log.frame.filter(pl.Series(split.test)).select(role, "item").rows()


def test_tested_are_the_pairs_that_the_older_log_does_not_have(tmp_path: Path) -> None:
    project, split = release(written(tmp_path))
    assert new_pairs(split) == [("a", "d"), ("b", "n"), ("n", "c"), (None, "a"), ("x", "a")]
    assert split.train_log is project.log and len(split.train_log) == 4  # all of it, the choice of x too
    assert split.items is not None and split.items.ids.to_list() == sorted(NEW_ITEMS)
    assert split.log.left_out == {"item not in the items table": 2}  # counted, not dropped in silence
    assert split.name == "next release"


def test_a_pair_of_nobody_is_known_if_nobody_had_it_before(tmp_path: Path) -> None:
    old, new = {"seed": ["a", None], "item": ["b", "c"]}, {"seed": [None, None, "b"], "item": ["b", "c", "c"]}
    assert new_pairs(release(written(tmp_path, old, new))[1]) == [(None, "b"), ("b", "c")]


def test_a_new_pair_stands_with_all_its_rows_and_remembers_what_was_before_it(tmp_path: Path) -> None:
    old = {"user": [1, 2], "item": ["a", "b"], "time": [10, 20]}
    new = {"user": [1, 1, 2, 1, 3], "item": ["a", "c", "b", "c", "n"], "time": [10, 30, 20, 40, 50]}
    _, split = release(written(tmp_path, old, new))
    assert new_pairs(split) == [(1, "c"), (1, "c"), (3, "n")]
    assert split.remembered.all() and len(split.log) == 5


def test_a_snapshot_that_adds_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"split next release needs events on both sides: got 4 to learn from and 0 to test; .* next_events"
    ):
        release(written(tmp_path, OLD, {name: values[:3] for name, values in OLD.items()}))


def test_logs_whose_ids_differ_in_type_are_refused(tmp_path: Path) -> None:
    old = {"user": [1, 2], "item": ["a", "b"], "time": [10, 20]}
    new = {"user": ["1", "2"], "item": ["a", "c"], "time": [10, 30]}
    with pytest.raises(
        DataError, match=r"both logs must hold user ids of one type: got Int64 in .*events\.parquet and String in .*next_ev"
    ):
        release(written(tmp_path, old, new))


def test_a_log_in_which_nobody_asks_has_no_pairs(tmp_path: Path) -> None:
    config = written(tmp_path, {"item": ["a", "b"], "place": ["x", "y"]}, {"item": ["a", "c"], "place": ["x", "y"]})
    with pytest.raises(DataError, match=r"tests new pairs of asker and item: got no user and no seed column; use protocol = \"holdout\""):
        release(msgspec.structs.replace(config, query=FeatureTable(features={"place": "category"})))


def test_the_settings_must_name_both_snapshots() -> None:
    least: dict[str, Any] = {"data": {"events": "e", "items": "i"}, "columns": {"item": "item", "seed": "seed"}}
    with pytest.raises(ConfigError, match=r"tests what the next snapshot added: name evaluate\.next_events"):
        config_from_tree({**least, "evaluate": {"protocol": "release"}})
    with pytest.raises(ConfigError, match=r"name evaluate\.next_items where \[data\] items is named, and only there"):
        config_from_tree({**least, "evaluate": {"protocol": "release", "next_events": "n"}})
    without = {**least, "data": {"events": "e"}}
    with pytest.raises(ConfigError, match=r"name evaluate\.next_items"):
        config_from_tree({**without, "evaluate": {"protocol": "release", "next_events": "n", "next_items": "i"}})


def test_without_a_table_the_newer_corpus_is_every_item_of_the_newer_log(tmp_path: Path) -> None:
    config = written(tmp_path)
    tables = {"events": config.data.events}
    evaluate = {"protocol": "release", "next_events": config.evaluate.next_events}
    sections = {"columns": {"seed": "seed", "item": "item"}, "query": {"features": {"seed": "item"}}}
    _, split = release(config_from_tree({**sections, "data": tables, "evaluate": evaluate}))
    assert split.items is not None and split.items.ids.to_list() == ["a", "b", "c", "d", "n", "x"]
    assert int(split.test.sum()) == len(NEW["item"]) - 2  # (a, b) and nobody's x are known
    assert np.array_equal(split.remembered, np.ones(8, bool))
