"""Queries from a frame: any role may be missing, null or unknown, alone or in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.catalogue import Catalogue
from shortlist.errors import DataError
from shortlist.features.arrays import flat_arrays
from shortlist.features.encoder import TableEncoder, fit_encoder
from shortlist.queries import Queries, QueryEncoder, open_query_encoder
from shortlist.sections import FeatureKind, FeatureSettings

STEADY = property_settings(deadline=None, derandomize=True)
ITEMS = Catalogue(pl.DataFrame({"item_id": ["a", "b", "c", "d", "e"]}), "item_id", "items")  # rows 0..4
USERS = Catalogue(pl.DataFrame({"user_id": [7, 8, 9], "age": ["x", "y", "x"]}), "user_id", "users")
CONTEXT = pl.DataFrame(
    {"day": ["mon", "tue"], "hour": [3, 5], "said": ["red fish", None], "tags": [["p", "q"], []], "at": [[1.0, 2.0], None]}
)
KINDS: dict[str, FeatureKind] = {"day": "category", "hour": "number", "said": "text", "tags": "categories", "at": "vector"}


def encoder(*, has_seed: bool = True, context: bool = False) -> QueryEncoder:
    features = {name: (name, FeatureSettings(kind=kind)) for name, kind in KINDS.items()} if context else {}
    users = fit_encoder({"users.age": ("age", FeatureSettings(kind="category"))}, USERS.frame, seen=np.ones(3, bool))
    return QueryEncoder(users, fit_encoder(features, CONTEXT, seen=np.ones(2, bool)), has_seed, history_last=3)


def histories(queries: Queries) -> list[list[int]]:
    return [queries.history(query).tolist() for query in range(len(queries))]


def test_roles_become_rows_and_what_the_tables_do_not_know_is_none() -> None:
    frame = pl.DataFrame({"user": [9, 4, None], "seed": ["e", "zzz", None], "history": [["b", "a"], ["q", "c", "q", "d"], None]})
    queries = encoder().encode(frame, ITEMS, USERS)
    assert queries.user_row.tolist() == [2, -1, -1]
    assert queries.seed_row.tolist() == [4, -1, -1]  # an unknown seed is not replaced by the history: something was looked at
    assert histories(queries) == [[1, 0], [2, 3], []]  # unknown items are left out
    assert [array.dtype for array in (queries.seed_row, queries.user_row, queries.history_items)] == [np.int32] * 3


def test_a_missing_seed_is_the_newest_known_item_of_the_history() -> None:
    frame = pl.DataFrame({"seed": ["a", None, None, None, None], "history": [["b"], ["b", "c"], ["d", "q"], ["q"], []]})
    assert encoder().encode(frame, ITEMS, None).seed_row.tolist() == [0, 2, 3, -1, -1]
    assert encoder().encode(frame.drop("seed"), ITEMS, None).seed_row.tolist() == [1, 2, 3, -1, -1]
    all_null = frame.with_columns(seed=pl.lit(None))  # a column of no type at all
    assert encoder().encode(all_null, ITEMS, None).seed_row.tolist() == [1, 2, 3, -1, -1]


def test_a_model_without_a_seed_has_none_even_where_the_frame_has() -> None:
    frame = pl.DataFrame({"seed": ["a"], "history": [["b"]]})
    queries = encoder(has_seed=False).encode(frame, ITEMS, None)
    assert (queries.seed_row.tolist(), histories(queries)) == ([-1], [[1]])


def test_no_role_is_needed() -> None:
    queries = encoder().encode(pl.DataFrame({"other": [1, 2, 3]}), ITEMS, USERS)
    assert (queries.seed_row.tolist(), queries.user_row.tolist(), histories(queries)) == ([-1] * 3, [-1] * 3, [[], [], []])
    assert queries.newest_first(2).tolist() == [[-1, -1]] * 3


def test_no_query_gives_no_query() -> None:
    frame = pl.DataFrame(schema={"user": pl.Int64, "seed": pl.String, "history": pl.List(pl.String)})
    queries = encoder(context=True).encode(frame, ITEMS, USERS)
    assert len(queries) == 0 and queries.newest_first(3).shape == (0, 3)


def test_nulls_inside_a_history_and_histories_of_nothing_are_left_out() -> None:
    frame = pl.DataFrame({"history": [[None, "a", None], [None], [], None]})
    assert histories(encoder().encode(frame, ITEMS, None)) == [[0], [], [], []]
    nothing = pl.DataFrame({"history": [[], None]}, schema={"history": pl.List(pl.Null)})
    assert histories(encoder().encode(nothing, ITEMS, None)) == [[], []]


def test_arrays_of_one_length_are_histories_too_and_text_is_not() -> None:
    frame = pl.DataFrame({"history": [["a", "c"]]}, schema={"history": pl.Array(pl.String, 2)})
    assert histories(encoder().encode(frame, ITEMS, None)) == [[0, 2]]
    with pytest.raises(DataError, match="the history must be a list column: got String; write one list of item ids a row"):
        encoder().encode(pl.DataFrame({"history": ["a"]}), ITEMS, None)


def test_ids_of_another_type_are_refused() -> None:
    for frame in (pl.DataFrame({"seed": [1]}), pl.DataFrame({"history": [[1]]})):
        with pytest.raises(DataError, match=r"ids of items are String: got .* of Int64; convert it"):
            encoder().encode(frame, ITEMS, None)


def test_context_that_is_missing_is_missing_in_every_kind() -> None:
    bare = pl.DataFrame({"seed": ["a", "b"]})
    null = bare.with_columns(**{name: pl.lit(None) for name in KINDS})
    typed = bare.with_columns(**{name: pl.lit(None, dtype=dtype) for name, dtype in CONTEXT.schema.items()})
    arrays = [flat_arrays(encoder(context=True).encode(frame, ITEMS, None).context) for frame in (bare, null, typed)]
    assert list(arrays[0]) == list(arrays[1]) == list(arrays[2])
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes() == arrays[2][name].tobytes()
    assert arrays[0]["day.ids.values"].tolist() == [0, 0] and arrays[0]["hour.dense.values"].tolist() == [[0, 1], [0, 1]]
    assert arrays[0]["tags.bag.values"].tolist() == arrays[0]["said.bag.values"].tolist() == [0, 0]
    assert arrays[0]["at.dense.values"].tolist() == [[0, 0, 1], [0, 0, 1]]


def batch(count: int = 23) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    ids = np.array(["a", "b", "c", "d", "e", "unknown"])
    return pl.DataFrame(
        {
            "user": [None if number % 5 == 0 else 6 + number % 4 for number in range(count)],
            "seed": [None if number % 3 == 0 else str(rng.choice(ids)) for number in range(count)],
            "history": [None if number % 7 == 0 else rng.choice(ids, number % 6).tolist() for number in range(count)],
            "day": [None if number % 4 == 0 else ["mon", "sun"][number % 2] for number in range(count)],
            "hour": [None if number % 6 == 0 else number for number in range(count)],
            "said": [None if number % 2 == 0 else "red " * (number % 3) + "bird" for number in range(count)],
            "tags": [["p", "r"][: number % 3] for number in range(count)],
            "at": [None if number % 3 == 1 else [float(number), 0.5] for number in range(count)],
        }
    )


def test_one_query_at_a_time_equals_the_batch() -> None:
    frame = batch()
    made = encoder(context=True)
    whole = made.encode(frame, ITEMS, USERS)
    for row in range(frame.height):
        alone, taken = made.encode(frame[row : row + 1], ITEMS, USERS), whole.take(np.array([row]))
        assert (alone.seed_row.tolist(), alone.user_row.tolist()) == (taken.seed_row.tolist(), taken.user_row.tolist())
        assert histories(alone) == histories(taken)
        for name, array in flat_arrays(alone.context).items():
            assert array.tobytes() == flat_arrays(taken.context)[name].tobytes()


def test_a_reopened_encoder_encodes_alike(tmp_path: Path) -> None:
    made = encoder(context=True)
    made.save(tmp_path)
    again = open_query_encoder(tmp_path)
    assert (again.has_seed, again.history_last) == (True, 3)
    a, b = made.encode(batch(), ITEMS, USERS), again.encode(batch(), ITEMS, USERS)
    assert a.seed_row.tolist() == b.seed_row.tolist() and histories(a) == histories(b)
    for name, array in flat_arrays(a.context).items():
        assert array.tobytes() == flat_arrays(b.context)[name].tobytes()
    assert isinstance(again.user, TableEncoder) and again.user.embedded == made.user.embedded


@STEADY
@given(st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=13), st.integers(0, 5), st.data())
def test_newest_first_agrees_with_a_plain_loop(lists: list[list[int]], last: int, data: st.DataObject) -> None:
    ends = np.cumsum([len(line) for line in lists]).astype(np.int64)
    flat = np.array([item for line in lists for item in line], np.int32)
    nobody = np.full(len(lists), -1, np.int32)
    queries = Queries(nobody, nobody, flat, ends - np.array([len(line) for line in lists], np.int64), ends)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=17))
    found = queries.take(np.array(rows, np.int64)).newest_first(last)
    assert found.shape == (len(rows), last)
    assert found.tolist() == [([*lists[row][::-1], *[-1] * last])[:last] for row in rows]


def test_looking_at_the_newest_changes_only_the_rows_asked_for_and_not_the_queries_themselves() -> None:
    start, end = np.array([0, 2, 2]), np.array([2, 2, 3])
    queries = Queries(np.array([4, 4, 4], np.int32), np.full(3, -1, np.int32), np.array([0, 1, 2], np.int32), start, end)
    assert queries.looking_at_newest(np.array([True, True, False])).seed_row.tolist() == [1, -1, 4]
    assert queries.seed_row.tolist() == [4, 4, 4]


def test_item_rows_of_another_catalogue_and_histories_of_ones_own() -> None:
    """Item 1 is gone, 0 -> 5, 2 -> 0, 3 -> 3. The histories overlap in one shared array; afterwards each has its own stretch."""
    shared = np.array([0, 1, 2, 3, 1], np.int32)
    start, end = np.array([0, 1, 4, 2, 5]), np.array([4, 3, 5, 2, 5])
    queries = Queries(np.array([1, 2, -1, 0, 3], np.int32), np.array([4, 3, -1, 1, 0], np.int32), shared, start, end)
    moved = queries.with_item_rows(np.array([5, -1, 0, 3], np.int32))
    assert moved.seed_row.tolist() == [-1, 0, -1, 5, 3] and moved.user_row is queries.user_row
    assert histories(moved) == [[5, 0, 3], [0], [], [], []]
    assert moved.history_items.tolist() == [5, 0, 3, 0]
    assert (moved.seed_row.dtype, moved.history_items.dtype) == (np.int32, np.int32)
    same = queries.with_item_rows(np.arange(4, dtype=np.int32))
    assert histories(same) == histories(queries) and same.seed_row.tolist() == queries.seed_row.tolist()
    nobody = queries.take(np.arange(0)).with_item_rows(np.arange(4, dtype=np.int32))
    assert len(nobody) == 0 and len(nobody.history_start) == len(nobody.history_end) == 0
