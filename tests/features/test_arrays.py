"""The three shapes of a feature: taking rows, and flattening to be saved."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids, columns_from_flat, flat_arrays, ragged_positions

STEADY = property_settings(deadline=None, derandomize=True)


def bag_of(lists: list[list[int]]) -> Bag:
    """A bag whose weights are its values plus a half, so that a weight that leaves its value shows."""
    values = np.array([value for line in lists for value in line], np.int32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Bag(values, offsets, (values + 0.5).astype(np.float32))


def lists_of(bag: Bag) -> list[list[int]]:
    assert np.array_equal(bag.weights, bag.values + np.float32(0.5))
    return [bag.values[a:b].tolist() for a, b in zip(bag.offsets[:-1], bag.offsets[1:], strict=True)]


def test_the_positions_of_ranges_follow_each_other_and_empty_ranges_leave_no_trace() -> None:
    positions, offsets = ragged_positions(np.array([5, 2, 9, 2]), np.array([7, 2, 10, 5]))
    assert positions.tolist() == [5, 6, 9, 2, 3, 4]
    assert offsets.tolist() == [0, 2, 2, 3, 6]


@STEADY
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 7)), max_size=13))
def test_the_positions_of_ranges_are_those_of_a_plain_loop(ranges: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in ranges], np.int64)
    lengths = np.array([length for _, length in ranges], np.int64)
    positions, offsets = ragged_positions(starts, starts + lengths)
    assert positions.tolist() == [place for start, length in ranges for place in range(start, start + length)]
    assert np.diff(offsets).tolist() == lengths.tolist()


def test_every_shape_takes_rows_in_the_order_asked_and_minus_one_is_the_last() -> None:
    rows = np.array([2, -1, 0, 2])
    assert Ids(np.array([10, 11, 12, 13], np.int32)).take(rows).values.tolist() == [12, 13, 10, 12]
    assert Dense(np.arange(8, dtype=np.float32).reshape(4, 2)).take(rows).values.tolist() == [[4, 5], [6, 7], [0, 1], [4, 5]]
    assert lists_of(bag_of([[1], [2, 3], [4, 5, 6], [7]]).take(rows)) == [[4, 5, 6], [7], [1], [4, 5, 6]]


def test_taking_no_row_leaves_an_empty_array_of_the_same_shape() -> None:
    nothing = np.zeros(0, np.int64)
    assert len(bag_of([[1], [2]]).take(nothing)) == len(Ids(np.ones(3, np.int32)).take(nothing)) == 0
    assert Dense(np.ones((3, 5), np.float32)).take(nothing).values.shape == (0, 5)


@STEADY
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=11), st.data())
def test_a_bag_takes_whole_entries(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(-1, len(lists) - 1), max_size=17))
    assert lists_of(bag_of(lists).take(np.array(rows, np.int64))) == [lists[row] for row in rows]


@STEADY
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=11), st.data())
def test_a_range_of_rows_is_cut_as_it_would_be_taken(lists: list[list[int]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(lists)))
    rows = slice(start, data.draw(st.integers(start, len(lists))))
    cut = bag_of(lists).cut(rows)
    assert lists_of(cut) == lists[rows] and cut.offsets[0] == 0
    numbers = np.arange(len(lists), dtype=np.int32)
    assert Ids(numbers).cut(rows).values.tolist() == numbers[rows].tolist()
    dense = Dense(numbers[:, None].astype(np.float32))
    assert dense.cut(rows).values.tolist() == dense.values[rows].tolist()
    assert np.shares_memory(dense.cut(slice(0, 1)).values, dense.values)


def test_flat_arrays_come_back_with_their_names_shapes_and_order() -> None:
    columns: dict[str, FeatureArray] = {
        "z.dotted name": Ids(np.array([1, 2], np.int32)),
        "price/kg#bucket": bag_of([[1, 2], [3]]),
        "a": Dense(np.ones((2, 3), np.float32)),
    }
    back = columns_from_flat(flat_arrays(columns))
    assert list(back) == list(columns)  # a model joins its features in this order
    for name, column in columns.items():
        assert type(back[name]) is type(column)
        for part, array in column.arrays().items():
            assert np.array_equal(back[name].arrays()[part], array)
