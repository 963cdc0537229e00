"""EASE: each item predicted from all others by ridge regression, in closed form.

    B = I - P / diag(P),  P = (X'X + l I)^-1;  a query that shows weights w scores w B

X is who chose what, l = `regularization`. B is dense over the items that were chosen, so the catalogue is limited.

Source: Steck, Embarrassingly shallow autoencoders, WWW'19.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.lapack import spotrf, spotri

from shortlist.baselines.chosen_by import Window
from shortlist.baselines.of_history import HistoryMethod, ScoreShown, obstacle_to_histories
from shortlist.baselines.scored_corpus import Scores

LARGEST_CORPUS = 20_000  # B then takes 1.6 GB


def train_ease(chosen: sparse.csr_matrix, /, *, regularization: float) -> ScoreShown:
    """What scores weights (B, M) of what queries show, from the (A, M) choices."""
    known = np.flatnonzero(np.diff(chosen.tocsc().indptr))  # all others predict nothing and are never predicted
    item_weights = ease_weights(chosen[:, known], regularization)

    def score(weights: sparse.csr_matrix) -> Scores:
        scores = np.zeros(weights.shape, np.float32)
        scores[:, known] = weights[:, known] @ item_weights
        return scores

    return score


def ease_weights(chosen: sparse.csr_matrix, regularization: float) -> NDArray[np.float32]:
    """(M, M) the B of the (A, M) choices: its diagonal is 0."""
    gram = (chosen.T @ chosen).toarray(order="F")
    gram.flat[:: len(gram) + 1] += regularization
    factor, failed = spotrf(gram, overwrite_a=True)
    assert not failed  # X'X + l I is positive definite
    upper, failed = spotri(factor, overwrite_c=True)
    assert not failed
    inverse = np.triu(upper) + np.triu(upper, 1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.asarray(weights, np.float32)


def obstacle_to_ease(window: Window) -> str | None:
    """Why EASE cannot be fitted; None where it can."""
    if window.corpus_size > LARGEST_CORPUS:
        return f"it makes a matrix of items by items, for at most {LARGEST_CORPUS:,} items: got {window.corpus_size:,}"
    return obstacle_to_histories(window)


EASE = HistoryMethod("ease", train_ease, (("regularization", (100.0, 10.0, 30.0, 300.0, 1000.0)),))
