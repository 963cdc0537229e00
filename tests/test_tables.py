"""The row-sparse optimiser against torch's dense Adagrad."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_passes import each_passes  # noqa: F401  # every test runs with both
from torch.nn import functional

from shortlist.features.arrays import Bag
from shortlist.tables import EmbeddingTables, TableRows
from shortlist.tower_inputs import Lookup, beside
from shortlist.towers import bag_tensors

ROWS, DIM = 13, 3


def tables(start: float = 0.1) -> EmbeddingTables:
    generator = torch.Generator().manual_seed(4)
    return EmbeddingTables({"a": torch.randn(ROWS, DIM, generator=generator)}, adagrad_start=start)


def test_gathered_rows_come_in_the_order_asked_for_and_collect_gradients() -> None:
    table = tables()
    leaf = table.gather({"a": np.array([5, 2, 11])})["a"]
    assert torch.equal(leaf, table.weights["a"][[5, 2, 11]])
    assert leaf.is_leaf and leaf.requires_grad
    assert not table.weights["a"].requires_grad


def test_one_step_by_hand() -> None:
    # g = (3, 0, -1), start .1: sums (9.1, .1, 1.1); w -= .5 g / sqrt(sums)
    table = tables()
    before = table.weights["a"][4].clone()
    leaf = table.gather({"a": np.array([4])})["a"]
    (leaf * torch.tensor([3.0, 0.0, -1.0])).sum().backward()  # type: ignore[no-untyped-call]
    table.update(0.5)
    assert torch.allclose(table.sums["a"][4], torch.tensor([9.1, 0.1, 1.1]))
    moved = torch.tensor([-0.5 * 3 / 9.1**0.5, 0.0, 0.5 / 1.1**0.5])
    assert torch.allclose(table.weights["a"][4] - before, moved, atol=1e-6)


def test_many_steps_equal_torchs_adagrad_on_the_whole_table() -> None:
    table, rng = tables(), np.random.default_rng(0)
    dense = table.weights["a"].clone().requires_grad_()
    optimizer = torch.optim.Adagrad([dense], lr=0.3, initial_accumulator_value=0.1, eps=0.0)
    for _ in range(17):
        used = rng.integers(0, ROWS, 7)  # with repeats: their gradients add up
        target = torch.from_numpy(rng.standard_normal((7, DIM)).astype(np.float32))
        distinct, place = np.unique(used, return_inverse=True)
        leaf = table.gather({"a": distinct})["a"]
        (functional.embedding(torch.from_numpy(place), leaf) - target).square().sum().backward()  # type: ignore[no-untyped-call]
        table.update(0.3)
        optimizer.zero_grad()
        (functional.embedding(torch.from_numpy(used), dense) - target).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.allclose(table.weights["a"], dense.detach(), atol=1e-6)
    assert torch.allclose(table.sums["a"], optimizer.state[dense]["sum"], rtol=1e-5)


@pytest.mark.parametrize("dim", [3, 64, 131])  # less than a chunk of kernels.c, one, two and a rest
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_rows_referred_to_learn_by_lookups_as_a_whole_table_does(dim: int, kind: torch.dtype, each_passes: str) -> None:  # noqa: F811
    """One row of each of 37 entries beside the weighted sum of a bag each, and 5 rows of padding, against torch's dense Adagrad."""
    rng, rows, entries, rate, decay = np.random.default_rng(3), 211, 37, 0.3, 0.02
    start = {name: torch.from_numpy(rng.standard_normal((rows, dim)).astype(np.float32)) for name in ("id", "words", "fixed")}
    table = EmbeddingTables({name: value.clone() for name, value in start.items()}, adagrad_start=0.1, fixed=frozenset({"fixed"}))
    dense = {name: value.clone().requires_grad_() for name, value in start.items()}
    sums = {name: torch.full_like(value, 0.1) for name, value in start.items()}
    for _ in range(5):
        ids = rng.integers(0, rows, entries)
        lengths = rng.integers(0, 9, entries)
        ends, values = np.concatenate([[0], lengths.cumsum()]), rng.integers(0, rows, lengths.sum()).astype(np.int32)
        bag = Bag(values, ends, rng.random(len(values)).astype(np.float32))
        used_ids, local_ids = np.unique(ids, return_inverse=True)
        used_words, local = np.unique(values.astype(np.int64), return_inverse=True)
        local_bag = Bag(local.astype(np.int32), bag.offsets, bag.weights)
        sources = table.refer({"id": used_ids, "words": used_words, "fixed": used_ids})
        assert all(isinstance(source, TableRows) == (each_passes == "compiled") for source in sources.values())
        places = torch.from_numpy(local_ids.astype(np.int32))
        words = Lookup(sources["words"], bag_tensors(local_bag), bag_tensors(local_bag.transposed(len(used_words))))
        pieces = [Lookup(sources["id"], places), words, Lookup(sources["fixed"], places)]
        found = beside(pieces, rows=entries + 5, kind=kind)
        weighted = dense["words"][torch.from_numpy(bag.values).long()] * torch.from_numpy(bag.weights)[:, None]
        of_bags = torch.zeros(entries, dim).index_add(0, torch.from_numpy(np.repeat(np.arange(entries), lengths)), weighted)
        expected = torch.cat([dense["id"][ids], of_bags, dense["fixed"][ids]], dim=1)
        close = {"rtol": 1e-5, "atol": 1e-5} if kind == torch.float32 else {"rtol": 0.01, "atol": 0.05}
        torch.testing.assert_close(found[:entries].float(), expected, **close)
        assert not found[entries:].any()
        pull = torch.from_numpy(rng.standard_normal(found.shape).astype(np.float32)).to(kind)
        found.backward(pull)  # type: ignore[no-untyped-call]
        table.update(rate, weight_decay=decay)
        for value in dense.values():
            value.grad = None
        expected.backward(pull[:entries].float())  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, used in (("id", used_ids), ("words", used_words)):
                gradient = dense[name].grad
                assert gradient is not None
                dense[name][used] *= 1 - rate * decay
                sums[name] += gradient**2
                dense[name] -= rate * gradient / sums[name].sqrt()
        torch.testing.assert_close(table.weights["id"], dense["id"].detach(), **close)
        torch.testing.assert_close(table.weights["words"], dense["words"].detach(), **close)
    assert torch.equal(table.weights["fixed"], start["fixed"]) and torch.equal(table.sums["fixed"], torch.full((rows, dim), 0.1))
    torch.testing.assert_close(table.sums["words"], sums["words"], **close)


