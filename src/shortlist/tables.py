"""Embedding tables and their row-sparse optimiser: the one place that sharding will touch.

A step gathers the rows it needs into small leaf tensors, looks up in those, and writes the updated rows back. Nothing
the size of a table is ever computed, and no `torch.sparse` is involved.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from shortlist.kernels import kernels

_ROWS_AT_ONCE = 4096  # of an update: what stands between reading and writing stays in the cache


class EmbeddingTables:
    """Tables by name, each with its Adagrad sums of squared gradients (Duchi et al., 2011)."""

    def __init__(self, weights: dict[str, torch.Tensor], *, adagrad_start: float, fixed: frozenset[str] = frozenset()) -> None:
        """`fixed` names tables that are looked up and never updated."""
        self.weights = weights  # name -> (rows, dim)
        self.fixed = fixed
        self.sums = {name: torch.full_like(weight, adagrad_start) for name, weight in weights.items()}
        self._gathered: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

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

    @torch.no_grad()
    def update(self, learning_rate: float, *, weight_decay: float = 0.0) -> None:
        """One Adagrad step on the rows gathered last, and on no other: sums += g^2; w -= lr g / sqrt(sums)."""
        for name, (index, leaf) in self._gathered.items():
            if leaf.grad is None:
                continue
            passes = kernels()
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
        self._gathered = {}

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
