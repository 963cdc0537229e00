"""The order of a log by user agrees with sorting it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist import user_order as module
from shortlist.user_order import user_order

STEADY = property_settings(deadline=None, derandomize=True)


@STEADY
@given(st.lists(st.none() | st.integers(-4, 4) | st.sampled_from([2**63 - 1, -(2**63)]), max_size=37))
def test_events_come_user_by_user_in_the_order_of_the_log(users: list[int | None]) -> None:
    found = user_order(pl.Series(users, dtype=pl.Int64))
    distinct = sorted({user for user in users if user is not None})
    assert found.users.to_list() == distinct
    assert found.order[: found.bounds[0]].tolist() == [row for row, user in enumerate(users) if user is None]
    for number, user in enumerate(distinct):
        rows = found.order[found.bounds[number] : found.bounds[number + 1]]
        assert rows.tolist() == [row for row, other in enumerate(users) if other == user]
    assert found.order.dtype == np.int32


def test_users_of_text_come_by_their_bytes() -> None:
    found = user_order(pl.Series(["é", "z", None, "Z", "z"]))
    assert found.users.to_list() == ["Z", "z", "é"]
    assert (found.order.tolist(), found.bounds.tolist()) == ([2, 3, 1, 4, 0], [1, 2, 4, 5])


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_blocks_are_of_whole_users_and_cover_them_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", size)
    found = user_order(pl.Series([1, 2, 2, 2, 2, 2, 3, None, 4, 4]))
    blocks = list(found.blocks())
    assert [user for first, stop in blocks for user in range(first, stop)] == [0, 1, 2, 3]
    assert list(user_order(pl.Series([None, None], dtype=pl.Int64)).blocks()) == []
