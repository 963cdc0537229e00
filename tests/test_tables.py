"""The row-sparse optimiser against torch's dense Adagrad."""

from __future__ import annotations

import numpy as np
import torch
from small_passes import each_passes  # noqa: F401  # every test runs with both
from torch.nn import functional

from shortlist.tables import EmbeddingTables

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
