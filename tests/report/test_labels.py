"""Names keep off each other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.report.labels import Box, beside_points, spread, text_width


def test_names_that_have_room_stay_where_they_want_to_be() -> None:
    assert spread([10.0, 90.0, 50.0], 15, 0, 100) == [10.0, 90.0, 50.0]


def test_names_that_touch_move_apart_around_their_mean() -> None:
    # 50 and 52 want the same place: 15 apart around 51
    assert spread([50.0, 52.0], 15, 0, 100) == pytest.approx([43.5, 58.5])
    assert spread([52.0, 50.0], 15, 0, 100) == pytest.approx([58.5, 43.5])


def test_at_the_edge_they_move_inwards_and_where_all_do_not_fit_they_stand_evenly() -> None:
    assert spread([99.0, 100.0], 15, 0, 100) == pytest.approx([85, 100])
    assert spread([5.0, 5.0, 5.0], 80, 0, 100) == pytest.approx([0, 50, 100])
    assert spread([], 15, 0, 100) == []


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=9), st.floats(1, 30))
def test_spread_names_are_apart_in_order_and_inside(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap, 0, 100)
    room = min(gap, 100 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert all(places[after] - places[before] >= room - 1e-6 for before, after in itertools.pairwise(order))
    assert min(places) >= -1e-6 and max(places) <= 100 + 1e-6


@given(st.lists(st.tuples(st.floats(30, 300), st.floats(30, 200)), min_size=1, max_size=6))
def test_names_beside_points_never_lie_upon_each_other_while_there_is_room(points: list[tuple[float, float]]) -> None:
    names = [f"model {number}" for number in range(len(points))]
    inside = Box(0, 0, 460, 260)
    width, half = text_width("model 0", 13.5), 13.5 * 0.6
    boxes = [Box(x, y - half, x + width, y + half) for x, y in beside_points(points, names, 13.5, inside)]
    crowded = [(left, right) for left, right in itertools.combinations(boxes, 2) if left.overlaps(right)]
    assert not crowded or len(points) > 3  # up to three names always find a place; of more, those that do not fit go to the right


def test_a_name_stands_right_of_its_point_else_left_else_above() -> None:
    inside = Box(0, 0, 200, 100)
    width = text_width("abc", 10)
    assert beside_points([(50, 50)], ["abc"], 10, inside) == [(59, 50)]
    assert beside_points([(190, 50)], ["abc"], 10, inside) == [(190 - 9 - width, 50)]
    # the point beside it takes both sides: the name goes up or down by 1.15 of the font size
    ((left, middle), _, _) = beside_points([(100, 50), (115, 50), (88, 50)], ["abc", "x", "y"], 10, inside)
    assert abs(middle - 50) == pytest.approx(11.5) and left == 109
