"""One side of iALS: the vectors of rows, given the vectors of columns. An exact solution, one small system a row.

    x_r = argmin  sum_c w_rc (1 - x . y_c)^2  +  a sum_{all c} (x . y_c)^2  +  l (sum_c w_rc + a C) |x|^2

With a G = a sum_c y_c y_c' rotated to a diagonal, the system of a row is a diagonal plus one rank for each of its weights:
a row with fewer weights than dimensions is solved in their number. Rows of about as many weights are solved together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Matrix = NDArray[np.float32]
_ENTRIES_AT_ONCE = 1 << 18  # of looked-up vectors: 1 MB, which stays in the caches


@dataclass(frozen=True)
class LeastSquares:
    """The problem's two settings.

    regularization  l > 0, in front of what is known of a row: its own weights and its share of all pairs
    unobserved      a > 0, the weight of every pair, chosen or not
    """

    regularization: float
    unobserved: float

    def solve(self, weights: sparse.csr_matrix, columns: Matrix) -> Matrix:
        """(R, D) the vector of every row, zero for a row without weights.

        weights  (R, C) above 0 where the row has something to say about the column
        columns  (C, D)
        """
        size, dim = columns.shape
        squares, rotation = np.linalg.eigh(np.float32(self.unobserved) * (columns.T @ columns))
        turned = columns @ rotation
        squares = np.maximum(squares, 0)  # rounding may leave a hair below
        known = np.asarray(weights.sum(axis=1)).ravel() + self.unobserved * size
        ridge = (self.regularization * known).astype(np.float32)
        solved = np.zeros((weights.shape[0], dim), np.float32)
        for rows in _alike(np.diff(weights.indptr), dim):
            column, root = _padded(weights, rows)  # (r, W)
            scale = np.sqrt(squares + ridge[rows, None])  # (r, D)
            vectors = turned[column] * root[:, :, None] / scale[:, None, :]  # (r, W, D)
            solved[rows] = _nearest_to_one(vectors, root[:, :, None]) / scale
        result: Matrix = solved @ rotation.T
        return result


def _alike(lengths: NDArray[np.integer], dim: int) -> Iterator[NDArray[np.intp]]:
    """The rows that have weights, in groups of which none has a quarter more weights than another and which memory bears."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    start = int(np.searchsorted(ordered, 1))
    while start < len(order):
        longest = int(ordered[start]) * 5 // 4
        together = max(1, _ENTRIES_AT_ONCE // (longest * dim))
        stop = min(int(np.searchsorted(ordered, longest, side="right")), start + together)
        yield order[start:stop]
        start = stop


def _padded(weights: sparse.csr_matrix, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], Matrix]:
    """(columns, roots of the weights), each (r, W), W = the most weights of one row; a shorter one ends with roots of 0."""
    start, stop = weights.indptr[rows], weights.indptr[rows + 1]
    place = start[:, None] + np.arange((stop - start).max())  # (r, W)
    inside = place < stop[:, None]
    place = np.where(inside, place, start[:, None])
    return weights.indices[place], np.where(inside, np.sqrt(weights.data[place]), np.float32(0))


def _nearest_to_one(vectors: Matrix, root: Matrix) -> Matrix:
    """(r, D) the z that minimise |vectors z - root|^2 + |z|^2, for vectors (r, W, D), root (r, W, 1)."""
    across = vectors.transpose(0, 2, 1)
    is_few = vectors.shape[1] < vectors.shape[2]
    found: Matrix = across @ _solved(vectors @ across, root) if is_few else _solved(across @ vectors, across @ root)
    return found[:, :, 0]


def _solved(gram: Matrix, right: Matrix) -> Matrix:
    """The solutions x (r, n, 1) of (1 + gram) x = right, each gram (n, n) symmetric without negative eigenvalues."""
    diagonal = np.arange(gram.shape[1])
    gram[:, diagonal, diagonal] += 1
    return np.asarray(np.linalg.solve(gram, right), np.float32)
