"""The masks against sets, kept by hand and by a slow oracle; unknown and missing askers have nothing to hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_project import small_dataset

from shortlist.batches import BatchMaker, Mined
from shortlist.dataset import Dataset, Examples
from shortlist.frequency import exact_frequency
from shortlist.masks import KnownItems, known_items, same_query_cells
from shortlist.negatives import MixedNegatives
from shortlist.queries import Queries
from shortlist.sections import Mask

ASKERS, CORPUS = 7, 13


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("masks"))[0]


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def examples_of(asker: list[int], item: list[int]) -> Examples:
    """Examples of which only who chose what is of interest."""
    none, nowhere = np.full(len(asker), -1, np.int32), np.zeros(len(asker), np.int64)
    queries = Queries(none, none, np.zeros(0, np.int32), nowhere, nowhere, {})
    return Examples(queries, np.array(item, np.int32), np.ones(len(asker), np.float32), nowhere, np.array(asker, np.int64))


# --- what an asker is known to have chosen


def test_known_items_are_distinct_and_rising_for_each_asker() -> None:
    known = known_items(examples_of([5, 2, 5, 5, 2, -1], [3, 1, 0, 3, 4, 2]))
    assert known.askers.tolist() == [2, 5]
    assert known.offsets.tolist() == [0, 2, 4]
    assert known.items.tolist() == [1, 4, 0, 3]  # the second (5, 3) is the first, and nobody's choice of 2 is left out


def test_a_cell_is_hidden_where_the_column_is_an_item_of_the_rows_asker() -> None:
    known = KnownItems(rows(2, 5), rows(0, 2, 4), rows(1, 4, 0, 3))
    cells = known.cells(rows(5, 2, 5), rows(4, 3, 3, 9, 0))
    #        item 4 3 3 9 0
    assert cells.tolist() == [
        [False, True, True, False, True],  # asker 5: 0 and 3, in both columns that hold 3
        [True, False, False, False, False],  # asker 2: 1 and 4
        [False, True, True, False, True],
    ]


@pytest.mark.parametrize("stranger", [-1, 0, 3, 4, 6, 99])
def test_an_asker_whom_the_window_does_not_know_hides_nothing(stranger: int) -> None:
    known = KnownItems(rows(2, 5), rows(0, 2, 4), rows(1, 4, 0, 3))
    assert not known.cells(rows(stranger), np.arange(CORPUS)).any()


def test_where_nobody_is_named_nothing_is_known() -> None:
    known = known_items(examples_of([-1, -1, -1], [0, 1, 2]))
    cells = known.cells(rows(-1, 4), rows(0, 1, 2))
    assert cells.shape == (2, 3) and not cells.any()


def test_no_columns_and_no_rows_are_no_cells() -> None:
    known = KnownItems(rows(2), rows(0, 1), rows(1))
    assert known.cells(rows(2, 3, 2), rows()).shape == (3, 0)
    assert known.cells(rows(), rows(1, 2)).shape == (0, 2)


@given(
    st.lists(st.tuples(st.integers(-1, ASKERS), st.integers(0, CORPUS - 1)), min_size=1, max_size=41),
    st.lists(st.integers(-1, ASKERS + 2), min_size=1, max_size=5),
    st.lists(st.integers(0, CORPUS - 1), min_size=1, max_size=11),
)
def test_known_cells_equal_those_by_plain_sets(log: list[tuple[int, int]], asking: list[int], columns: list[int]) -> None:
    chose: dict[int, set[int]] = {}
    for asker, item in log:
        if asker >= 0:
            chose.setdefault(asker, set()).add(item)
    known = known_items(examples_of([asker for asker, _ in log], [item for _, item in log]))
    expected = [[item in chose.get(asker, set()) for item in columns] for asker in asking]
    assert known.cells(rows(*asking), rows(*columns)).tolist() == expected


# --- other examples of the same asker in the batch


def test_the_positives_of_the_same_asker_are_hidden_by_hand_whichever_stream_brings_them() -> None:
    # askers 3, 8, 3, nobody, nobody chose 10, 11, 12, 13, 10; two index columns behind: 12 again and 14
    items = rows(10, 11, 12, 13, 10)
    cells = same_query_cells(rows(3, 8, 3, -1, -1), items, rows(10, 11, 12, 13, 10, 12, 14))
    # asker 3's other choice: row 0 loses item 12 (columns 2 and 5), row 2 loses item 10 (columns 0 and 4)
    assert np.argwhere(cells).tolist() == [[0, 2], [0, 5], [2, 0], [2, 4]]


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 4)), min_size=1, max_size=7), st.lists(st.integers(0, 5), max_size=5))
def test_same_query_cells_equal_plain_loops(batch: list[tuple[int, int]], drawn: list[int]) -> None:
    columns = [item for _, item in batch] + drawn
    expected = [
        [item != own and any(who == other >= 0 and item == chose for other, chose in batch) for item in columns] for who, own in batch
    ]
    asker, items = rows(*(who for who, _ in batch)), rows(*(item for _, item in batch))
    assert same_query_cells(asker, items, rows(*columns)).tolist() == expected


# --- in a batch


def maker_of(dataset: Dataset, *masks: Mask, examples: Examples | None = None) -> BatchMaker:
    negatives = MixedNegatives(exact_frequency(dataset.item_counts), 19)
    return BatchMaker(dataset, examples or dataset.train, negatives, 31, 0.0, 0.0, 0.0, 0, masks)


def test_a_batch_hides_what_its_askers_ever_chose_but_never_a_rows_own_item(dataset: Dataset) -> None:
    maker = maker_of(dataset, "known")
    chose: dict[int, set[int]] = {}
    for asker, item in zip(dataset.train.asker.tolist(), dataset.train.item_row.tolist(), strict=True):
        if asker >= 0:
            chose.setdefault(asker, set()).add(item)
    found = 0
    for step in range(3):
        batch = maker.make(step)
        columns = batch.column_item_row.tolist()
        assert batch.hidden is not None and batch.asker is not None
        expected = [[j in chose.get(asker, set()) and j != columns[i] for j in columns] for i, asker in enumerate(batch.asker.tolist())]
        assert batch.hidden.tolist() == expected
        found += int(batch.hidden.sum())
    assert found > 50


def test_a_batch_hides_other_positives_of_the_same_asker_but_never_a_rows_own_item(dataset: Dataset) -> None:
    one = replace(dataset.train, asker=np.where(dataset.train.asker < 0, -1, dataset.train.asker % 5))
    batch = maker_of(dataset, "same_query", examples=one).make(0)
    assert batch.hidden is not None and batch.asker is not None
    columns, size, asker = batch.column_item_row, len(batch.weight), batch.asker
    for i in range(size):
        for j in range(len(columns)):
            others = {columns[k] for k in range(size) if asker[k] == asker[i] >= 0}
            expected = columns[j] in others and columns[i] != columns[j]
            assert batch.hidden[i, j] == expected


def test_without_masks_nothing_is_hidden(dataset: Dataset) -> None:
    assert maker_of(dataset).make(0).hidden is None


def test_mined_items_are_hidden_from_all_queries_but_their_own(dataset: Dataset) -> None:
    def mine(queries: Queries, rng: np.random.Generator) -> Mined:
        return Mined(rng.integers(0, len(dataset.items), (len(queries), 3)), 0.5)

    batch = replace(maker_of(dataset), mine=mine).make(0)
    assert batch.hidden is not None
    size, last = len(batch.weight), 3 * len(batch.weight)
    owner = np.repeat(np.arange(size), 3)
    assert not batch.hidden[:, :-last].any()
    np.testing.assert_array_equal(batch.hidden[:, -last:], owner[None, :] != np.arange(size)[:, None])
