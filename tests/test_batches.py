"""Batches traced back to the rows they were made from, at unequal prime sizes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import HISTORY_LAST, ITEMS, small_dataset

from shortlist.batches import Batch, BatchMaker, _epoch_order
from shortlist.dataset import Dataset, open_examples
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids
from shortlist.frequency import exact_frequency
from shortlist.local_rows import Features, Wanted, localise
from shortlist.negatives import MixedNegatives

QUERIES, DRAWN = 17, 23  # beside 53 items and a history of 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("project"))[0]


def maker_of(
    dataset: Dataset,
    *,
    batch_size: int = QUERIES,
    id_dropout: float = 0.0,
    singleton_id_dropout: float = 0.0,
    history_dropout: float = 0.0,
    seed: int = 3,
) -> BatchMaker:
    negatives = MixedNegatives(exact_frequency(dataset.item_counts), DRAWN)
    return BatchMaker(dataset, dataset.train, negatives, batch_size, id_dropout, singleton_id_dropout, history_dropout, seed)


def assembled(
    dataset: Dataset, maker: BatchMaker | None = None, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray, Batch]:
    """(example rows, index rows, their batch)."""
    chosen = np.random.default_rng(1).choice(len(dataset.train), QUERIES, replace=False)
    drawn = np.random.default_rng(2).integers(0, ITEMS, DRAWN)  # with repeats
    return chosen, drawn, (maker or maker_of(dataset)).assemble(dataset.train.take(chosen), drawn, rng)


def content(value: object) -> object:
    """Everything in a batch as plain comparable values."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if is_dataclass(value):
        return [content(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, dict):
        return {key: content(part) for key, part in value.items()}
    return value


def entries(column: FeatureArray, rows_of_table: np.ndarray | None = None) -> list[object]:
    """What each entry looks up: its table rows (with weights), or its numbers."""
    if isinstance(column, Dense):
        return list(column.values.tolist())
    values = column.values if rows_of_table is None else rows_of_table[column.values]
    if isinstance(column, Ids):
        return list(values.tolist())
    pairs = list(zip(values.tolist(), column.weights.tolist(), strict=True))
    return [pairs[start:end] for start, end in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


# --- which examples


def test_the_batch_of_a_step_is_a_function_of_seed_and_step_alone(dataset: Dataset) -> None:
    first, second = (maker_of(dataset, id_dropout=0.3, history_dropout=0.3) for _ in range(2))
    forwards = [content(first.make(step)) for step in range(4)]
    backwards = [content(second.make(step)) for step in reversed(range(4))]
    assert forwards == backwards[::-1]
    assert content(maker_of(dataset, id_dropout=0.3, history_dropout=0.3, seed=4).make(0)) != forwards[0]


def test_every_example_is_learned_from_once_an_epoch_in_another_order_each_time(dataset: Dataset) -> None:
    maker = maker_of(dataset)
    steps = maker.steps_per_epoch
    assert steps == 36  # 601 examples by 17: 35.4
    epochs = [np.concatenate([maker.example_rows(epoch * steps + step) for step in range(steps)]) for epoch in range(2)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(601))
    assert epochs[0].tolist() != epochs[1].tolist()


@given(examples=st.integers(1, 500), batch_size=st.integers(1, 600))
def test_no_example_is_lost_and_no_batch_is_too_large_whatever_the_sizes(dataset: Dataset, examples: int, batch_size: int) -> None:
    maker = replace(maker_of(dataset, batch_size=batch_size), examples=dataset.train.take(np.arange(examples)))
    batches = [maker.example_rows(step).tolist() for step in range(maker.steps_per_epoch)]
    assert sorted(row for batch in batches for row in batch) == list(range(examples))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 2
    assert min(sizes) >= 1


def test_a_step_learns_from_its_examples(dataset: Dataset) -> None:
    maker = maker_of(dataset)
    chosen = dataset.train.take(np.sort(maker.example_rows(40)))
    batch = maker.make(40)
    assert batch.column_item_row[: len(chosen)].tolist() == chosen.item_row.tolist()
    assert batch.weight.tolist() == chosen.weight.tolist()
    assert len(batch.columns) == len(chosen) + DRAWN


def test_every_step_draws_its_own_index_items(dataset: Dataset) -> None:
    maker = maker_of(dataset)
    draws = [tuple(maker.make(step).column_item_row[-DRAWN:].tolist()) for step in (0, 1, 2, 35, 36)]
    assert len(set(draws)) == len(draws)


# --- where the positions point


def test_every_position_leads_back_to_the_item_it_stands_for(dataset: Dataset) -> None:
    chosen, drawn, batch = assembled(dataset)
    queries = dataset.train.queries
    assert batch.column_item_row.tolist() == [*dataset.train.item_row[chosen].tolist(), *drawn.tolist()]
    assert batch.seed.shape == (QUERIES,)
    assert batch.history.shape == (QUERIES, HISTORY_LAST)
    for query, example in enumerate(chosen):
        seed = batch.seed[query]
        assert (batch.item_row[seed] if seed >= 0 else -1) == queries.seed_row[example]
        newest_first = queries.history(example)[::-1][:HISTORY_LAST].tolist()
        places = batch.history[query].tolist()
        assert [int(batch.item_row[place]) for place in places if place >= 0] == newest_first
        assert places[len(newest_first) :] == [-1] * (HISTORY_LAST - len(newest_first))


def test_the_sample_holds_queries_with_and_without_a_past(dataset: Dataset) -> None:
    _, _, batch = assembled(dataset)
    assert (batch.seed < 0).any() and (batch.seed >= 0).any()
    assert (batch.history < 0).any() and (batch.history[:, -1] >= 0).any()


def test_every_item_stands_in_the_batch_once_and_the_candidates_first(dataset: Dataset) -> None:
    chosen, drawn, batch = assembled(dataset)
    assert len(set(batch.item_row.tolist())) == len(batch.item_row)
    wanted = {*dataset.train.item_row[chosen].tolist(), *drawn.tolist()}
    assert set(batch.item_row[: batch.candidates].tolist()) == wanted
    assert batch.columns.max() < batch.candidates
    looked_at = {*batch.seed.tolist(), *batch.history.ravel().tolist()} - {-1}
    assert set(range(batch.candidates, len(batch.item_row))) <= looked_at


def test_a_positive_that_is_also_drawn_is_the_same_entry_with_the_same_log_n(dataset: Dataset) -> None:
    examples = dataset.train.take(np.arange(QUERIES))
    drawn = examples.item_row[::-1].astype(np.int64)
    batch = maker_of(dataset).assemble(examples, drawn, None)
    assert batch.columns[QUERIES:].tolist() == batch.columns[:QUERIES][::-1].tolist()
    assert batch.log_n[QUERIES:].tolist() == batch.log_n[:QUERIES][::-1].tolist()


def test_log_n_counts_the_queries_of_this_very_batch(dataset: Dataset) -> None:
    _, _, batch = assembled(dataset)
    q = dataset.item_counts / 601
    expected = np.log((QUERIES - 1) * q[batch.column_item_row] + DRAWN / ITEMS)
    np.testing.assert_allclose(batch.log_n, expected, rtol=1e-5)


def test_a_shorter_batch_has_the_smaller_expected_counts(dataset: Dataset) -> None:
    maker = maker_of(dataset)
    shorter = next(step for step in range(36) if len(maker.example_rows(step)) == 16)  # 601 examples in 36 batches: 16 or 17 each
    batch = maker.make(shorter)
    q = dataset.item_counts / 601
    np.testing.assert_allclose(batch.log_n, np.log(15 * q[batch.column_item_row] + DRAWN / ITEMS), rtol=1e-5)


# --- what the entries look up


def test_renumbered_features_look_up_the_rows_of_the_catalogue(dataset: Dataset) -> None:
    chosen, _, batch = assembled(dataset)
    train = dataset.train.queries.take(chosen)
    sides: list[tuple[Features, dict[str, FeatureArray], np.ndarray]] = [
        (batch.items, dataset.item_features, batch.item_row),
        (batch.users, dataset.user_features, train.user_row),
        (batch.context, train.context, np.arange(QUERIES)),
    ]
    for local, whole, rows in sides:
        assert list(local.columns) == list(whole)
        for name, column in local.columns.items():
            assert entries(column, local.table_rows.get(name)) == entries(whole[name].take(rows)), name


def test_table_rows_are_distinct_rising_and_all_used(dataset: Dataset) -> None:
    _, _, batch = assembled(dataset)
    for features in (batch.items, batch.users, batch.context):
        for name, rows in features.table_rows.items():
            values = features.columns[name].values
            assert (np.diff(rows) > 0).all()
            assert set(values.tolist()) == set(range(len(rows)))
    assert not any(isinstance(batch.items.columns[name], Dense) for name in batch.items.table_rows)


@given(st.lists(st.integers(0, 28), max_size=40))
def test_compact_values_are_their_places_among_the_distinct(values: list[int]) -> None:
    (local,) = localise([Wanted({"one": Ids(np.array(values, np.int32))}, {"one": (29, None)})])
    distinct, places = local.table_rows["one"], local.columns["one"].arrays()["values"]
    assert distinct.tolist() == sorted(set(values))
    assert distinct[places].tolist() == values


def test_bags_keep_their_bounds_and_weights_when_renumbered() -> None:
    bag = Bag(np.array([7, 3, 7], np.int32), np.array([0, 2, 3]), np.array([0.25, 0.75, 1.0], np.float32))
    (local,) = localise([Wanted({"tags": bag}, {"tags": (11, None)})])
    assert local.table_rows["tags"].tolist() == [3, 7]
    assert entries(local.columns["tags"]) == [[(1, 0.25), (0, 0.75)], [(1, 1.0)]]


# --- dropout


def test_id_dropout_shows_unknown_ids_and_touches_nothing_else(dataset: Dataset) -> None:
    before = content(dataset.item_features)
    _, _, plain = assembled(dataset)
    _, _, dropped = assembled(dataset, maker_of(dataset, id_dropout=0.5), np.random.default_rng(0))
    shown = np.array(entries(dropped.items.columns["item_id"], dropped.items.table_rows["item_id"]))
    own = np.array(entries(plain.items.columns["item_id"], plain.items.table_rows["item_id"]))
    hidden = shown != own
    assert 0.25 < hidden.mean() < 0.75
    assert set(shown[hidden].tolist()) <= {1, 2, 3}  # the three unknown buckets; 0 is "missing"
    for name in set(plain.items.columns) - {"item_id"}:
        assert content(plain.items.columns[name]) == content(dropped.items.columns[name])
    for field in fields(Batch):
        if field.name != "items":
            assert content(getattr(plain, field.name)) == content(getattr(dropped, field.name)), field.name
    assert content(dataset.item_features) == before


def test_an_item_chosen_once_is_hidden_where_it_is_the_positive_and_others_keep_their_ids(dataset: Dataset) -> None:
    once = np.zeros(len(dataset.items), np.int64)
    once[: len(dataset.items) // 2] = 1  # half of the corpus was chosen once, by decree
    changed = replace(dataset, item_counts=once)
    rng, hidden_positives, positives = np.random.default_rng(5), 0, 0
    for _ in range(20):
        chosen, _, plain = assembled(changed)
        _, _, dropped = assembled(changed, maker_of(changed, singleton_id_dropout=0.5), rng)
        shown = np.array(entries(dropped.items.columns["item_id"], dropped.items.table_rows["item_id"]))
        own = np.array(entries(plain.items.columns["item_id"], plain.items.table_rows["item_id"]))
        may_hide = np.isin(plain.item_row, dataset.train.item_row[chosen]) & (once[plain.item_row] == 1)
        assert (shown[~may_hide] == own[~may_hide]).all()
        hidden_positives += int((shown != own).sum())
        positives += int(may_hide.sum())
    assert positives > 50 and 0.35 < hidden_positives / positives < 0.65


def test_an_item_is_hidden_in_all_its_roles_or_in_none(dataset: Dataset) -> None:
    _, _, batch = assembled(dataset, maker_of(dataset, id_dropout=0.5), np.random.default_rng(0))
    assert len(batch.items.columns["item_id"]) == len(batch.item_row)  # one entry an item: no role has its own


def test_history_dropout_hides_history_items_and_nothing_else(dataset: Dataset) -> None:
    _, _, plain = assembled(dataset)
    _, _, dropped = assembled(dataset, maker_of(dataset, history_dropout=0.5), np.random.default_rng(0))
    before = np.where(plain.history >= 0, plain.item_row[plain.history], -1)
    after = np.where(dropped.history >= 0, dropped.item_row[dropped.history], -1)
    kept = after >= 0
    assert (after[kept] == before[kept]).all()
    assert 0.25 < 1 - kept.sum() / (before >= 0).sum() < 0.75
    assert (
        np.where(plain.seed >= 0, plain.item_row[plain.seed], -1).tolist()
        == np.where(dropped.seed >= 0, dropped.item_row[dropped.seed], -1).tolist()
    )
    assert plain.column_item_row.tolist() == dropped.column_item_row.tolist()


def test_without_a_generator_nothing_is_hidden(dataset: Dataset) -> None:
    _, _, plain = assembled(dataset)
    _, _, kept = assembled(dataset, maker_of(dataset, id_dropout=0.9, history_dropout=0.9), None)
    assert content(plain) == content(kept)


def test_memory_mapped_examples_give_the_same_batches(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("examples")
    dataset.train.save(folder)
    maker = maker_of(dataset, id_dropout=0.2, history_dropout=0.2)
    assert content(replace(maker, examples=open_examples(folder)).make(5)) == content(maker.make(5))


def test_the_order_of_an_epoch_is_the_same_permutation_in_half_the_memory() -> None:
    for epoch in (0, 5):
        order = _epoch_order(3, epoch, 1009)
        assert order.dtype == np.int32
        assert order.tolist() == np.random.default_rng((3, 1, epoch)).permutation(1009).tolist()
