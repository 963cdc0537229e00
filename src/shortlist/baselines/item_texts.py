"""What the catalogue says of each item (features/content_words.py), as one TF-IDF vector. A new item has a vector like any other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

from shortlist.baselines.chosen_by import Window
from shortlist.catalogue import Catalogue
from shortlist.features.content_words import Columns, content_words
from shortlist.project import content_columns


def obstacle_to_content(window: Window) -> str | None:
    """Why items cannot be compared by what is said of them; None where they can."""
    if not content_columns(window.config):
        return "it compares what the catalogue says of items: [item.features] names no text, category or categories"
    return None


def item_texts(window: Window) -> sparse.csr_matrix:
    """(M, V) float32, rows of length 1; an item of which nothing is said is a zero row."""
    return _texts(window.dataset.items, content_columns(window.config))


@lru_cache(maxsize=1)  # tuning and fitting of two baselines ask for the same
def _texts(items: Catalogue, columns: Columns) -> sparse.csr_matrix:
    said = content_words(items.frame, columns)
    if not len(said):
        return sparse.csr_matrix((len(items), 1), dtype=np.float32)
    word = said["word"].rank("dense").to_numpy() - 1
    times = sparse.csr_matrix(
        (said["times"].to_numpy().astype(np.float32), (said["item"].to_numpy(), word)), shape=(len(items), word.max() + 1)
    )
    return TfidfTransformer(sublinear_tf=True).fit_transform(times).tocsr()
