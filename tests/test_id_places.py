"""Ids find their places: by halving, by a join or by a table, whatever the blocks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist import id_places
from shortlist.id_places import places_among, row_blocks

STEADY = property_settings(deadline=None, derandomize=True)
EDGE = 2**63 - 1
NUMBERS = st.integers(-60, 60) | st.sampled_from([EDGE, -EDGE - 1, 1009, -1009])


def ways(known: pl.Series, asked: pl.Series) -> list[list[int]]:
    """The answers of every way that fits."""
    found = [places_among(known, asked), id_places._by_halving(known, asked), id_places._by_join(known, asked)]
    table = id_places._by_table(known, 10**6) if known.dtype.is_integer() else None
    if table is not None:
        found.append(id_places._in_table(table, int(known[0]), asked))
    assert all(places.dtype == np.int32 for places in found)
    return [places.tolist() for places in found]


@STEADY
@given(st.sets(st.text(max_size=3), min_size=1, max_size=41), st.lists(st.none() | st.text(max_size=3), max_size=17))
def test_all_ways_agree_with_a_dictionary_for_strings(known: set[str], asked: list[str | None]) -> None:
    ordered = sorted(known, key=str.encode)
    expected = [ordered.index(value) if value in known else -1 for value in asked]
    assert all(places == expected for places in ways(pl.Series(ordered), pl.Series(asked, dtype=pl.String)))


@STEADY
@given(st.sets(NUMBERS, min_size=1, max_size=41), st.lists(st.none() | NUMBERS, max_size=17))
def test_all_ways_agree_with_a_dictionary_for_integers(known: set[int], asked: list[int | None]) -> None:
    ordered = sorted(known)
    expected = [ordered.index(value) if value in known else -1 for value in asked]
    assert all(places == expected for places in ways(pl.Series(ordered), pl.Series(asked, dtype=pl.Int64)))


@pytest.mark.parametrize("known", [pl.Series([3, 5, 900_000_000_007]), pl.Series([3, 5, 7]), pl.Series(["3", "5", "7"])])
def test_blocks_do_not_matter(known: pl.Series, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = known.gather([2, 0, 1, 1, 2, 0, 0]).extend(pl.Series([None, None], dtype=known.dtype))
    monkeypatch.setattr(id_places, "row_blocks", lambda count, size: row_blocks(count, 2))
    assert places_among(known, asked).tolist() == [2, 0, 1, 1, 2, 0, 0, -1, -1]


def test_nothing_is_found_among_nothing() -> None:
    assert places_among(pl.Series([], dtype=pl.Int64), pl.Series([1, None])).tolist() == [-1, -1]
    assert places_among(pl.Series([1]), pl.Series([], dtype=pl.Int64)).tolist() == []


def test_blocks_of_rows_cover_every_row_once() -> None:
    assert list(row_blocks(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(row_blocks(0, 3)) == []
