"""The queue is a queue, the cache holds what was seen last, and both survive saving."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shortlist.memory import VectorMemory

CORPUS, DIM, QUEUE = 11, 3, 5


def memory_of(*, queue: int = QUEUE, caches: bool = True) -> VectorMemory:
    return VectorMemory(corpus_size=CORPUS, dim=DIM, queue_size=queue, caches=caches)


def step(memory: VectorMemory, items: list[int], positives: list[int], mark: float) -> None:
    """One step that encodes `items`; item j's vector is (j, mark, -j). `positives` are places among the items."""
    rows = torch.tensor(items)
    memory.remember(rows, vectors_of(items, mark), torch.tensor(positives, dtype=torch.int64))


def vectors_of(items: list[int], mark: float) -> torch.Tensor:
    column = torch.tensor(items, dtype=torch.float32)
    return torch.stack([column, torch.full_like(column, mark), -column], dim=1)


# --- the queue


def test_a_fresh_memory_has_no_columns() -> None:
    rows, vectors = memory_of().columns(None)
    assert rows.tolist() == [] and vectors.shape == (0, DIM)


def test_the_queue_holds_the_positives_newest_batch_first_and_forgets_the_oldest() -> None:
    memory = memory_of()
    step(memory, [2, 7, 9], [1, 0, 1], mark=1)  # positives 7, 2, 7; 9 is an index draw
    assert memory.queued == 3
    assert memory.columns(None)[0].tolist() == [7, 2, 7]
    step(memory, [4, 9], [0, 1], mark=2)
    assert memory.queued == 5
    assert memory.columns(None)[0].tolist() == [4, 9, 7, 2, 7]
    step(memory, [3], [0], mark=3)
    rows, vectors = memory.columns(None)
    assert memory.queued == 5
    assert rows.tolist() == [3, 4, 9, 7, 2]  # the last 7 fell out
    assert vectors.tolist() == [[3, 3, -3], [4, 2, -4], [9, 2, -9], [7, 1, -7], [2, 1, -2]]


def test_a_batch_larger_than_the_queue_fills_it() -> None:
    memory = memory_of(queue=2)
    step(memory, [5, 6, 8], [2, 0, 1], mark=1)
    assert memory.queued == 2
    assert memory.columns(None)[0].tolist() == [8, 5]


def test_a_queue_of_no_places_stays_empty() -> None:
    memory = memory_of(queue=0)
    step(memory, [5, 6], [0, 1], mark=1)
    assert memory.queued == 0 and memory.columns(None)[0].tolist() == []


def test_what_is_queued_is_not_refreshed_when_the_item_is_met_again() -> None:
    memory = memory_of()
    step(memory, [2], [0], mark=1)
    step(memory, [2, 3], [1], mark=2)
    assert memory.columns(None)[1].tolist() == [[3, 2, -3], [2, 1, -2]]


# --- the cache


def test_the_cache_holds_the_vector_that_was_encoded_last_for_positives_and_draws() -> None:
    memory = memory_of(queue=0)
    memory.fill_cache(vectors_of(list(range(CORPUS)), 0).numpy())
    step(memory, [2, 9], [0], mark=1)
    step(memory, [9, 4], [1], mark=2)
    rows, vectors = memory.columns(np.array([9, 2, 4, 0, 9]))
    assert rows.tolist() == [9, 2, 4, 0, 9]
    assert vectors[:, 0].tolist() == [9, 2, 4, 0, 9]
    assert vectors[:, 1].tolist() == [2, 1, 2, 0, 2]


def test_filling_the_cache_takes_a_copy() -> None:
    memory, corpus = memory_of(), np.ones((CORPUS, DIM), np.float32)
    memory.fill_cache(corpus)
    step(memory, [0], [0], mark=5)
    assert (corpus == 1).all()


def test_the_columns_are_the_queue_and_then_the_cached_draws() -> None:
    memory = memory_of()
    memory.fill_cache(vectors_of(list(range(CORPUS)), 0).numpy())
    step(memory, [2, 6], [1], mark=1)
    rows, vectors = memory.columns(np.array([3, 2]))
    assert rows.tolist() == [6, 3, 2]
    assert vectors.tolist() == [[6, 1, -6], [3, 0, -3], [2, 1, -2]]


def test_columns_do_not_change_under_a_later_step() -> None:
    memory = memory_of()
    memory.fill_cache(vectors_of(list(range(CORPUS)), 0).numpy())
    step(memory, [2], [0], mark=1)
    _, before = memory.columns(np.array([4]))
    kept = before.clone()
    step(memory, [4], [0], mark=2)
    assert torch.equal(before, kept)


@pytest.mark.parametrize("caches", [False, True])
def test_what_is_remembered_carries_no_gradient(caches: bool) -> None:
    memory, vectors = memory_of(caches=caches), vectors_of([1, 4], 1).requires_grad_()
    memory.remember(torch.tensor([1, 4]), vectors * 2, torch.tensor([1]))
    _, columns = memory.columns(np.array([1]) if caches else None)
    assert not columns.requires_grad
    assert all(not value.requires_grad for value in memory.state().values())


# --- saving


def test_a_saved_memory_goes_on_as_if_never_interrupted() -> None:
    one, restored = memory_of(), memory_of()
    one.fill_cache(vectors_of(list(range(CORPUS)), 0).numpy())
    step(one, [2, 7, 9], [1, 0], mark=1)
    restored.load({name: value.clone() for name, value in one.state().items()})
    for memory in (one, restored):
        step(memory, [4, 9], [0, 1], mark=2)
    assert restored.queued == one.queued == 4
    assert one.state().keys() == restored.state().keys()
    assert all(torch.equal(value, restored.state()[name]) for name, value in one.state().items())


def test_a_loaded_memory_does_not_write_into_what_it_was_loaded_from() -> None:
    one, restored = memory_of(), memory_of()
    step(one, [2, 7], [1, 0], mark=1)
    restored.load(one.state())
    step(restored, [4], [0], mark=2)
    assert one.queued == 2 and one.columns(None)[0].tolist() == [7, 2]
    assert one.cache[4].tolist() == [0, 0, 0]
