"""Places and ticks of axes, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.errors import ShapeError
from shortlist.report.scales import Axis, linear_axis, log_axis, named_axis


def test_a_linear_axis_ends_at_round_numbers_around_its_values() -> None:
    axis = linear_axis("recall", [0.31, 0.62])
    # .31 over about 5 steps = .062, rounded up to .1: from .3 to .7
    assert (axis.low, axis.high) == pytest.approx((0.3, 0.7))
    assert [text for _, text in axis.ticks] == ["0.3", "0.4", "0.5", "0.6", "0.7"]
    assert axis.place(0.3) == pytest.approx(0) and axis.place(0.5) == pytest.approx(0.5) and axis.place(0.7) == pytest.approx(1)


def test_an_axis_from_zero_starts_there_and_says_as_many_decimals_as_its_steps_have() -> None:
    axis = linear_axis("recall", [0.9, 1.2], from_zero=True)
    # 1.2 / 5 = .24, rounded up to .25
    assert [text for _, text in axis.ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"]
    assert [text for _, text in linear_axis("step", [0, 12_345], from_zero=True).ticks] == [
        *("0", "2,500", "5,000", "7,500", "10,000", "12,500")
    ]


@pytest.mark.parametrize(("values", "ends"), [([0.0, 0.0], (0, 1)), ([3.0], (0, 3)), ([-2.0], (-2, 0))])
def test_a_single_value_still_has_an_axis(values: list[float], ends: tuple[float, float]) -> None:
    axis = linear_axis("x", values)
    assert (axis.low, axis.high) == pytest.approx(ends)


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6), min_size=1, max_size=7), st.booleans())
def test_every_value_lies_on_its_axis_and_ticks_rise_evenly(values: list[float], from_zero: bool) -> None:
    if from_zero:
        values = [abs(value) for value in values]
    axis = linear_axis("x", values, from_zero=from_zero)
    assert all(-1e-6 <= axis.place(value) <= 1 + 1e-6 for value in values)
    steps = [after - before for (before, _), (after, _) in zip(axis.ticks, axis.ticks[1:], strict=False)]
    assert steps and max(steps) - min(steps) <= 1e-6 * max(abs(axis.low), abs(axis.high)) and min(steps) > 0
    assert len({text for _, text in axis.ticks}) == len(axis.ticks)


def test_a_logarithmic_axis_has_ticks_at_one_two_five() -> None:
    axis = log_axis("K", 1, 100)
    assert [text for _, text in axis.ticks] == ["1", "2", "5", "10", "20", "50", "100"]
    assert axis.place(1) == 0 and axis.place(10) == pytest.approx(0.5) and axis.place(100) == 1


def test_names_stand_one_step_apart_or_where_they_are_told() -> None:
    assert named_axis("decile", ["1", "2", "never"], [0.0, 1.0, 2.75]).ticks == ((0.0, "1"), (1.0, "2"), (2.75, "never"))
    axis = named_axis("decile", ["a", "b"])
    assert (axis.low, axis.high) == (-0.5, 1.5) and axis.place(0) == 0.25


@pytest.mark.parametrize(("low", "high", "is_log"), [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True)])
def test_an_axis_without_length_is_refused(low: float, high: float, is_log: bool) -> None:
    with pytest.raises(ShapeError, match=f"must rise.*: got {low} to {high}"):
        Axis("x", low, high, (), is_log)
