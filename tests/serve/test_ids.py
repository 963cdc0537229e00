"""Ids to rows and back: what a dictionary says, for integers and strings, few and many."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import BadRequestError
from shortlist.serve import ids as serve_ids
from shortlist.serve.ids import SHORT, HashedIds, IdTable, IntegerIds, KeptIds, _Joined, _Padded, _store_of, open_ids

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=5)
LONG = st.tuples(TEXTS, st.sampled_from(["", "\0", "x" * 97])).map("".join)  # joined, not padded
TABLES = {
    "integers": (IntegerIds, INTEGERS),
    "kept": (KeptIds, TEXTS),
    "kept, some long": (KeptIds, TEXTS | st.text("ab", min_size=SHORT - 1, max_size=SHORT + 1)),
    "hashed": (HashedIds, TEXTS),
    "long": (HashedIds, LONG),
}


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_rows_and_ids_are_those_of_a_dictionary(name: str, data: st.DataObject) -> None:
    kind, values = TABLES[name]
    ids = data.draw(st.lists(values, unique=True, max_size=40))
    asked = data.draw(st.lists(values | st.sampled_from(ids) if ids else values, max_size=20))
    series = pl.Series("id", ids, dtype=pl.Int64 if name == "integers" else pl.String)
    table: IdTable = kind(series.to_numpy() if name == "integers" else series, "item")
    place = {value: row for row, value in enumerate(ids)}
    assert len(table) == len(ids)
    assert table.rows_of(asked).tolist() == [place.get(value, -1) for value in asked]
    assert [table.row_of(value) for value in asked] == [place.get(value, -1) for value in asked]
    known = [value for value in asked if value in place]
    assert table.ids_of(table.rows_of(known)) == known
    in_order: IdTable = kind(series.sort().to_numpy() if name == "integers" else series.sort(), "item")
    assert [in_order.place_of(value) for value in asked] == [sum(other < value for other in ids) for value in asked]


@pytest.mark.parametrize("name", TABLES)
def test_ids_of_another_type_are_refused_without_being_repeated(name: str) -> None:
    kind, _ = TABLES[name]
    series = pl.Series([1, 2]) if name == "integers" else pl.Series(["a", "b"])
    table: IdTable = kind(series.to_numpy() if name == "integers" else series, "user")
    fitting, other = (1, "alice@example.org") if name == "integers" else ("a", 4711)
    wanted = "an integer" if name == "integers" else "a string"
    for value in (other, True, 1.5, None, ["a"]):
        with pytest.raises(
            BadRequestError, match=f"ids of users must be of the version's type, {wanted}: got {type(value).__name__}"
        ) as refused:
            table.rows_of([fitting, value])  # type: ignore[list-item]
        assert "alice" not in str(refused.value) and "4711" not in str(refused.value)


def test_an_integer_larger_than_any_id_is_unknown() -> None:
    table = open_ids(pl.Series([5, 2**63 - 1]), "item")
    assert table.rows_of([2**63, -(2**70), 5, 2**63 - 1]).tolist() == [-1, -1, 0, 1]


@pytest.mark.parametrize("kind", [KeptIds, HashedIds])
def test_text_that_no_table_can_hold_is_unknown(kind: type[KeptIds | HashedIds]) -> None:
    assert kind(pl.Series(["a", "\ufffd"]), "item").rows_of(["\ud800", "a"]).tolist() == [-1, 0]


def test_many_strings_keep_no_objects() -> None:
    assert isinstance(open_ids(pl.Series([f"i{row}" for row in range(300_001)]), "item"), HashedIds)
    assert isinstance(open_ids(pl.Series(["a"]), "item"), KeptIds)


def test_strings_are_padded_unless_that_takes_more_or_loses_a_zero() -> None:
    for ids, kind in (
        (["a", "bc", ""], _Padded),
        (["a" * 11, "b", "c"], _Padded),  # 3 * 11 = 33 bytes, joined 13 + 3 * 8 = 37
        (["a" * 14, "b", "c"], _Joined),  # 42 against 40
        (["a\0", "b"], _Joined),
        (["a\0b", "é"], _Padded),
    ):
        stored = _store_of(pl.Series(ids))
        assert type(stored) is kind
        assert stored.at(np.arange(len(ids))) == ids and stored.at(np.array([len(ids) - 1, 0])) == [ids[-1], ids[0]]


@pytest.mark.parametrize("one_by_one", [0, 2000])
def test_ids_whose_guesses_collide_are_told_apart(one_by_one: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ids, "ONE_BY_ONE", one_by_one)
    ids = [f"i{row}" for row in range(997)]
    table = KeptIds(pl.Series(ids), "item")
    first, second, _ = (len({*guesses.tolist()}) for guesses, _ in table._guesses)
    assert 997 > first > second > 1, "none lose their guess: the test shows nothing"
    assert table.rows_of(ids).tolist() == list(range(997))
    assert table.rows_of([f"j{row}" for row in range(997)]).tolist() == [-1] * 997


@pytest.mark.parametrize("one_by_one", [0, 2000])
def test_ids_of_one_hash_are_told_apart(one_by_one: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ids, "ONE_BY_ONE", one_by_one)
    monkeypatch.setattr(serve_ids, "_hashes", lambda values: np.array([len(value) for value in values], np.int64))
    ids = ["ab", "cd", "xyz", "ef", "", "kl", "mn"]  # five of one hash, and three tables
    table = KeptIds(pl.Series(ids), "item")
    assert len(table._others) == 2
    assert table.rows_of([*ids, "gh", "u", "xy"]).tolist() == [0, 1, 2, 3, 4, 5, 6, -1, -1, -1]
    assert [table.row_of(value) for value in (*ids, "gh")] == [0, 1, 2, 3, 4, 5, 6, -1]


def test_zero_letters_at_the_end_of_an_id_come_back() -> None:
    ids = ["a", "a\0", "a\0\0", "\0", ""]
    table = KeptIds(pl.Series(ids), "item")
    assert table.ids_of(np.arange(5)) == ids and table.rows_of(ids).tolist() == [0, 1, 2, 3, 4]
