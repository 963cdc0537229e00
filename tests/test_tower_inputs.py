"""Bags and pieces on their way into the towers: sums and gradients as autograd has them, and shapes that stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from shortlist.features.arrays import Bag
from shortlist.tower_inputs import learned_sums_of_bags, padded, side_by_side
from shortlist.towers import bag_tensors

ROWS, DIM = 7, 3
BAG = Bag(
    np.array([4, 0, 4, 6, 2, 4], np.int32),
    np.array([0, 3, 3, 5, 6]),  # four bags, the second empty
    np.array([0.5, 0.25, 2.0, 1.0, -1.0, 0.125], np.float32),
)


def table() -> torch.Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_a_transposed_bag_tells_by_row_who_holds_it() -> None:
    by_row = BAG.transposed(ROWS)
    entries = [
        list(zip(by_row.values[a:b], by_row.weights[a:b], strict=True)) for a, b in zip(by_row.offsets, by_row.offsets[1:], strict=False)
    ]
    assert entries == [[(0, 0.25)], [], [(2, -1.0)], [], [(0, 0.5), (0, 2.0), (3, 0.125)], [], [(2, 1.0)]]


def test_sums_and_gradient_are_those_of_autograd() -> None:
    mine, plain, pull = table(), table(), torch.randn(4, DIM, generator=torch.Generator().manual_seed(1))
    sums = learned_sums_of_bags(mine, bag_tensors(BAG), bag_tensors(BAG.transposed(ROWS)))
    values, offsets, weights = bag_tensors(BAG)
    expected = functional.embedding_bag(values, plain, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
    torch.testing.assert_close(sums, expected)
    sums.backward(pull)  # type: ignore[no-untyped-call]
    expected.backward(pull)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(mine.grad, plain.grad)


def test_pieces_stand_side_by_side_above_zeros_and_each_gets_its_part_of_the_gradient() -> None:
    first, second = torch.tensor([[1.0], [2.0]], requires_grad=True), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    beside = side_by_side([first, second], rows=3, kind=torch.bfloat16)
    assert beside.dtype == torch.bfloat16
    assert beside.tolist() == [[1, 3, 4], [2, 5, 6], [0, 0, 0]]
    beside.backward(torch.arange(9).reshape(3, 3).bfloat16())  # type: ignore[no-untyped-call]
    assert first.grad is not None and first.grad.tolist() == [[0.0], [3.0]]
    assert second.grad is None


@pytest.mark.parametrize(("rows", "expected"), [(1, 16), (16, 16), (17, 32), (300, 304), (1785, 1792), (8902, 9216), (9216, 9216)])
def test_rows_are_padded_to_a_step_of_their_size(rows: int, expected: int) -> None:
    """The step is the power of two at or below rows / 16, 16 at least: 8902 / 16 = 556, so 512, and 18 * 512 = 9216."""
    assert padded(rows) == expected


def test_padding_costs_less_than_a_sixteenth_of_a_large_batch() -> None:
    assert all(padded(rows) - rows < rows / 16 for rows in range(300, 20_000, 7))
