"""One query in the sealed index of a version, within a mask."""

from __future__ import annotations

import numpy as np

from shortlist.index.contract import Index, best_first, rescore
from shortlist.serve.eligibility import Eligible
from shortlist.serve.overlay import Floats, Rows

SMALL_SHARE = 0.1  # of eligible rows, below which they are scored one and all


def search_sealed(index: Index, vectors: Floats, query: Floats, k: int, eligible: Eligible) -> tuple[Rows, Floats]:
    """(rows, scores) of the best k eligible rows, fewer where fewer are eligible; best first, ties by row.

    vectors  (M, S) that the index was built over
    query    (1, S)
    """
    k = min(k, index.size)
    if eligible.mask is None:
        rows, scores = index.search(query, k, exclude=[eligible.excluded])
    else:
        inside = eligible.among(np.flatnonzero(eligible.mask))
        if len(inside) <= SMALL_SHARE * index.size:
            rows, scores = best_first(inside[None], rescore(query, vectors, inside[None]), k)
        else:
            rows, scores = index.search(query, k, exclude=[np.concatenate([np.flatnonzero(~eligible.mask), eligible.excluded])])
    found = int((rows[0] >= 0).sum())
    return rows[0, :found], scores[0, :found]
