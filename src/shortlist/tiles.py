"""The sampled softmax and its gradients in one pass over row tiles: at no time are there several copies of the logits.

Autograd over the plain formulae of losses.py keeps about ten arrays of (B, C) floats, and writing them takes most of a step. Here the
products stay in the type they were asked for, the softmax of a row (compiled) or of a tile of rows in float32 is taken where it stands,
and what is left in place of the logits is their gradient,

    dL/dl_ij = w_i (P_ij - [j = own_i]),   P = softmax over the row,   w_i = weight_i / sum of weights,

which two more products turn into the gradients of both towers (MNS Eq. 3 and 4 in closed form). losses.py says what
each design puts into `Terms`; the tests hold every design against autograd in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from shortlist.kernels import Kernels, kernels
from shortlist.tower_inputs import padded

_GROUP_BYTES = 24 * 2**20  # of products kept at once; below 32 MB, from where on memory comes fresh from the kernel every time
_TILE_BYTES = 4 * 2**20  # of float32 logits worked on at once: they stay in the caches of two cores, and threads part seldom


@dataclass(frozen=True)
class Terms:
    """A row's sum over K columns: the logit s_ij / T + bias_j is raised by `shift`, the positive's by what is said for it.

    shift       (K,) -inf where a column is no negative of any row
    own         (B,) the column of each row's positive
    own_shift   (B,) what the positive's own term is raised by
    own_cell    (B,) what cell (i, own_i) is raised by: own_shift, or more where copies of the positive count as negatives
    hidden      (B, K) cells that are no negatives; never an own cell. None = none
    """

    shift: torch.Tensor
    own: torch.Tensor
    own_shift: torch.Tensor
    own_cell: torch.Tensor
    hidden: torch.Tensor | None = None


def softmax_loss(
    queries: torch.Tensor,
    vectors: torch.Tensor,
    terms: Terms,
    *,
    temperature: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    kind: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Weighted mean of -log( e^(l_own + own_shift) / sum_j e^(l_j + shift_j) ), l = q . v / T + bias, in nats per query.

    queries      (B, D) and vectors (K, D), float32
    temperature  () above 0
    weight       (B,) at least 0; all 0 gives a loss of 0
    bias         (K,) or None
    kind         the type of the matrix products; the softmax is in float32 always
    Returns      () float32, with gradients of queries, vectors, temperature and bias
    """
    loss: torch.Tensor = _SoftmaxLoss.apply(queries, vectors, temperature, bias, terms, weight, kind)  # type: ignore[no-untyped-call]  # torch types none
    return loss


