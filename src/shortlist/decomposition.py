"""The leading singular directions of a sparse matrix, the same bytes again: a seeded start, so many passes, one thread.

A Lanczos iteration may run for minutes where no direction leads, and begins anew from other random numbers where rows are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits


def leading_directions(
    matrix: sparse.csr_array, count: int, *, passes: int, spare: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(singular values (count,), falling; right singular vectors (count, columns)).

    passes   how often it multiplies by the matrix
    spare    directions that it follows beside those asked for
    """
    from sklearn.utils.extmath import randomized_svd  # a second to import, and few need it

    with threadpool_limits(limits=1, user_api="blas"):  # the same bytes on any number of cores
        _, values, right = randomized_svd(
            matrix, count, n_oversamples=spare, n_iter=passes, power_iteration_normalizer="QR", random_state=seed
        )
    return values, right
