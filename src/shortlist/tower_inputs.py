"""How looked-up features enter the towers: bags summed, pieces laid side by side. torch; no knowledge of data.

Both are functions with a gradient of their own, because the general one is slow: autograd sorts a bag's rows in every step, and
concatenates, converts and slices one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

BagTensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # values, offsets (both int32), weights: bag i is values[o_i:o_(i+1)]
_PADDING_SHARE = 16  # rows are padded by less than one part in so many
_LEAST_STEP = 16  # rows of a tile register


def padded(rows: int) -> int:
    """`rows` or a little more, such that steps of nearly one size have one shape.

    oneDNN compiles its bfloat16 products for every shape anew, which takes longer than the product: 3 to 5 ms against 1.
    """
    step = max(_LEAST_STEP, 1 << max((rows // _PADDING_SHARE).bit_length() - 1, 0))
    return -(-rows // step) * step


def sums_of_bags(table: torch.Tensor, bags: BagTensors) -> torch.Tensor:
    """(n, dim) the weighted sum of the table rows of each bag."""
    values, offsets, weights = bags
    return functional.embedding_bag(values, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def learned_sums_of_bags(table: torch.Tensor, bags: BagTensors, transposed: BagTensors) -> torch.Tensor:
    """As `sums_of_bags`, with a gradient for the table.

    transposed   the same weights by table row: the bags that hold it. The table's gradient is another sum of bags, and adds up
                 in one order always.
    """
    sums: torch.Tensor = _SumsOfBags.apply(table, bags, transposed)  # type: ignore[no-untyped-call]
    return sums


class _SumsOfBags(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, bags: BagTensors, transposed: BagTensors) -> torch.Tensor:
        ctx.transposed = transposed
        return sums_of_bags(table, bags)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return sums_of_bags(gradient.contiguous(), ctx.transposed), None, None


def side_by_side(pieces: Sequence[torch.Tensor], *, rows: int, kind: torch.dtype) -> torch.Tensor:
    """(rows, width) the pieces (n, some width), n <= rows, as columns of one matrix of type `kind`; zeros below row n."""
    beside: torch.Tensor = _SideBySide.apply(rows, kind, *pieces)  # type: ignore[no-untyped-call]
    return beside


class _SideBySide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: int, kind: torch.dtype, *pieces: torch.Tensor) -> torch.Tensor:
        ctx.shapes = [piece.shape for piece in pieces]
        count = len(pieces[0])
        beside = torch.empty(rows, sum(piece.shape[1] for piece in pieces), dtype=kind)
        beside[count:] = 0
        start = 0
        for piece in pieces:
            beside[:count, start : start + piece.shape[1]] = piece
            start += piece.shape[1]
        return beside

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        start, gradients = 0, []
        for place, (count, width) in enumerate(ctx.shapes):
            wanted = ctx.needs_input_grad[2 + place]
            gradients.append(gradient[:count, start : start + width].float() if wanted else None)
            start += width
        return None, None, *gradients