class _SoftmaxLoss(torch.autograd.Function):
    """Computes the gradients together with the loss: `backward` only multiplies them by the gradient that comes in."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        vectors: torch.Tensor,
        temperature: torch.Tensor,
        bias: torch.Tensor | None,
        terms: Terms,
        weight: torch.Tensor,
        kind: torch.dtype,
    ) -> torch.Tensor:
        share = weight / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)  # (B,) w_i
        warm = queries / temperature  # (B, D)
        columns = len(vectors) if kind == torch.float32 else padded(len(vectors))
        left, right = warm.to(kind), torch.empty(columns, vectors.shape[1], dtype=kind)
        right[: len(vectors)], right[len(vectors) :] = vectors, 0
        pull = (warm * share[:, None]).to(kind)  # (B, D) w_i q_i / T
        rows = _Rows(
            terms,
            terms.shift if bias is None else terms.shift + bias,
            terms.own_cell if bias is None else terms.own_cell + bias[terms.own],
            share if ctx.needs_input_grad[3] else None,
        )
        row_loss, d_queries = torch.empty(len(queries)), torch.empty_like(queries)
        d_vectors: torch.Tensor | None = None
        for group in _slices(len(queries), columns * left.element_size(), _GROUP_BYTES):
            cells = left[group] @ right.T  # (g, K)
            row_loss[group] = rows.to_gradients(cells, group)
            d_queries[group] = cells @ right
            part = (cells.T @ pull[group])[: len(vectors)]
            d_vectors = part.float() if d_vectors is None else d_vectors.add_(part)
        d_queries *= (share / temperature)[:, None]
        d_temperature = -(queries * d_queries).sum() / temperature if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(d_queries, d_vectors, d_temperature, rows.d_bias)
        return (row_loss + terms.own_cell - terms.own_shift) @ share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if gradient.item() == 1:  # as where the loss is what is differentiated
            return (*ctx.saved_tensors, None, None, None)
        gradients = (None if saved is None else saved * gradient for saved in ctx.saved_tensors)
        return (*gradients, None, None, None)


class _Rows:
    """Turns rows of products into rows of gradients, and adds up the gradient of the bias where it is asked for."""

    def __init__(self, terms: Terms, shift: torch.Tensor, own_cell: torch.Tensor, share: torch.Tensor | None) -> None:
        """`shift` (K,) and `own_cell` (B,) hold the bias already; `share` (B,) weighs rows in its gradient, None = there is none."""
        self.terms, self.shift, self.own_cell, self.share = terms, shift.contiguous(), own_cell.contiguous(), share
        self.d_bias = None if share is None else torch.zeros_like(shift)  # (K,)

    def to_gradients(self, cells: torch.Tensor, group: slice) -> torch.Tensor:
        """(g,) -log of each row's own cell in its softmax. `cells` (g, K or more) come as q . v / T and hold P - [own] afterwards."""
        passes = kernels()
        return self._in_tiles(cells, group) if passes is None else self._compiled(passes, cells, group)

    def _compiled(self, passes: Kernels, cells: torch.Tensor, group: slice) -> torch.Tensor:
        hidden = None if self.terms.hidden is None else self.terms.hidden[group]
        loss, d_bias = passes.softmax_gradient(
            cells,
            shift=self.shift,
            own=self.terms.own[group],
            own_cell=self.own_cell[group],
            hidden=hidden,
            share=None if self.share is None else self.share[group],
        )
        if self.d_bias is not None and d_bias is not None:
            self.d_bias += d_bias
        return loss

    def _in_tiles(self, cells: torch.Tensor, group: slice) -> torch.Tensor:
        """The same by torch's operations, a tile that stays in the caches at a time."""
        loss, shift = torch.empty(len(cells)), functional.pad(self.shift, (0, cells.shape[1] - len(self.shift)), value=float("-inf"))
        for tile in _slices(len(cells), 4 * cells.shape[1], _TILE_BYTES):
            rows = slice(group.start + tile.start, group.start + tile.stop)
            logits = cells[tile].float()  # a copy, but for float32 products
            loss[tile] = _to_gradient(logits, shift, self.terms, self.own_cell, rows)
            if self.d_bias is not None and self.share is not None:
                self.d_bias.addmv_(logits[:, : len(self.d_bias)].T, self.share[rows])
            if logits.dtype != cells.dtype:
                cells[tile] = logits
        return loss


def _to_gradient(logits: torch.Tensor, shift: torch.Tensor, terms: Terms, own_cell: torch.Tensor, rows: slice) -> torch.Tensor:
    """(r,) -log of each row's own cell in its softmax. `logits` (r, K) come as q . v / T, and hold P - [own] afterwards."""
    here, own = torch.arange(len(logits)), terms.own[rows]
    own_logit = logits[here, own] + own_cell[rows]
    logits += shift
    if terms.hidden is not None:
        logits[:, : terms.hidden.shape[1]].masked_fill_(terms.hidden[rows], float("-inf"))
    logits[here, own] = own_logit
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    lse = largest - torch.log(logits.amax(dim=1))  # the largest share is 1 / K or more, so its logarithm is exact enough
    logits[here, own] -= 1
    return lse - own_logit


def _slices(count: int, row_bytes: int, at_once: int) -> list[slice]:
    """Slices of `count` rows, each of about `at_once` bytes, and of one row at least."""
    rows = max(1, at_once // max(row_bytes, 1))
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