def test_rows_that_are_looked_up_twice_are_refused(each_passes: str) -> None:  # noqa: F811
    """Copied rows add up; of rows where they lie the first gradient would be lost."""
    places, table = torch.tensor([0, 1], dtype=torch.int32), tables()
    source = table.refer({"a": np.array([4, 7])})["a"]
    twice = beside([Lookup(source, places), Lookup(source, places)], rows=2, kind=torch.float32)
    if each_passes == "eager":
        twice.sum().backward()  # type: ignore[no-untyped-call]
        assert isinstance(source, torch.Tensor) and torch.equal(source.grad, torch.full((2, DIM), 2.0))
        return
    with pytest.raises(RuntimeError, match="looked up once a step"):
        twice.sum().backward()  # type: ignore[no-untyped-call]


def test_what_nothing_pulled_at_stays(each_passes: str) -> None:  # noqa: F811
    table = tables()
    before = table.weights["a"].clone()
    with torch.no_grad():
        beside([Lookup(table.refer({"a": np.array([4])})["a"], torch.zeros(3, dtype=torch.int32))], rows=3, kind=torch.float32)
    table.update(0.5, weight_decay=0.1)
    assert torch.equal(table.weights["a"], before)


def test_rows_that_a_step_does_not_touch_keep_their_bytes() -> None:
    table = tables()
    weights, sums = table.weights["a"].clone(), table.sums["a"].clone()
    leaf = table.gather({"a": np.array([0, 6, 12])})["a"]
    leaf.square().sum().backward()  # type: ignore[no-untyped-call]
    table.update(0.3, weight_decay=0.1)
    others = [row for row in range(ROWS) if row not in (0, 6, 12)]
    assert torch.equal(table.weights["a"][others], weights[others])
    assert torch.equal(table.sums["a"][others], sums[others])
    assert not torch.equal(table.weights["a"][[0, 6, 12]], weights[[0, 6, 12]])


def test_weight_decay_shrinks_the_touched_rows_by_rate_times_decay() -> None:
    table = tables()
    before = table.weights["a"][3].clone()
    leaf = table.gather({"a": np.array([3])})["a"]
    (leaf * 0.0).sum().backward()  # type: ignore[no-untyped-call]  # no gradient but 0: decay alone moves it
    table.update(0.5, weight_decay=0.2)
    assert torch.allclose(table.weights["a"][3], before * 0.9)


def test_rows_gathered_without_a_gradient_stay_and_a_second_update_does_nothing() -> None:
    table = tables()
    before = table.weights["a"].clone()
    table.gather({"a": np.array([1, 2])})
    table.update(0.5)
    assert torch.equal(table.weights["a"], before)
    table.gather({"a": np.array([1])})["a"].sum().backward()  # type: ignore[no-untyped-call]
    table.update(0.5)
    once = table.weights["a"].clone()
    table.update(0.5)
    assert torch.equal(table.weights["a"], once)


def test_a_loaded_state_goes_on_as_the_saved_one_would() -> None:
    def step(table: EmbeddingTables) -> None:
        table.gather({"a": np.array([2, 3])})["a"].square().sum().backward()  # type: ignore[no-untyped-call]
        table.update(0.1)

    first, second = tables(), tables(start=7.0)
    step(first)
    second.load({name: value.clone() for name, value in first.state().items()})
    step(first)
    step(second)
    assert torch.equal(first.weights["a"], second.weights["a"])
    assert torch.equal(first.sums["a"], second.sums["a"])
