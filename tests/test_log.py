"""The event table: ids come back as they came, roles have their names, every fault names file, column and row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from shortlist.config import config_from_tree
from shortlist.errors import ConfigError, DataError
from shortlist.files import Places
from shortlist.log import EventLog, _sorted_by_time, read_events
from shortlist.sections import Config

STEADY = property_settings(deadline=None, derandomize=True)
START = datetime(2024, 3, 1, 12, 0, 0)
START_S = 1_709_294_400  # 2024-03-01 12:00:00 UTC: 19783 days * 86400 + 43200


def settings(path: Path, **columns: str) -> Config:
    roles = {"item": "item_id", **columns}
    return config_from_tree({"data": {"events": str(path)}, "columns": roles, "evaluate": {"protocol": "holdout"}})


def events(tmp_path: Path, table: dict[str, Any] | pl.DataFrame, **columns: str) -> EventLog:
    (table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)).write_parquet(tmp_path / "events.parquet")
    return read_events(settings(tmp_path / "events.parquet", **columns))


def csv_events(tmp_path: Path, text: str, **columns: str) -> EventLog:
    (tmp_path / "events.csv").write_text(text)
    return read_events(settings(tmp_path / "events.csv", **columns))


def test_columns_are_called_by_their_roles_and_the_rest_by_their_own_names(tmp_path: Path) -> None:
    log = events(
        tmp_path,
        {"uid": ["u"], "item_id": [5], "look": [3], "past": [[1, 2]], "at": [START], "stars": [2.5], "weekday": ["fri"], "dwell": [1.0]},
        user="uid",
        seed="look",
        history="past",
        time="at",
        weight="stars",
    )
    assert log.frame.schema == {
        "item": pl.Int64,
        "user": pl.String,
        "seed": pl.Int64,
        "history": pl.List(pl.Int64),
        "time": pl.Int64,
        "weight": pl.Float32,
        "weekday": pl.String,
        "dwell": pl.Float64,
    }
    assert log.frame.row(0) == (5, "u", 3, [1, 2], START_S * 1_000_000, 2.5, "fri", 1.0)
    assert log.context == ["weekday", "dwell"]
    assert log.column_of["seed"] == "look"


def test_ids_come_back_as_they_came(tmp_path: Path) -> None:
    ids = ["007", "85123A", "Fantômas, l'été", "O'Brien", "日本語", " x"]
    quoted = "\n".join(f'"{value}",1' for value in ids)
    assert csv_events(tmp_path, f"item_id,u\n{quoted}\n", user="u").frame["item"].to_list() == ids
    table = pl.DataFrame({"item_id": ids, "u": range(6)})
    assert events(tmp_path, table, user="u").frame["item"].to_list() == ids
    assert events(tmp_path, table.cast({"item_id": pl.Categorical}), user="u").frame["item"].to_list() == ids


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.UInt32, pl.UInt64, pl.Int64])
def test_integers_of_every_width_become_int64(tmp_path: Path, dtype: Any) -> None:
    item = events(tmp_path, {"item_id": pl.Series([100, 7], dtype=dtype), "u": [1, 2]}, user="u").frame["item"]
    assert item.dtype == pl.Int64 and item.to_list() == [100, 7]


def test_the_same_log_comes_from_every_format_and_from_many_files(tmp_path: Path) -> None:
    rows = 13
    at = pl.Series([START + timedelta(seconds=number % 5) for number in range(rows)])
    table = pl.DataFrame(
        {"item_id": [f"0{number}" for number in range(rows)], "u": [1, None, 3, 4, 5] * 2 + [6, 7, 8], "at": at, "x": range(rows)}
    )
    table.write_parquet(tmp_path / "e.parquet")
    table.write_csv(tmp_path / "e.csv")
    table.write_ipc(tmp_path / "e.arrow")
    (tmp_path / "d").mkdir()
    table.head(4).write_csv(tmp_path / "d" / "1.csv")
    table.tail(9).write_csv(tmp_path / "d" / "2.csv")
    logs = [read_events(settings(tmp_path / name, user="u", time="at")) for name in ("e.parquet", "e.csv", "e.arrow", "d", "d/*.csv")]
    for log in logs[1:]:
        assert_frame_equal(log.frame, logs[0].frame)
    assert logs[3].place(0) == "1.csv row 1" and logs[4].place(1) == "2.csv row 2"  # second 0: rows 0, 5, 10 of the table


def test_mixed_zones_in_csv_are_refused_by_the_first_row_of_each_kind(tmp_path: Path) -> None:
    text = "item_id,u,at\n1,1,2024-03-01 10:00\n2,1,2024-03-01 10:00\n3,1,2024-03-01 10:00+01:00\n"
    with pytest.raises(DataError, match=r"'2024-03-01 10:00\+01:00' in events\.csv row 3 and '2024-03-01 10:00' in events\.csv row 1"):
        csv_events(tmp_path, text, user="u", time="at")


def test_events_are_sorted_by_time_and_those_of_one_instant_stay_in_file_order(tmp_path: Path) -> None:
    time = [30, 10, 20, 10, 30, 10, 20]
    log = events(tmp_path, {"item_id": range(7), "u": [1] * 7, "at": time}, user="u", time="at")
    assert log.frame["item"].to_list() == [1, 3, 5, 2, 6, 0, 4]
    assert log.facts["rows_out_of_order"] == 3  # 30>10, 20>10, 30>10
    assert [log.place(row) for row in (0, 5)] == ["events.parquet row 2", "events.parquet row 1"]


@STEADY
@given(st.lists(st.integers(0, 4), min_size=1, max_size=23))
def test_sorting_is_pythons_stable_sort(times: list[int]) -> None:
    frame = pl.DataFrame({"time": times, "row": range(len(times))}, schema={"time": pl.Int64, "row": pl.Int64})
    ordered, places, out_of_order = _sorted_by_time(frame, Places(("e",), (0,)))
    expected = sorted(range(len(times)), key=lambda row: times[row])
    assert ordered["row"].to_list() == expected
    assert [places.of(row) for row in range(len(times))] == [f"e row {row + 1}" for row in expected]
    assert out_of_order == sum(later < earlier for earlier, later in pairwise(times))


def test_without_times_events_keep_the_order_of_the_file(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": [5, 3, 4], "u": [1, 2, 3]}, user="u")
    assert log.frame["item"].to_list() == [5, 3, 4]
    with pytest.raises(ConfigError, match=r"splitting by time needs times.*name \[columns\] time"):
        log.between(0, 1)


def test_between_takes_its_start_and_not_its_end(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": range(5), "u": [1] * 5, "at": [40, 10, 20, 20, 30]}, user="u", time="at")
    part = log.between(20_000_000, 40_000_000)
    assert part.frame["item"].to_list() == [2, 3, 4]
    assert part.place(2) == "events.parquet row 5"
    assert (part.facts["rows"], part.facts["first_time"], part.facts["last_time"]) == (
        3,
        "1970-01-01T00:00:20+00:00",
        "1970-01-01T00:00:30+00:00",
    )
    assert len(log.between(40_000_001, 50_000_000)) == len(log.between(30, 20)) == 0
    assert log.between(40_000_001, 50_000_000).facts["rows"] == 0


def test_a_window_of_a_window_still_knows_the_rows_of_the_file(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": range(7), "u": [1] * 7, "at": range(10, 80, 10)}, user="u", time="at")
    assert log.places.rows is None  # it was in order: nothing to remember
    part = log.between(20_000_000, 70_000_000).between(30_000_000, 60_000_000)
    assert part.frame["item"].to_list() == [2, 3, 4]
    assert [part.place(row) for row in range(3)] == [f"events.parquet row {row}" for row in (3, 4, 5)]
    kept = part.leave_out(pl.Series([False, True, False]), "for this test")
    assert [kept.place(row) for row in range(2)] == ["events.parquet row 3", "events.parquet row 5"]


def test_the_order_by_user_needs_users(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": [1], "s": [2]}, seed="s")
    with pytest.raises(ConfigError, match=r"an order by user needs users.*name \[columns\] user"):
        _ = log.user_order


def test_facts_are_counted_by_hand(tmp_path: Path) -> None:
    log = events(
        tmp_path,
        {
            "item_id": [1, 1, 2, 3, 1],
            "u": [7, 7, 7, None, None],
            "at": [10, 10, 10, 10, 10],
            "s": [None, None, 1, 1, None],
            "w": [0.0, 1.0, 1.0, 1.0, 1.0],
            "x": [1] * 5,
        },
        user="u",
        time="at",
        seed="s",
        weight="w",
    )
    assert log.facts == {
        "rows": 5,
        "items": 3,
        "users": 1,
        "rows_without_user": 2,
        "rows_without_seed": 3,
        "rows_of_weight_0": 1,
        "first_time": "1970-01-01T00:00:10+00:00",
        "last_time": "1970-01-01T00:00:10+00:00",
        "rows_sharing_an_instant": 3,  # user 7's; nobody's two rows share nothing
        "repeated_rows": 1,  # (7, None, 10, 1) twice
        "time_read_as": "epoch seconds",
        "rows_out_of_order": 0,
    }


def test_events_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": range(5), "u": [1] * 5}, user="u")
    kept = log.leave_out(pl.Series([True, False, False, True, False]), "a reason").leave_out(pl.Series([False, True, False]), "another")
    assert kept.left_out == {"a reason": 2, "another": 1}
    assert kept.frame["item"].to_list() == [1, 4] and kept.facts["rows"] == 2 and kept.place(1) == "events.parquet row 5"
    assert log.left_out == {} and len(log) == 5


@pytest.mark.parametrize(
    ("table", "columns", "said"),
    [
        ({"item": [1], "u": [1]}, {"user": "u"}, "must have the item column 'item_id': nearest is 'item'; columns are 'item', 'u'"),
        ({"item_id": [1], "user": [1]}, {"user": "user_id"}, "must have the user column 'user_id': nearest is"),
        (
            {"item_id": [1, None], "u": [1, 2]},
            {"user": "u"},
            "events.parquet row 2: column 'item_id' plays the role item and must have a value",
        ),
        (
            {"item_id": [1.0, None], "u": [1, 2]},
            {"user": "u"},
            "must hold string or integer ids: got Float64; integers beside a missing value",
        ),
        ({"item_id": [1], "u": [1.0]}, {"user": "u"}, "column 'u' plays the role user and must hold string or integer ids: got Float64"),
        ({"item_id": [True], "u": [1]}, {"user": "u"}, "got Boolean"),
        ({"item_id": [[1]], "u": [1]}, {"user": "u"}, "got List(Int64)"),
        (
            {"item_id": pl.Series([1, 2**63], dtype=pl.UInt64), "u": [1, 1]},
            {"user": "u"},
            "row 2: column 'item_id' must fit signed 64-bit integers",
        ),
        (
            {"item_id": [1, 2], "h": pl.Series([[1], [2**63]], dtype=pl.List(pl.UInt64))},
            {"history": "h"},
            "row 2: column 'h' must fit signed 64-bit integers",
        ),
        ({"item_id": [1], "s": ["1"]}, {"seed": "s"}, "seed 's' must hold ids of the type of item 'item_id': got String and Int64"),
        ({"item_id": [1], "h": [["1"]]}, {"history": "h"}, "history 'h' must hold ids of the type of item 'item_id': got"),
        ({"item_id": [1], "h": ["1 2"]}, {"history": "h"}, "plays the role history and must be a list of ids: got String"),
        (
            {"item_id": [1, 2], "h": [[1], [1, None]]},
            {"history": "h"},
            "row 2: column 'h' must not hold nulls inside a list: got [1, None]",
        ),
        ({"item_id": [1, 2], "u": [1, 1], "w": [1.0, -0.5]}, {"user": "u", "weight": "w"}, "row 2: column 'w' plays the role weight"),
        (
            {"item_id": [1, 2], "u": [1, 1], "w": [1.0, float("nan")]},
            {"user": "u", "weight": "w"},
            "row 2: column 'w' plays the role weight",
        ),
        ({"item_id": [1, 2], "u": [1, 1], "w": [1.0, float("inf")]}, {"user": "u", "weight": "w"}, "0 or more: got inf (1 such row)"),
        ({"item_id": [1, 2], "u": [1, 1], "w": [1.0, 1e300]}, {"user": "u", "weight": "w"}, "row 2: column 'w' plays the role weight"),
        ({"item_id": [1, 2], "u": [1, 1], "w": [None, 1.0]}, {"user": "u", "weight": "w"}, "row 1: column 'w' plays the role weight"),
        ({"item_id": [1], "u": [1], "w": ["5"]}, {"user": "u", "weight": "w"}, "must hold numbers: got String"),
        ({"item_id": [1, 2], "x": [0.5, float("nan")]}, {}, "events.parquet row 2: column 'x' must hold finite numbers: got nan"),
        (
            {"item_id": [1, 2, 3], "u": [1, None, None]},
            {"user": "u"},
            "row 2: an event must have a value of user, since there is no context",
        ),
        (
            {"item_id": [1], "uid": [1], "user": [1]},
            {"user": "uid"},
            "column 'user' is called like a role but does not play it ([columns] user = 'uid')",
        ),
        (
            {"item_id": [1], "u": [1], "time": [1]},
            {"user": "u"},
            "([columns] time is not set); rename the column, or set [columns] time = 'time'",
        ),
    ],
)
def test_a_broken_event_table_is_refused(tmp_path: Path, table: dict[str, Any], columns: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        events(tmp_path, table, **columns)
    assert said in str(caught.value)


def test_a_float_id_column_in_csv_is_refused_like_one_in_parquet(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'s' plays the role seed and must hold string or integer ids: got Float64; integers beside a missing"
    ):
        csv_events(tmp_path, "item_id,s,u\n1,2.0,a\n3,,b\n", seed="s", user="u")


def test_a_query_needs_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has neither user, seed nor any context column"):
        events(tmp_path, {"item_id": [1], "at": [1]}, time="at")


def test_one_column_plays_one_role(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must play one role: got 'item_id' for item and seed"):
        events(tmp_path, {"item_id": [1]}, seed="item_id")


def test_nobody_may_choose_where_there_is_context_or_a_seed(tmp_path: Path) -> None:
    assert len(events(tmp_path, {"item_id": [1, 2], "u": [None, 1], "x": ["a", None]}, user="u")) == 2
    assert len(events(tmp_path, {"item_id": [1, 2], "u": [None, 1], "s": [2, None]}, user="u", seed="s")) == 2


def test_a_seed_column_without_any_value_has_the_type_of_the_items(tmp_path: Path) -> None:
    assert csv_events(tmp_path, "item_id,s,u\n1,,a\n", seed="s", user="u").frame["seed"].dtype == pl.Int64
    assert events(tmp_path, {"item_id": ["1"], "s": [None], "x": [1]}, seed="s").frame["seed"].dtype == pl.String


def test_faults_in_many_files_name_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "events-1.csv").write_text("item_id,u\n" + "1,1\n" * 7)
    (tmp_path / "events-2.csv").write_text("item_id,u\n" + "1,1\n" * 16 + ",1\n")
    with pytest.raises(DataError, match=r"events-2\.csv row 17: column 'item_id' plays the role item"):
        read_events(settings(tmp_path / "events-*.csv", user="u"))


def test_times_are_shown_in_utc(tmp_path: Path) -> None:
    log = events(tmp_path, {"item_id": [1], "u": [1], "at": [START.replace(tzinfo=UTC)]}, user="u", time="at")
    assert log.facts["first_time"] == "2024-03-01T12:00:00+00:00"
