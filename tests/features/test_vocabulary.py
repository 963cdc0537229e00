"""Ids and categories: known values, unknown ones, missing ones, one at a time and in bags."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

import shortlist
from shortlist.errors import DataError
from shortlist.features.vocabulary import CategoriesEncoder, CategoryEncoder, Vocabulary, fit_vocabulary
from shortlist.sections import FeatureSettings

STEADY = property_settings(deadline=None, derandomize=True)


def fitted(values: Sequence[object], *, unknown_buckets: int = 1, min_count: int = 1, dtype: pl.DataType | None = None) -> Vocabulary:
    settings = FeatureSettings(kind="category", unknown_buckets=unknown_buckets, min_count=min_count)
    return fit_vocabulary(pl.Series("c", values, dtype=dtype), settings)


def rows(vocabulary: Vocabulary, values: Sequence[object]) -> list[int]:
    return [int(row) for row in vocabulary.rows(pl.Series("c", values))]


def test_rows_are_missing_then_unknown_buckets_then_the_known_values_in_order() -> None:
    vocabulary = fitted(["pear", "apple", None, "pear", "fig"], unknown_buckets=3)
    assert vocabulary.table_rows == 1 + 3 + 3
    # missing 0; unknown 1, 2, 3; apple 4, fig 5, pear 6
    assert rows(vocabulary, ["fig", None, "pear", "apple"]) == [5, 0, 6, 4]
    assert set(rows(vocabulary, ["kiwi", "Pear", "pear ", ""])) <= {1, 2, 3}


def test_values_seen_too_seldom_are_unknown_and_nulls_are_not_counted() -> None:
    vocabulary = fitted(["a", "a", "b", None, None, None, "c", "c", "c"], min_count=2)
    assert vocabulary.values.to_list() == ["a", "c"]
    assert rows(vocabulary, ["a", "b", "c", None]) == [2, 1, 3, 0]


def test_leading_zeros_make_different_ids() -> None:
    assert rows(fitted(["7", "007", "07"]), ["07", "7", "007", "0007"]) == [3, 4, 2, 1]  # order: 007, 07, 7


def test_integers_are_ordered_by_value_and_any_width_is_the_same_integer() -> None:
    vocabulary = fitted([10, 9, -3, 9])
    for dtype in (pl.Int64, pl.Int32, pl.Int8):
        assert vocabulary.rows(pl.Series("c", [9, 10, -3, 4, None], dtype=dtype)).tolist() == [3, 4, 2, 1, 0]


def test_booleans_and_categoricals_are_values_like_others() -> None:
    assert rows(fitted([True, False, None]), [True, None, False]) == [3, 0, 2]
    labels = pl.Series("c", ["b", "a", None], dtype=pl.Categorical)
    vocabulary = fit_vocabulary(labels, FeatureSettings(kind="category"))
    assert vocabulary.rows(labels).tolist() == rows(vocabulary, ["b", "a", None]) == [3, 2, 0]


@pytest.mark.parametrize(
    ("known", "asked"), [(["7", "8"], [7, 8]), ([7, 8], ["7", "abc"]), ([7], [7.0]), (["a"], [True]), ([7], [["x"]]), (["a"], [1.5])]
)
def test_a_column_of_another_type_than_in_training_is_refused(known: Sequence[object], asked: Sequence[object]) -> None:
    with pytest.raises(DataError, match=r"column 'c' must hold .*: got (Int64|String|Float64|List).*; convert it"):
        rows(fitted(known), asked)


def test_a_column_without_any_value_is_missing_whatever_its_type() -> None:
    for vocabulary in (fitted(["a"]), fitted([1]), fitted([None])):
        assert rows(vocabulary, [None, None]) == [0, 0]


def test_a_vocabulary_of_nothing_knows_nothing_and_every_value_is_unknown() -> None:
    vocabulary = fitted([None], unknown_buckets=2)
    assert vocabulary.table_rows == 3
    assert set(rows(vocabulary, ["a", "b", "c", "d", "e"])) == {1, 2}
    assert set(rows(vocabulary, [1, 2, 3, 4, 5])) <= {1, 2}


def test_unknown_values_spread_over_their_buckets_and_keep_theirs() -> None:
    vocabulary = fitted(["known"], unknown_buckets=7)
    strangers: list[object] = [f"s{number}" for number in range(7 * 101)]
    found = np.array(rows(vocabulary, strangers))
    counts = np.bincount(found, minlength=9)
    assert counts[0] == counts[8] == 0
    # 101 expected in each, standard deviation sqrt(707 * 1/7 * 6/7) = 9.3: five of them is 47
    assert (np.abs(counts[1:8] - 101) < 47).all()
    assert rows(vocabulary, strangers[::-1]) == found[::-1].tolist()
    assert found.tolist() == vocabulary.unknown_rows(pl.Series(strangers)).tolist()


@STEADY
@given(
    st.lists(st.text("abc07'’é", max_size=3), max_size=40),
    st.lists(st.none() | st.text("abc07'’é", max_size=3), min_size=1, max_size=11),
    st.sampled_from([1, 5]),
)
def test_alone_in_blocks_and_in_bulk_a_value_has_one_row(known: list[str], asked: list[str | None], buckets: int) -> None:
    vocabulary = fitted(known, unknown_buckets=buckets, dtype=pl.String())
    values = pl.Series("c", asked, dtype=pl.String)
    bulk = vocabulary.rows(values)
    alone = [int(vocabulary.rows(values[place : place + 1])[0]) for place in range(len(values))]
    expected_known = {value: 1 + buckets + place for place, value in enumerate(sorted(set(known), key=lambda text: text.encode()))}
    for value, row in zip(asked, bulk, strict=True):
        if value is None:
            assert row == 0
        elif value in expected_known:
            assert row == expected_known[value]
        else:
            assert 1 <= row <= buckets
    assert bulk.tolist() == alone
    assert np.concatenate([vocabulary.rows(values[:3]), vocabulary.rows(values[3:])]).tolist() == alone


def test_few_values_are_found_in_a_large_vocabulary_as_many_are() -> None:
    vocabulary = fitted(list(range(0, 4001, 2)))  # 2001 known: halving answers up to 125 values, a join more
    asked = pl.Series("c", [0, 4000, 3, None, -1, 4002, 2000])
    found = vocabulary.rows(asked).tolist()
    assert found == [2, 2002, 1, 0, 1, 1, 1002]
    assert vocabulary.rows(pl.concat([asked] * 31)).tolist() == found * 31


def test_a_bag_holds_the_rows_of_its_list_with_equal_weights() -> None:
    encoder = CategoriesEncoder(fitted(["x", "y", "z"]))
    bag = encoder.encode(pl.Series("t", [["z", "x"], [], None, ["new"], ["y", None, "y"]]))
    # missing 0, unknown 1, x 2, y 3, z 4
    assert bag.values.tolist() == [4, 2, 0, 0, 1, 3, 0, 3]
    assert bag.offsets.tolist() == [0, 2, 3, 4, 5, 8]
    assert bag.weights.tolist() == [0.5, 0.5, 1, 1, 1, *[np.float32(1 / 3)] * 3]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("t", [None, None]),
        pl.Series("t", [[], None]),
        pl.Series("t", [None, None], dtype=pl.List(pl.String)),
        pl.Series("t", [[None], []], dtype=pl.List(pl.Null)),
    ],
)
def test_a_bag_is_never_empty(values: pl.Series) -> None:
    bag = CategoriesEncoder(fitted(["x"])).encode(values)
    assert (bag.values.tolist(), bag.offsets.tolist(), bag.weights.tolist()) == ([0, 0], [0, 1, 2], [1, 1])


def test_no_row_at_all_gives_no_bag() -> None:
    assert len(CategoriesEncoder(fitted(["x"])).encode(pl.Series("t", [], dtype=pl.List(pl.String)))) == 0


def test_arrays_of_one_length_are_lists_too_and_other_columns_are_refused() -> None:
    encoder = CategoriesEncoder(fitted([5, 6]))
    values = pl.Series("t", [[6, 5], [5, 9]], dtype=pl.Array(pl.Int64, 2))
    assert encoder.encode(values).values.tolist() == [3, 2, 2, 1]
    with pytest.raises(DataError, match="column 't' must hold lists, as in training: got String; write one list a row"):
        encoder.encode(pl.Series("t", ["x"]))


def test_many_lists_agree_with_a_plain_loop_and_with_each_alone() -> None:
    rng = np.random.default_rng(3)
    lists = [rng.integers(0, 19, length).tolist() if length < 5 else None for length in rng.integers(0, 6, 101)]
    encoder = CategoriesEncoder(fitted(list(range(0, 13)), unknown_buckets=1))
    values = pl.Series("t", lists, dtype=pl.List(pl.Int64))
    bag = encoder.encode(values)
    for place, line in enumerate(lists):
        expected = [2 + value if value < 13 else 1 for value in line] if line else [0]
        a, b = bag.offsets[place : place + 2]
        alone = encoder.encode(values[place : place + 1])
        assert bag.values[a:b].tolist() == expected == alone.values.tolist()
        assert bag.weights[a:b].tobytes() == alone.weights.tobytes() == np.full(len(expected), 1 / len(expected), np.float32).tobytes()


def test_one_value_a_row_is_one_id_a_row() -> None:
    assert CategoryEncoder(fitted(["a", "b"])).encode(pl.Series("c", ["b", None, "q"])).values.tolist() == [3, 0, 1]


def test_two_processes_share_the_buckets_of_unknown_values() -> None:
    program = (
        "import polars as pl; from shortlist.features.vocabulary import Vocabulary;"
        "print(Vocabulary(pl.Series(['k']), 1009).rows(pl.Series(['naïve', 'don’t', '007', 'x'])).tolist())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(shortlist.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = Vocabulary(pl.Series(["k"]), 1009).rows(pl.Series(["naïve", "don’t", "007", "x"])).tolist()
    assert answers == {f"{here}\n"}
