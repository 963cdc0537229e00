"""iALS: factors of who chose what by implicit alternating least squares; queries are folded in from what they show.

    minimise  sum_{(u, i) chosen} (1 - x_u . y_i)^2  +  a sum_{all u, i} (x_u . y_i)^2
              +  l sum_u (N_u + a M) |x_u|^2  +  l sum_i (N_i + a A) |y_i|^2,     N = how many choices an asker, an item has

with a = `unobserved` and l = `regularization`, which grows with what is known of a row (nu = 1 in the source): one value then
fits askers and items of all sizes. A query is an asker whose weights fall with the age of what it shows; its vector is the
same least squares (least_squares.py). Nobody is remembered, so an asker whom training has not seen is as good as any.

Source: Hu, Koren & Volinsky, ICDM'08; regularisation and start as in Rendle, Krichene, Zhang & Koren, RecSys'22.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from shortlist.baselines.least_squares import LeastSquares, Matrix
from shortlist.baselines.of_history import HistoryMethod, ScoreShown

_START = 0.1  # length of a vector at the start
_SWEEPS = 8


def train_ials(chosen: sparse.csr_matrix, /, *, regularization: float, unobserved: float, factors: int) -> ScoreShown:
    """What scores weights (B, M) of what queries show, from the (A, M) choices."""
    solver = LeastSquares(regularization, unobserved)
    vectors = item_vectors(chosen, factors, solver)

    def score(weights: sparse.csr_matrix) -> Matrix:
        scores: Matrix = np.matmul(solver.solve(weights, vectors), vectors.T)
        return scores

    return score


def item_vectors(chosen: sparse.csr_matrix, factors: int, solver: LeastSquares) -> Matrix:
    """(M, factors) the items' vectors y from the (A, M) choices; an item that nobody chose has the zero vector."""
    rng = np.random.default_rng(0)
    vectors: Matrix = (rng.standard_normal((chosen.shape[1], factors)) * _START / np.sqrt(factors)).astype(np.float32)
    choosers = chosen.T.tocsr()
    for _ in range(_SWEEPS):
        vectors = solver.solve(choosers, solver.solve(chosen, vectors))
    return vectors


IALS = HistoryMethod(
    "ials",
    train_ials,
    (  # from a start that learns something of small and of large logs: where both are large, all vectors become zero
        ("regularization", (0.003, 0.001, 0.01, 0.03)),
        ("unobserved", (0.03, 0.003, 0.01, 0.1, 0.3)),
        ("factors", (64, 32, 128)),
    ),
)
