"""Tables held against each other, and what their columns are used for."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist import project as project_module
from shortlist.config import config_from_tree, config_tree
from shortlist.errors import ConfigError, DataError
from shortlist.features.encoder import BUCKET_SUFFIX
from shortlist.project import FeatureColumn, describe, feature_column, open_project
from shortlist.sections import Config, FeatureSettings, feature_settings
from shortlist.towers import BIAS, MATCH, OUTPUT

EVENTS = {"user_id": [1, 1, 2], "item_id": ["a", "b", "a"], "at": [10, 20, 30]}
ITEMS = {"item_id": ["a", "b", "c"], "title": ["x", "y", "z"], "price": [1.5, None, 2.0], "tags": [["p"], [], None]}
ROLES = {"user": "user_id", "item": "item_id", "time": "at"}


def settings(
    tmp_path: Path,
    events: dict[str, Any] = EVENTS,
    items: dict[str, Any] | None = ITEMS,
    users: dict[str, Any] | None = None,
    *,
    columns: dict[str, str] = ROLES,
    item: dict[str, Any] | None = None,
    query: dict[str, Any] | None = None,
    **data: str,
) -> Config:
    tree: dict[str, Any] = {"data": data, "columns": columns, "evaluate": {"protocol": "holdout"}}
    for name, table in (("events", events), ("items", items), ("users", users)):
        if table is not None:
            pl.DataFrame(table).write_parquet(tmp_path / f"{name}.parquet")
            tree["data"][name] = str(tmp_path / f"{name}.parquet")
    if item is not None:
        tree["item"] = {"features": item}
    if query is not None:
        tree["query"] = {"features": query}
    return config_from_tree(tree)


def test_events_of_unknown_items_are_left_out_and_counted(tmp_path: Path) -> None:
    events = {"user_id": [1, 1, 2, 3], "item_id": ["a", "z", "y", "z"], "at": [10, 20, 30, 40]}
    project = open_project(settings(tmp_path, events))
    assert project.left_out == {"item not in the items table": 3}
    assert project.log.frame["item"].to_list() == ["a"]
    assert project.facts["rows"] == len(project.log) and len(project.facts) == len(list(project.facts))
    assert (project.facts["rows"], project.facts["unknown_items"], project.facts["items_without_event"]) == (1, 2, 2)


def test_an_unknown_item_is_an_error_where_the_settings_say_so(tmp_path: Path) -> None:
    events = {"user_id": [1, 1, 2], "item_id": ["z", "a", "y"], "at": [30, 20, 10]}  # the first in time is row 3
    with pytest.raises(DataError, match=r"must be in .*items\.parquet: got 'y' in events\.parquet row 3 \(2 such rows\)"):
        open_project(settings(tmp_path, events, unknown_items="error"))


def test_a_log_without_any_known_item_is_refused_with_an_example_of_both(tmp_path: Path) -> None:
    events = {"user_id": [1], "item_id": ["0a"], "at": [10]}
    with pytest.raises(
        DataError, match=r"no event is left: .* got '0a' in events\.parquet row 1, where 'item_id' holds 'a'; are these the same"
    ):
        open_project(settings(tmp_path, events))


def test_without_an_items_table_every_item_is_known_by_its_id_alone(tmp_path: Path) -> None:
    project = open_project(settings(tmp_path, items=None))
    assert project.items.ids.to_list() == ["a", "b"] and project.left_out == {}
    assert project.config.item.features == {"item_id": "id"}


def test_unknown_seeds_history_entries_and_users_are_kept_and_counted(tmp_path: Path) -> None:
    events = {
        "user_id": [1, 2, None, 9],
        "item_id": ["a", "b", "a", "b"],
        "s": ["a", "z", None, "z"],
        "h": [["a", "q"], None, [], ["q"]],
        "at": [1, 2, 3, 4],
    }
    users = {"user_id": [1, 5, 6]}
    project = open_project(settings(tmp_path, events, users=users, columns={**ROLES, "seed": "s", "history": "h"}))
    assert len(project.log) == 4
    assert project.facts["rows_with_unknown_seed"] == 2
    assert project.facts["unknown_history_entries"] == 2
    assert project.facts["users_without_row"] == 2  # 2 and 9
    assert project.facts["users_without_event"] == 2  # 5 and 6


def many(rows: int) -> dict[str, Any]:
    return {
        "item_id": [f"i{row:03}" for row in range(rows)],
        "genre": [f"g{row % 5}" for row in range(rows)],  # 5 of 101: under 5 %
        "maker": [f"m{row % 6}" for row in range(rows)],  # 6 of 101: over 5 %
        "title": [f"title {row}" for row in range(rows)],
        "tags": [["x", "y"]] * rows,
        "codes": [[1, 2]] * rows,
        "year": [row % 50 for row in range(rows)],
        "views": [row % 51 for row in range(rows)],
        "price": [row / 7 for row in range(rows)],
        "vector": [[0.5, 1.5]] * (rows - 1) + [None],
        "uneven": [[0.5, 1.5]] * (rows - 1) + [[1.0]],
        "sold": [row % 2 == 0 for row in range(rows)],
        "released": [date(2024, 1, 1)] * rows,
        "nothing": pl.Series([None] * rows, dtype=pl.String),
    }


def test_features_are_proposed_from_types_and_distinct_values(tmp_path: Path) -> None:
    events = {"user_id": [1], "item_id": ["i000"], "at": [1], "weekday": ["fri"], "dwell": [2.5]}
    users = {"user_id": [1, 2], "age": [30, 40], "about": ["x", "y"], "joined": [date(2024, 1, 1)] * 2}
    project = open_project(settings(tmp_path, events, many(101), users))
    assert project.proposed
    assert project.config.item.features == {
        "item_id": "id",
        "genre": "category",
        "maker": "text",
        "title": "text",
        "tags": "categories",
        "codes": "categories",
        "year": "category",
        "views": "number",
        "price": "number",
        "vector": "vector",
        "sold": "category",
    }
    assert project.config.query.features == {
        "seed": "item",
        "history": "items",
        "users.age": "category",
        "users.about": "text",
        "events.weekday": "text",
        "events.dwell": "number",
    }
    assert project.facts["columns_not_used"] == {
        "items.uneven": "List(Float64)",
        "items.released": "Date",
        "items.nothing": "String",
        "users.joined": "Date",
    }


def test_only_the_side_without_features_is_proposed(tmp_path: Path) -> None:
    project = open_project(settings(tmp_path, item={"title": "text"}))
    assert project.proposed and project.config.item.features == {"title": "text"}
    assert list(project.config.query.features) == ["seed", "history"]
    complete = open_project(settings(tmp_path, item={"title": "text"}, query={"user_id": "id"}))
    assert not complete.proposed
    assert complete.facts["columns_not_used"] == {"items.price": "Float64", "items.tags": "List(String)"}


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        ({"item": "item_id", "user": "user_id", "time": "at"}, {"seed": "item", "history": "items"}),
        ({"item": "item_id", "user": "user_id", "weight": "at"}, {"history": "items", "user_id": "id"}),
        ({"item": "item_id", "seed": "s", "weight": "at"}, {"seed": "item", "history": "items"}),
        ({"item": "item_id", "history": "h", "weight": "at"}, {"history": "items"}),
        ({"item": "item_id", "seed": "s", "user": "user_id", "time": "at"}, {"seed": "item", "history": "items"}),
    ],
)
def test_seed_and_history_are_proposed_where_they_stand_or_can_be_derived(
    tmp_path: Path, columns: dict[str, str], proposed: dict[str, str]
) -> None:
    everything = {**EVENTS, "s": ["a"] * 3, "h": [["a"]] * 3}
    events = {name: values for name, values in everything.items() if name in columns.values()}
    assert open_project(settings(tmp_path, events, columns=columns)).config.query.features == proposed


def test_the_proposed_settings_read_back_to_themselves(tmp_path: Path) -> None:
    config = open_project(settings(tmp_path)).config
    assert config_from_tree(config_tree(config)) == config
    assert not open_project(config).proposed


@pytest.mark.parametrize(
    ("name", "feature", "found"),
    [
        ("seed", FeatureSettings(kind="item"), ("derived", "seed")),
        ("history", FeatureSettings(kind="items"), ("derived", "history")),
        ("looked", FeatureSettings(kind="item", column="seed"), ("derived", "seed")),
        ("user_id", FeatureSettings(kind="id"), ("events", "user")),
        ("events.user_id", FeatureSettings(kind="id"), ("events", "user")),
        ("users.age", FeatureSettings(kind="category"), ("users", "age")),
        ("age", FeatureSettings(kind="category", column="users.age"), ("users", "age")),
        ("events.weekday", FeatureSettings(kind="category"), ("events", "weekday")),
        ("weekday", FeatureSettings(kind="category"), ("events", "weekday")),
    ],
)
def test_a_query_feature_is_found_in_its_table(tmp_path: Path, name: str, feature: FeatureSettings, found: tuple[str, str]) -> None:
    assert feature_column(name, feature, settings(tmp_path), side="query") == FeatureColumn(*found)  # type: ignore[arg-type]


def test_seed_and_history_columns_are_found_by_role(tmp_path: Path) -> None:
    config = settings(tmp_path, columns={**ROLES, "seed": "looked_at", "history": "past"})
    item, bag = FeatureSettings(kind="item"), FeatureSettings(kind="items")
    for name in ("seed", "looked_at", "events.looked_at"):
        assert feature_column(name, item, config, side="query") == ("events", "seed")
    for name in ("history", "past"):
        assert feature_column(name, bag, config, side="query") == ("events", "history")


def test_an_item_feature_is_a_column_of_the_items_whatever_its_name(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert feature_column("item_id", FeatureSettings(kind="id"), config, side="item") == ("items", "item_id")
    assert feature_column("seed", FeatureSettings(kind="text", column="users.x"), config, side="item") == ("items", "users.x")


@pytest.mark.parametrize(
    ("query", "columns", "said"),
    [
        ({"seed": "item"}, {"item": "item_id", "user": "user_id"}, "query.features.seed is derived from the user's earlier events"),
        ({"seed": "item"}, {"item": "item_id", "user": "user_id"}, "got no time; name [columns] time, or a column that holds it"),
        ({"history": "items"}, {"item": "item_id", "time": "at"}, "got no user; name [columns] user"),
        ({"item_id": "id"}, ROLES, "query.features.item_id must not use the event's item: the chosen item is the answer"),
        ({"at": "number"}, ROLES, "query.features.at must not use the event's time"),
        ({"users.age": "number"}, ROLES, "query.features.users.age needs the users table: got no [data] users"),
        ({"weekdy": "category"}, ROLES, "query.features.weekdy must name a column of"),
        ({"weekdy": "category"}, ROLES, "nearest is 'weekday'; columns are 'user', 'weekday', 'others'"),
        ({"weekday": "number"}, ROLES, "of kind 'number' needs a numeric or boolean column: column 'weekday' of"),
        ({"weekday": "items"}, ROLES, "of kind 'items' needs a list of item ids (String as in"),
        ({"others": "items"}, ROLES, "of kind 'items' needs a list of item ids (String as in"),
    ],
)
def test_a_query_feature_that_cannot_be_made_is_refused(tmp_path: Path, query: dict[str, str], columns: dict[str, str], said: str) -> None:
    named = {name: values for name, values in EVENTS.items() if name in columns.values()}
    events = {**named, "weekday": ["mon"] * 3, "others": [[1]] * 3}
    with pytest.raises(ConfigError) as caught:
        open_project(settings(tmp_path, events, columns=columns, query=query))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fitting"),
    [
        ("id", {"word", "whole", "yes"}),
        ("category", {"word", "whole", "yes"}),
        ("categories", {"words", "wholes"}),
        ("text", {"word"}),
        ("number", {"whole", "real", "yes"}),
        ("vector", {"reals", "array"}),
    ],
)
def test_each_kind_takes_the_types_it_fits_and_no_other(tmp_path: Path, kind: str, fitting: set[str]) -> None:
    columns: dict[str, Any] = {
        "word": ["x", None, "z"],
        "whole": [1, 2, None],
        "real": [0.5, 1.0, None],
        "yes": [True, None, False],
        "day": [date(2024, 1, 1)] * 3,
        "words": [["x"], [], None],
        "wholes": [[1], [], None],
        "reals": [[0.5, 1.0], [1.5, 2.0], None],
        "array": pl.Series([[0.5, 1.0], [1.5, 2.0], None], dtype=pl.Array(pl.Float32, 2)),
        "empty": pl.Series([None] * 3, dtype=pl.Null),
    }
    accepted = set()
    for name in columns:
        config = settings(tmp_path, items={"item_id": ["a", "b", "c"], **columns}, item={name: kind})
        try:
            open_project(config)
            accepted.add(name)
        except ConfigError as error:
            assert f"item.features.{name} of kind {kind!r} needs" in str(error)
    assert accepted == fitting


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (
            [[1.0, 2.0], [1.0, 2.0], [1.0]],
            "items.parquet row 3: column 'v' must hold vectors of one length without nulls: got 1 values, 0 of them",
        ),
        (
            [[1.0, None], [1.0, 2.0], [1.0, 2.0]],
            "items.parquet row 1: column 'v' must hold vectors of one length without nulls: got 2 values, 1 of",
        ),
        ([[1.0, 2.0], [], [1.0, 2.0]], "items.parquet row 2: column 'v' must hold vectors"),
        ([[1.0, 2.0], [1.0, float("nan")], None], "items.parquet row 2: column 'v' must hold finite numbers"),
    ],
)
def test_vectors_are_of_one_length_and_without_holes(tmp_path: Path, vectors: list[Any], said: str) -> None:
    items = {"item_id": ["c", "b", "a"], "v": vectors}  # rows are named as in the file, not as sorted
    with pytest.raises(DataError) as caught:
        open_project(settings(tmp_path, items=items, item={"v": "vector"}))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["#content", "item_id#bias", "x#bucket", "#"])
def test_a_column_called_as_tables_of_a_model_are_needs_another_name_as_a_feature(tmp_path: Path, name: str) -> None:
    items = {"item_id": ["a", "b", "c"], name: ["x", "y", "z"]}
    with pytest.raises(ConfigError, match=f"item.features.{name} must not begin with '#' or end with one of #bias, #bucket"):
        open_project(settings(tmp_path, items=items))
    renamed = {"item_id": "id", "note": {"kind": "text", "column": name}, "a#b": {"kind": "text", "column": name}}
    assert open_project(settings(tmp_path, items=items, item=renamed)).config.item.features.keys() == renamed.keys()


def test_the_names_that_are_refused_are_those_that_tables_have() -> None:
    assert {f"#{end}" for end in project_module._OF_TABLES} == {BIAS, OUTPUT, MATCH, BUCKET_SUFFIX}


def test_a_misspelt_item_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"item\.features\.titel must name a column of .*items\.parquet: got 'titel'; nearest is 'title'"):
        open_project(settings(tmp_path, item={"titel": "text"}))


def test_a_wrong_kind_is_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"column 'price' of .* is Float64; use kind 'number'"):
        open_project(settings(tmp_path, item={"price": "text"}))


def test_no_usable_query_column_is_an_error(tmp_path: Path) -> None:
    events = {"item_id": ["a"], "day": [date(2024, 1, 1)]}
    with pytest.raises(ConfigError, match="a query needs a feature"):
        open_project(settings(tmp_path, events, columns={"item": "item_id"}))


def test_a_project_is_described_in_plain_values(tmp_path: Path) -> None:
    events = {"user_id": [1, 1], "item_id": ["a", "z"], "at": [10, 20]}
    description = describe(open_project(settings(tmp_path, events)))
    assert json.loads(json.dumps(description)) == description
    assert description["left_out"] == {"item not in the items table": 1}
    assert description["features_proposed"] is True
    features: Any = description["features"]
    assert {"name": "price", "kind": "number", "table": "items", "column": "price"} in features["item"]
    assert {"name": "seed", "kind": "item", "table": "derived", "column": "seed"} in features["query"]
    facts: Any = description["facts"]
    assert facts["first_time"] == facts["last_time"] == "1970-01-01T00:00:10+00:00"
    assert facts["seen_items"] == "rank" and "share_chosen_again" not in facts  # of two events nothing can be said
    assert feature_settings(open_project(settings(tmp_path)).config.item)["item_id"].kind == "id"
