"""One side of iALS: the vectors of rows, given the vectors of columns. An exact solution, one small system a row.

    x_r = argmin  sum_c w_rc (1 - x . y_c)^2  +  a sum_{all c} (x . y_c)^2  +  l (sum_c w_rc + a C) |x|^2

With a G = a sum_c y_c y_c' rotated to a diagonal, the system of a row is a diagonal plus one rank for each of its weights:
a row with fewer weights than dimensions is solved in their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.lapack import sposv

Matrix = NDArray[np.float32]


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
        for row in np.flatnonzero(np.diff(weights.indptr)):
            span = slice(weights.indptr[row], weights.indptr[row + 1])
            root = np.sqrt(weights.data[span])
            scale = np.sqrt(squares + ridge[row])  # (D,)
            solved[row] = _nearest_to_one(turned[weights.indices[span]] * root[:, None] / scale, root) / scale
        result: Matrix = solved @ rotation.T
        return result


def _nearest_to_one(vectors: Matrix, root: Matrix) -> Matrix:
    """(D,) the z that minimises |vectors z - root|^2 + |z|^2, for vectors (n, D), root (n,)."""
    count, dim = vectors.shape
    if count < dim:
        return vectors.T @ _solved(vectors @ vectors.T, root)
    return _solved(vectors.T @ vectors, vectors.T @ root)


def _solved(gram: Matrix, right: Matrix) -> Matrix:
    """The solution of (1 + gram) x = right, gram symmetric without negative eigenvalues."""
    gram.flat[:: len(gram) + 1] += 1
    _, solution, failed = sposv(gram, right, overwrite_a=True)
    assert not failed  # 1 + a Gram matrix is positive definite
    return np.asarray(solution, np.float32)
