"""The pointwise passes of a training step as compiled from kernels.c: what they are asked for, on torch's tensors.

Every function works in place or into what it returns, on contiguous tensors. `kernels()` is what callers ask for; where it says None,
torch's operations do the same with a pass over memory each. What `torch.compile` makes of these formulae was slower than either
(docs/performance.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch

from shortlist.compiled import library

BagTensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # values, offsets (both int32), weights: bag i is values[o_i:o_(i+1)]
_KINDS = (torch.float32, torch.bfloat16)


class Kernels:
    """kernels.c, loaded. It shares torch's threads: the same OpenMP runtime, and as many as `torch.set_num_threads` allows."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def softmax_gradient(
        self,
        cells: torch.Tensor,
        *,
        shift: torch.Tensor,
        own: torch.Tensor,
        own_cell: torch.Tensor,
        hidden: torch.Tensor | None,
        share: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """((r,) -log of each row's own cell in its softmax, (K,) sum of the rows' gradients times `share` or None).

        cells      (r, at least K) logits, float32 or bfloat16; afterwards P - [own], zeros behind column K
        shift      (K,) what a column is raised by, -inf where it is no negative; own_cell (r,) what the own cell is raised by instead
        own        (r,) int64
        hidden     (r, K) or None, cells that are no negatives
        share      (r,) or None
        """
        columns, loss = len(shift), torch.empty(len(cells))
        sums = None if share is None else torch.zeros(torch.get_num_threads(), columns)
        failed = self._library.softmax_gradient(
            _at(cells, *_KINDS),
            len(cells),
            columns,
            cells.shape[1],
            *(_at(shift), _at(own, torch.int64), _at(own_cell), _at(hidden, torch.bool), _at(loss), _at(share), _at(sums)),
            _is_narrow(cells),
        )
        if failed:
            raise MemoryError(f"a row of {columns} logits must fit into memory: got none")
        return loss, None if sums is None else sums.sum(dim=0)

    def adagrad_rows(
        self, weights: torch.Tensor, sums: torch.Tensor, rows: torch.Tensor, gradients: torch.Tensor, *, rate: float, kept: float
    ) -> None:
        """sums += g^2; w = kept w - rate g / sqrt(sums), for the distinct `rows` (n,) of two (m, dim) tables; gradients (n, dim)."""
        places = (_at(weights), _at(sums), _at(rows, torch.int64), _at(gradients))
        self._library.adagrad_rows(*places, *gradients.shape, rate, kept)

    def adagrad(self, moved: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], *, rate: float) -> None:
        """The same for all numbers of some layers: (weights, sums, gradients) of each, of any shape."""
        numbers = [number for weights, *others in moved for number in (_address(weights), *map(_address, others), weights.numel())]
        self._library.adagrad((ctypes.c_int64 * len(numbers))(*numbers), len(moved), rate)

    def gather_rows(self, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(n, dim) the rows (n,), int64, of a table (m, dim)."""
        found = torch.empty(len(rows), table.shape[1])
        self._library.gather_rows(_at(table), _at(rows, torch.int64), *found.shape, _at(found))
        return found

    def sum_rows(self, rows: torch.Tensor, bags: BagTensors | torch.Tensor, *, into: torch.Tensor) -> None:
        """into (n, width) becomes the weighted sum of the rows (m, width) of each bag, or, of places (n,), the row at each.

        Both may be columns of a wider matrix, in float32 or bfloat16; sums are in float32.
        """
        values, offsets, weights = (bags, None, None) if isinstance(bags, torch.Tensor) else bags
        self._library.sum_rows(
            *_strided(rows),
            *(_at(values, torch.int32), _at(offsets, torch.int32), _at(weights)),
            *into.shape,
            *_strided(into),
            *(_is_narrow(rows), _is_narrow(into)),
        )

    def sum_table_rows(self, table: torch.Tensor, rows: torch.Tensor, bags: BagTensors | torch.Tensor, *, into: torch.Tensor) -> None:
        """What `sum_rows` makes of the `rows` (n,), int64, of a table (m, width), which are not copied for it."""
        values, offsets, weights = (bags, None, None) if isinstance(bags, torch.Tensor) else bags
        self._library.sum_table_rows(
            *(_at(table), _at(rows, torch.int64), _at(values, torch.int32), _at(offsets, torch.int32), _at(weights)),
            *into.shape,
            *_strided(into),
            _is_narrow(into),
        )

    def adagrad_bags(
        self,
        table: torch.Tensor,
        sums: torch.Tensor,
        rows: torch.Tensor,
        gradients: torch.Tensor,
        bags: BagTensors,
        *,
        rate: float,
        kept: float,
    ) -> None:
        """`adagrad_rows`, the gradient of each of the distinct `rows` (n,) being the weighted sum of its bag of `gradients` (e, dim).

        gradients   may be columns of a wider matrix, in float32 or bfloat16; sums are in float32
        """
        values, offsets, weights = bags
        self._library.adagrad_bags(
            *(_at(table), _at(sums), _at(rows, torch.int64)),
            *_strided(gradients),
            *(_at(values, torch.int32), _at(offsets, torch.int32), _at(weights)),
            len(rows),
            table.shape[1],
            *(rate, kept, _is_narrow(gradients)),
        )

    def add_rows(self, rows: torch.Tensor, places: torch.Tensor, *, into: torch.Tensor) -> None:
        """into[places[i]] += rows[i], for rows (n, width) that may be columns of a wider matrix; places (n,) int32."""
        self._library.add_rows(*_strided(rows), _at(places, torch.int32), *rows.shape, _at(into), _is_narrow(rows))

    def add_bias(self, values: torch.Tensor, bias: torch.Tensor, *, cuts: bool) -> None:
        """values (n, width) += bias (width,), float32; with `cuts`, what is negative becomes 0."""
        self._library.add_bias(_at(values, *_KINDS), _at(bias), *values.shape, int(cuts), _is_narrow(values))

    def relu_backward(self, gradients: torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
        """(width,) sum over the rows of `gradients` (n, width), in which cells became 0 where `outputs`, of the same type, are.

        Without `outputs` none does.
        """
        sums = torch.empty(gradients.shape[1])
        places = (_at(gradients, *_KINDS), _at(outputs, gradients.dtype), _at(sums))
        if self._library.relu_backward(*places, *gradients.shape, _is_narrow(gradients)):
            raise MemoryError(f"{len(sums)} sums a thread must fit into memory: got none")
        return sums

    def normalise(self, values: torch.Tensor, addends: torch.Tensor | None, count: int, floor: float) -> tuple[torch.Tensor, torch.Tensor]:
        """((n, width) the first n = `count` rows of values + addends over their length, or over `floor` where they are shorter;
        (n,) lengths), float32. values are float32 or bfloat16.
        """
        units, lengths = torch.empty(count, values.shape[1]), torch.empty(count)
        places = (_at(values, *_KINDS), _at(addends), _at(units), _at(lengths))
        self._library.normalise(*places, *units.shape, floor, _is_narrow(values))
        return units, lengths

    def normalise_backward(
        self, gradients: torch.Tensor, units: torch.Tensor, lengths: torch.Tensor, floor: float, *, of_values: torch.Tensor, adds: bool
    ) -> torch.Tensor | None:
        """The gradient of the addends (n, width), or None if nothing `adds`; `of_values` (n or more, width) becomes that of the values."""
        of_addends = torch.empty_like(units) if adds else None
        places = (_at(gradients), _at(units), _at(lengths), _at(of_values, *_KINDS), _at(of_addends))
        self._library.normalise_backward(*places, *units.shape, floor, _is_narrow(of_values))
        of_values[len(units) :] = 0
        return of_addends


def kernels() -> Kernels | None:
    """The compiled passes; None where there are none, and while a model is traced to be exported: a trace holds torch's operations."""
    built = None if torch.jit.is_tracing() else library()  # type: ignore[attr-defined, no-untyped-call]  # torch types none
    return None if built is None else _loaded(built)


@cache
def _loaded(library: ctypes.CDLL) -> Kernels:
    return Kernels(library)


def _at(tensor: torch.Tensor | None, *kinds: torch.dtype) -> int | None:
    """Where it lies, if it is there at all; as `_address`."""
    return None if tensor is None else _address(tensor, *kinds)


def _address(tensor: torch.Tensor, *kinds: torch.dtype) -> int:
    """Where it lies; it must be contiguous and of one of these types (float32 if none is named)."""
    assert tensor.is_contiguous() and tensor.dtype in (kinds or (torch.float32,)), (tensor.dtype, tensor.stride())
    return tensor.data_ptr()


def _strided(columns: torch.Tensor) -> tuple[int, int]:
    """Where a matrix lies, and how many numbers its rows are apart; its columns must be next to one another."""
    assert columns.dtype in _KINDS and columns.stride(1) == 1, (columns.dtype, columns.stride())
    return columns.data_ptr(), columns.stride(0)


def _is_narrow(tensor: torch.Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)
