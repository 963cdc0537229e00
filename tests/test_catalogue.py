"""Item and user tables: sorted by id, one row per id, and ids found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.catalogue import Catalogue, open_catalogue, read_catalogue, read_items, read_users
from shortlist.config import config_from_tree
from shortlist.errors import ConfigError, DataError
from shortlist.log import EventLog, read_events
from shortlist.parquet_steps import STEP_ROWS, write_in_steps
from shortlist.sections import Config

STEADY = property_settings(deadline=None, derandomize=True)


def items(tmp_path: Path, table: dict[str, Any], id_column: str = "item_id") -> Catalogue:
    pl.DataFrame(table).write_parquet(tmp_path / "items.parquet")
    return read_catalogue(str(tmp_path / "items.parquet"), id_column)


def catalogue_of(ids: list[Any]) -> Catalogue:
    return Catalogue(pl.DataFrame({"id": sorted(ids)}), "id", "items.parquet")


def project(tmp_path: Path, log: dict[str, Any], tables: dict[str, dict[str, Any]], **columns: str) -> tuple[Config, EventLog]:
    for name, table in {"events": log, **tables}.items():
        pl.DataFrame(table).write_parquet(tmp_path / f"{name}.parquet")
    data = {name: str(tmp_path / f"{name}.parquet") for name in ("events", *tables)}
    tree = {"data": data, "columns": {"item": "item_id", "user": "u", **columns}, "evaluate": {"protocol": "holdout"}}
    config = config_from_tree({**tree, "columns": {role: name for role, name in tree["columns"].items() if name}})
    return config, read_events(config)


def test_rows_are_sorted_by_id_with_their_columns(tmp_path: Path) -> None:
    table = items(tmp_path, {"item_id": ["10", "007", "é", "9", "Z", "a"], "n": [0, 1, 2, 3, 4, 5]})
    assert table.ids.to_list() == ["007", "10", "9", "Z", "a", "é"]  # by UTF-8 bytes
    assert table.frame["n"].to_list() == [1, 0, 3, 4, 5, 2]
    assert len(table) == 6 and table.id_column == "item_id"
    assert table.place(0) == "items.parquet row 2"


def test_integer_ids_are_sorted_by_value(tmp_path: Path) -> None:
    table = items(tmp_path, {"item_id": pl.Series([10, 9, 100], dtype=pl.UInt16)})
    assert table.ids.dtype == pl.Int64 and table.ids.to_list() == [9, 10, 100]


@STEADY
@given(st.sets(st.text(max_size=3), min_size=1, max_size=41), st.lists(st.none() | st.text(max_size=3), max_size=17))
def test_rows_agree_with_a_dictionary(known: set[str], asked: list[str | None]) -> None:
    table = Catalogue(pl.DataFrame({"id": sorted(known, key=str.encode)}), "id", "x")
    rows = {value: row for row, value in enumerate(table.ids)}
    expected = [rows.get(value, -1) for value in asked]
    assert table.rows_of(pl.Series(asked, dtype=pl.String)).tolist() == expected
    assert [table.row_of(value) for value in asked] == expected


def test_rows_are_int64_and_few_ids_in_a_large_catalogue_are_found() -> None:
    table = catalogue_of(list(range(0, 2 * 1009, 2)))
    rows = table.rows_of(pl.Series([2016, 3, None, 0], dtype=pl.Int64))
    assert rows.dtype == "int64" and rows.tolist() == [1008, -1, -1, 0]


def test_ids_of_other_widths_and_categories_are_found_and_other_types_refused() -> None:
    numbers, words = catalogue_of([1, 2, 3]), catalogue_of(["a", "b"])
    assert numbers.rows_of(pl.Series([3, 1], dtype=pl.UInt8)).tolist() == [2, 0]
    assert numbers.rows_of(pl.Series([2**63], dtype=pl.UInt64)).tolist() == [-1]
    assert words.rows_of(pl.Series(["b", "z"], dtype=pl.Categorical)).tolist() == [1, -1]
    assert words.rows_of(pl.Series([None, None])).tolist() == [-1, -1]
    with pytest.raises(DataError, match=r"ids of items\.parquet are Int64: got 'seed' of String"):
        numbers.rows_of(pl.Series("seed", ["1"]))


def test_one_id_of_another_type_is_unknown() -> None:
    numbers, words = catalogue_of([0, 1]), catalogue_of(["0", "1"])
    assert [numbers.row_of(value) for value in (1, "1", True, 1.0, None, [1])] == [1, -1, -1, -1, -1, -1]
    assert [words.row_of(value) for value in ("1", 1, None)] == [1, -1, -1]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"id": [1]}, "must have the id column 'item_id': nearest is 'id'; columns are 'id'"),
        ({"item_id": ["a", None]}, "items.parquet row 2: column 'item_id' plays the role id and must have a value"),
        ({"item_id": [1.0]}, "'item_id' plays the role id and must hold string or integer ids: got Float64"),
        (
            {"item_id": [1, 2, 3], "price": [1.0, None, float("nan")]},
            "items.parquet row 3: column 'price' must hold finite numbers: got nan",
        ),
        (
            {"item_id": [1, 2], "v": [[1.0, 2.0], [1.0, float("inf")]]},
            "items.parquet row 2: column 'v' must hold finite numbers: got [1.0, inf]",
        ),
        (
            {"item_id": [1, 2], "v": pl.Series([[1.0, 2.0], [1.0, float("nan")]], dtype=pl.Array(pl.Float32, 2))},
            "items.parquet row 2: column 'v' must hold finite numbers: got [1.0, nan]",
        ),
    ],
)
def test_a_broken_table_is_refused_by_row_and_column(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        items(tmp_path, table)
    assert said in str(caught.value)


def test_double_ids_are_listed_with_their_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        items(tmp_path, {"item_id": ["b", "a", "c", "a", "b", "d", "b"]})
    assert (
        "items must have one row per id in 'item_id': got 3 double rows ('a' in items.parquet row 2 and items.parquet row 4; "
        "'b' in items.parquet row 1 and items.parquet row 5 and items.parquet row 7); keep one of each"
    ) in str(caught.value)


def test_the_corpus_is_the_items_table_or_else_every_item_of_the_log(tmp_path: Path) -> None:
    config, log = project(tmp_path, {"item_id": ["b", "a", "b"], "u": [1, 2, 3]}, {"items": {"item_id": ["c", "a", "b"]}})
    assert read_items(config, log).ids.to_list() == ["a", "b", "c"]
    config, log = project(tmp_path, {"item_id": ["b", "a", "b"], "u": [1, 2, 3]}, {})
    derived = read_items(config, log)
    assert derived.ids.to_list() == ["a", "b"] and derived.id_column == "item_id" and derived.frame.width == 1
    assert derived.place(1).endswith("item_id 'b'")
    with pytest.raises(ConfigError, match=r"a corpus needs \[data\] items or a log"):
        read_items(config, None)


def test_the_id_column_may_be_called_otherwise_than_in_the_log(tmp_path: Path) -> None:
    tables = {"items": {"key": [2, 1]}, "users": {"uid": [5, 4]}}
    config, log = project(tmp_path, {"item_id": [1], "u": [4]}, tables, item_id="key", user_id="uid")
    users = read_users(config, log)
    assert users is not None and users.ids.to_list() == [4, 5]
    assert read_items(config, log).id_column == "key"


def test_ids_of_another_type_than_the_logs_are_refused_by_both_files(tmp_path: Path) -> None:
    tables = {"items": {"item_id": ["1"]}, "users": {"u": ["4"]}}
    config, log = project(tmp_path, {"item_id": [1], "u": [4]}, tables)
    with pytest.raises(DataError) as caught:
        read_items(config, log)
    for said in (
        "item ids must be of one type: got String in",
        "items.parquet ('item_id', e.g. '1') and Int64 in",
        "events.parquet ('item_id', e.g. 1)",
    ):
        assert said in str(caught.value)
    with pytest.raises(DataError, match=r"user ids must be of one type: .*write both as strings or both as integers"):
        read_users(config, log)


def test_users_are_optional_and_need_a_user_role(tmp_path: Path) -> None:
    config, log = project(tmp_path, {"item_id": [1], "u": [4]}, {})
    assert read_users(config, log) is None
    config, log = project(tmp_path, {"item_id": [1], "u": [4]}, {"users": {"u": [4]}}, user="")
    with pytest.raises(ConfigError, match=r"needs the log's user column: name \[columns\] user"):
        read_users(config, log)


def test_ids_of_csv_come_back_as_they_came(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n007,Fantômas\n85123A,\"O'Brien, l'été\"\n")
    table = read_catalogue(str(tmp_path / "items.csv"), "item_id")
    assert table.frame.rows() == [("007", "Fantômas"), ("85123A", "O'Brien, l'été")]
    assert table.row_of("7") == -1 and table.row_of("007") == 0


# --- what a version holds


def test_a_written_catalogue_opens_to_the_same_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"item_id": ["b", "a", "é"], "look": pl.Series([[1.0], None, [2.0]], dtype=pl.Array(pl.Float32, 1)), "n": [1, 2, 3]}
    )
    frame.write_parquet(tmp_path / "items.parquet")
    read = read_catalogue(str(tmp_path / "items.parquet"), "item_id")
    read.frame.write_parquet(tmp_path / "[1] published.parquet")
    opened = open_catalogue(tmp_path / "[1] published.parquet", "item_id")
    assert opened.frame.equals(read.frame) and opened.frame.schema["look"] == pl.Array(pl.Float32, 1)
    assert opened.ids.to_list() == ["a", "b", "é"] and opened.row_of("b") == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": ["b", "a"]}, "rising ids in column 'item_id'"),
        ({"item_id": ["a", "a"]}, "rising ids"),
        ({"item_id": ["a", None]}, "rising ids"),
        ({"item_id": [1.0, 2.0]}, "got Float64"),
        ({"other": [1, 2]}, "got Null"),
        ({"item_id": [1, 2], "price": [1.0, float("nan")]}, "row 2: column 'price' must hold finite numbers: got nan"),
    ],
)
def test_a_version_that_holds_no_catalogue_is_refused(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=message):
        open_catalogue(tmp_path / "items.parquet", "item_id")


@pytest.mark.parametrize("last_id", [STEP_ROWS - 1, STEP_ROWS, 3 * STEP_ROWS])
def test_ids_that_do_not_rise_between_two_blocks_are_refused(tmp_path: Path, last_id: int) -> None:
    ids = [*range(STEP_ROWS), last_id]
    write_in_steps(tmp_path / "items.parquet", pl.DataFrame({"item_id": ids}))
    if last_id > STEP_ROWS - 1:
        assert open_catalogue(tmp_path / "items.parquet", "item_id").ids.to_list() == ids
        return
    with pytest.raises(DataError, match="rising ids"):
        open_catalogue(tmp_path / "items.parquet", "item_id")


def test_a_fault_in_a_later_block_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    prices = [1.0] * (STEP_ROWS + 5) + [float("inf")]
    write_in_steps(tmp_path / "items.parquet", pl.DataFrame({"item_id": range(len(prices)), "price": prices}))
    with pytest.raises(DataError, match=rf"items\.parquet row {STEP_ROWS + 6}: column 'price' must hold finite numbers: got inf"):
        open_catalogue(tmp_path / "items.parquet", "item_id")


def test_a_catalogue_of_no_items_opens(tmp_path: Path) -> None:
    write_in_steps(tmp_path / "items.parquet", pl.DataFrame(schema={"item_id": pl.String}))
    assert len(open_catalogue(tmp_path / "items.parquet", "item_id")) == 0


def test_a_cut_off_version_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a", "b"]}).write_parquet(tmp_path / "items.parquet")
    content = (tmp_path / "items.parquet").read_bytes()
    for damaged in (b"", content[:50], content[:-1], content[:-20] + b"x" * 20):
        (tmp_path / "items.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"items\.parquet is truncated or not a Parquet file"):
            open_catalogue(tmp_path / "items.parquet", "item_id")
