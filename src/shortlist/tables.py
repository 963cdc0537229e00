"""Embedding tables and their row-sparse optimiser: with tower_inputs.py, which reads their rows, what sharding will touch.

A step gathers the rows it needs into small leaf tensors, looks up in those, and writes the updated rows back. With compiled passes, rows
that features are looked up in are not copied: they are read where they lie, and their gradient is summed where it is applied. Nothing
the size of a table is ever computed, and no `torch.sparse` is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shortlist.kernels import BagTensors, Kernels, kernels

_ROWS_AT_ONCE = 4096  # of an update: what stands between reading and writing stays in the cache


@dataclass
class TableRows:
    """Rows of a table, to be looked up where they lie, once; their gradient is left here for `EmbeddingTables.update`.

    table   (m, dim)
    rows    (n,) int64, distinct
    asks    stands for them in the graph: it requires a gradient if they are to learn
    pull    ((e, dim) gradients of the entries that looked rows up; which: the number of the row of each entry, (e,) int32, or for
            each row the bag of its entries); None = nothing pulled at them
    """

    table: torch.Tensor
    rows: torch.Tensor
    asks: torch.Tensor
    pull: tuple[torch.Tensor, torch.Tensor | BagTensors] | None = None

    def pulled(self, gradients: torch.Tensor, entries: torch.Tensor | BagTensors) -> None:
        """Nothing comes back. Raises RuntimeError for a second time: the first gradient would be lost."""
        if self.pull is not None:
            raise RuntimeError("table rows must be looked up once a step: got a second gradient; gather a copy of rows that are used again")
        self.pull = gradients, entries


Sources = Mapping[str, torch.Tensor | TableRows]  # what features are looked up in, by the name of the table


class EmbeddingTables:
    """Tables by name, each with its Adagrad sums of squared gradients (Duchi et al., 2011)."""

    def __init__(self, weights: dict[str, torch.Tensor], *, adagrad_start: float, fixed: frozenset[str] = frozenset()) -> None:
        """`fixed` names tables that are looked up and never updated."""
        self.weights = weights  # name -> (rows, dim)
        self.fixed = fixed
        self.sums = {name: torch.full_like(weight, adagrad_start) for name, weight in weights.items()}
        self._asks = {name: torch.zeros((), requires_grad=name not in fixed) for name in weights}
        self._gathered: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._referred: dict[str, TableRows] = {}

    def gather(self, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, torch.Tensor]:
        """Leaves (distinct rows, dim) that collect gradients; `update` takes those gradients. Rows must be distinct."""
        leaves, passes = {}, kernels()
        for name, table_rows in rows.items():
            index = torch.from_numpy(table_rows)
            leaf = self.weights[name].index_select(0, index) if passes is None else passes.gather_rows(self.weights[name], index)
            leaves[name] = leaf
            if name in self.fixed:
                continue
            leaf.requires_grad_()
            self._gathered[name] = (index, leaf)
        return leaves

    def refer(self, rows: Mapping[str, NDArray[np.int64]]) -> Sources:
        """The rows for lookups of features: not copied with compiled passes, else as `gather`. Rows must be distinct."""
        if kernels() is None:
            return self.gather(rows)
        for name, table_rows in rows.items():
            self._referred[name] = TableRows(self.weights[name], torch.from_numpy(table_rows), self._asks[name])
        return {name: self._referred[name] for name in rows}

    @torch.no_grad()
    def update(self, learning_rate: float, *, weight_decay: float = 0.0) -> None:
        """One Adagrad step on the rows gathered or referred to last, and on no other: sums += g^2; w -= lr g / sqrt(sums)."""
        passes = kernels()
        for name, referred in self._referred.items():
            if referred.pull is not None:
                assert passes is not None
                self._pull(passes, name, referred, learning_rate, 1 - learning_rate * weight_decay)
        for name, (index, leaf) in self._gathered.items():
            if leaf.grad is None:
                continue
            if passes is not None:
                kept = 1 - learning_rate * weight_decay
                table = (self.weights[name], self.sums[name])
                passes.adagrad_rows(*table, index, leaf.grad.contiguous(), rate=learning_rate, kept=kept)
                continue
            moved = leaf.detach()
            if weight_decay:
                moved *= 1 - learning_rate * weight_decay
            for start in range(0, len(index), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                gradient, row = leaf.grad[rows], index[rows]
                sums = self.sums[name].index_select(0, row).addcmul_(gradient, gradient)
                _write_rows(self.sums[name], row, sums)
                _write_rows(self.weights[name], row, moved[rows].addcdiv_(gradient, sums.sqrt_(), value=-learning_rate))
        self._gathered, self._referred = {}, {}

    def _pull(self, passes: Kernels, name: str, referred: TableRows, rate: float, kept: float) -> None:
        assert referred.pull is not None
        gradients, entries = referred.pull
        table = (self.weights[name], self.sums[name], referred.rows)
        if not isinstance(entries, torch.Tensor):
            passes.adagrad_bags(*table, gradients, entries, rate=rate, kept=kept)
            return
        of_rows = torch.zeros(len(referred.rows), gradients.shape[1])
        passes.add_rows(gradients, entries, into=of_rows)
        passes.adagrad_rows(*table, of_rows, rate=rate, kept=kept)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything a checkpoint must hold: weights and sums, by name."""
        return {
            **{f"weight/{name}": weight for name, weight in self.weights.items()},
            **{f"sum/{name}": sums for name, sums in self.sums.items()},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`, in place."""
        for name in self.weights:
            self.weights[name].copy_(state[f"weight/{name}"])
            self.sums[name].copy_(state[f"sum/{name}"])


def _write_rows(table: torch.Tensor, row: torch.Tensor, values: torch.Tensor) -> None:
    """table[row] = values, copied in the widest elements that fit: they go one by one."""
    wide = torch.complex128 if table.shape[1] % 4 == 0 else torch.float32
    table.view(wide).index_copy_(0, row, values.view(wide))
