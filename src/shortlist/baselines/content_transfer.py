"""Content transfer: what was chosen by the seeds of training whose texts and categories are nearest to this query's seed.

    score(j) = sum_s similarity(seed, s)^p [s chose j] / sum_s similarity(seed, s)^p  +  d similarity(seed, j)

over the n nearest seeds s, a seed that training knows being its own nearest. So a new seed borrows the choices of seeds
like it. n = `neighbours`, p = `power`, d = `direct`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.baselines.chosen_by import Window, chosen_by_seed
from shortlist.baselines.item_texts import item_texts, obstacle_to_content
from shortlist.baselines.of_history import POPULARITY_WEIGHT, scored_corpus, seen_steps
from shortlist.baselines.scored_corpus import ScoredCorpus, Scores
from shortlist.baselines.top_rows import largest_of_rows
from shortlist.baselines.tuning import Fitter, Settings, Steps
from shortlist.queries import Queries

MOST_NEIGHBOURS = 200
_BLOCKS_KEPT = 64  # of a few hundred queries with their nearest seeds: half a megabyte each


def content_transfer_steps(window: Window) -> Steps:
    """The steps of tuning."""
    own: Steps = (
        ("neighbours", (50, 10, 20, 100, MOST_NEIGHBOURS)),
        ("power", (2.0, 1.0, 4.0, 8.0)),
        ("direct", (0.0, 0.03, 0.1, 0.3, 1.0)),
    )
    return (*seen_steps(window), *own, POPULARITY_WEIGHT)


def content_transfer(window: Window) -> Fitter:
    """Settings -> the baseline fitted on `window`."""
    texts = item_texts(window)
    chosen = chosen_by_seed(window.train, window.corpus_size)
    seeds = np.flatnonzero(np.diff(chosen.indptr))
    chosen, words, words_of_seeds = chosen[seeds], texts.T.tocsr(), texts[seeds].T.tocsr()

    def said_by(seed_row: NDArray[np.int32]) -> sparse.csr_matrix:
        return sparse.csr_matrix(texts[np.maximum(seed_row, 0)].multiply((seed_row >= 0)[:, None]))  # (B, V)

    @lru_cache(maxsize=_BLOCKS_KEPT)
    def nearest(seed_row: bytes) -> sparse.csr_matrix:
        """(B, S) similarities with the nearest seeds: tuning asks for the same queries under every setting."""
        said = said_by(np.frombuffer(seed_row, np.int32))
        return largest_of_rows((said @ words_of_seeds).tocsr(), MOST_NEIGHBOURS)

    def fit(settings: Settings) -> ScoredCorpus:
        def score(queries: Queries) -> Scores:
            near = largest_of_rows(nearest(queries.seed_row.tobytes()), settings["neighbours"])
            near.data **= settings["power"]
            total = np.asarray(near.sum(axis=1))  # (B, 1)
            scores = (near @ chosen).toarray() / np.where(total > 0, total, 1)
            if settings["direct"]:
                scores = scores + settings["direct"] * (said_by(queries.seed_row) @ words).toarray()
            return np.asarray(scores, np.float32)

        return scored_corpus("content-transfer", window, settings, score)

    return fit


def obstacle_to_transfer(window: Window) -> str | None:
    """Why choices cannot be carried over from like seeds; None where they can."""
    if not (window.train.queries.seed_row >= 0).any():
        return "it carries choices over from seeds like the query's: queries of this log have no seed; name one under [query.features]"
    return obstacle_to_content(window)
