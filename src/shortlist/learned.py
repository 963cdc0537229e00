"""The trained towers and an exact search as one retriever: what evaluation judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.dataset import Dataset
from shortlist.encode import Tables, codes_for, encode_corpus, encode_queries
from shortlist.index.exact import ExactIndex
from shortlist.queries import Queries
from shortlist.sections import IndexSettings
from shortlist.towers import TwoTower


class LearnedRetriever:
    """Encodes a corpus once, and every query with the query tower."""

    name = "two-tower"

    def __init__(self, model: TwoTower, tables: Tables, dataset: Dataset) -> None:
        self.model, self.tables, self.user_features = model, tables, dataset.user_features
        self.corpus = encode_corpus(model, tables, dataset.item_features, codes=codes_for(model, dataset))
        self.index = ExactIndex.build(self.corpus.vector, IndexSettings())

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first; ties by row."""
        vectors = encode_queries(self.model, self.tables, queries, user_features=self.user_features, embedding=self.corpus.embedding)
        return self.index.search(vectors, k, exclude=exclude)
