"""How looked-up features enter the towers: bags summed, pieces laid side by side. torch; no knowledge of data.

Both are functions with a gradient of their own, because the general one is slow: autograd sorts a bag's rows in every step, and
concatenates, converts and slices one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from shortlist.kernels import BagTensors, Kernels, kernels
from shortlist.tables import TableRows

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
    sums: torch.Tensor = _SumsOfBags.apply(table, bags, transposed)  # type: ignore[no-untyped-call]  # torch types none
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


@dataclass(frozen=True)
class Lookup:
    """A feature of n entries that is still to be looked up: one row of the table each, or the weighted sum of some.

    table        (rows, dim), or rows of a table where they lie, for `beside` with compiled passes
    places       (n,) int32, or n bags
    transposed   the bags by table row, where the table is to learn
    """

    table: torch.Tensor | TableRows
    places: torch.Tensor | BagTensors
    transposed: BagTensors | None = None

    @property
    def dim(self) -> int:
        """The width of a row."""
        return (self.table.table if isinstance(self.table, TableRows) else self.table).shape[1]

    def __len__(self) -> int:
        return len(self.places) if isinstance(self.places, torch.Tensor) else len(self.places[1]) - 1

    def looked_up(self) -> torch.Tensor:
        """(n, dim)."""
        assert isinstance(self.table, torch.Tensor)
        if isinstance(self.places, torch.Tensor):
            return functional.embedding(self.places, self.table)
        if self.transposed is None:
            return sums_of_bags(self.table, self.places)
        return learned_sums_of_bags(self.table, self.places, self.transposed)


Piece = torch.Tensor | Lookup


def beside(pieces: Sequence[Piece], *, rows: int, kind: torch.dtype) -> torch.Tensor:
    """(rows, width) the pieces, looked up, as `side_by_side` lays them: with compiled passes each goes straight to its columns."""
    if kernels() is None:
        tensors = [piece if isinstance(piece, torch.Tensor) else piece.looked_up() for piece in pieces]
        if kind == torch.float32 and all(len(tensor) == rows for tensor in tensors):
            return torch.cat(tensors, dim=1)
        return side_by_side(tensors, rows=rows, kind=kind)
    lookups = [None if isinstance(piece, torch.Tensor) else piece for piece in pieces]
    tensors = [_in_graph(piece) for piece in pieces]
    found: torch.Tensor = _Beside.apply(rows, kind, lookups, *tensors)  # type: ignore[no-untyped-call]  # torch types none
    return found


def _in_graph(piece: Piece) -> torch.Tensor:
    """What stands for a piece among the inputs of a function."""
    if isinstance(piece, torch.Tensor):
        return piece
    return piece.table.asks if isinstance(piece.table, TableRows) else piece.table


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: int, kind: torch.dtype, lookups: list[Lookup | None], *tensors: torch.Tensor) -> torch.Tensor:
        passes = kernels()
        assert passes is not None
        ctx.lookups, ctx.shapes = lookups, [tensor.shape for tensor in tensors]
        widths = [tensor.shape[1] if lookup is None else lookup.dim for lookup, tensor in zip(lookups, tensors, strict=True)]
        found, start, count = torch.empty(rows, sum(widths), dtype=kind), 0, rows
        for lookup, tensor, width in zip(lookups, tensors, widths, strict=True):
            columns = found[:, start : start + width]
            start += width
            count = len(tensor) if lookup is None else len(lookup)
            if lookup is None:
                columns[:count] = tensor
            elif isinstance(lookup.table, TableRows):
                passes.sum_table_rows(lookup.table.table, lookup.table.rows, lookup.places, into=columns[:count])
            else:
                passes.sum_rows(tensor, lookup.places, into=columns[:count])
        found[count:] = 0
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        passes = kernels()
        assert passes is not None
        gradient, start, gradients = gradient.contiguous(), 0, []
        for place, (lookup, shape) in enumerate(zip(ctx.lookups, ctx.shapes, strict=True)):
            width = shape[1] if lookup is None else lookup.dim
            columns = gradient[:, start : start + width]
            start += width
            found = None
            if ctx.needs_input_grad[3 + place]:
                found = columns[: shape[0]].float() if lookup is None else _of_table(passes, lookup, columns, shape)
            gradients.append(found)
        return None, None, None, *gradients


def _of_table(passes: Kernels, lookup: Lookup, columns: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """The gradient of the lookup's table, of that shape, by those of its entries; None where it was left with the table's rows."""
    columns = columns[: len(lookup)]
    entries = lookup.places if isinstance(lookup.places, torch.Tensor) else lookup.transposed
    assert entries is not None
    if isinstance(lookup.table, TableRows):
        lookup.table.pulled(columns, entries)
        return None
    if isinstance(entries, torch.Tensor):
        found = torch.zeros(shape)
        passes.add_rows(columns, entries, into=found)
    else:
        found = torch.empty(shape)
        passes.sum_rows(columns, entries, into=found)
    return found


def side_by_side(pieces: Sequence[torch.Tensor], *, rows: int, kind: torch.dtype) -> torch.Tensor:
    """(rows, width) the pieces (n, some width), n <= rows, as columns of one matrix of type `kind`; zeros below row n."""
    beside: torch.Tensor = _SideBySide.apply(rows, kind, *pieces)  # type: ignore[no-untyped-call]  # torch types none
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
