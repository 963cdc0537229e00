"""What the catalogue says of each item, as one TF-IDF vector: the words of its texts, and its categories.

The columns are those that the item features name as text, category or categories. A category is one token, told apart by
its column; words of all texts are one vocabulary. No choice is looked at, so a new item has a vector like any other.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

from shortlist.baselines.chosen_by import Window
from shortlist.catalogue import Catalogue
from shortlist.config import Config, feature_settings
from shortlist.project import feature_column

_WORD = re.compile(r"\w+")


def content_columns(config: Config) -> dict[str, str]:
    """Column of the items table -> how it is read: "text", "category" or "categories"."""
    return {
        feature_column(name, settings, config, side="item").column: settings.kind
        for name, settings in feature_settings(config.item).items()
        if settings.kind in ("text", "category", "categories")
    }


def obstacle_to_content(window: Window) -> str | None:
    """Why items cannot be compared by what is said of them; None where they can."""
    if not content_columns(window.config):
        return "it compares what the catalogue says of items: [item.features] names no text, category or categories"
    return None


def item_texts(window: Window) -> sparse.csr_matrix:
    """(M, V) float32, rows of length 1; an item of which nothing is said is a zero row."""
    return _texts(window.dataset.items, tuple(content_columns(window.config).items()))


@lru_cache(maxsize=1)  # tuning and fitting of two baselines ask for the same
def _texts(items: Catalogue, columns: tuple[tuple[str, str], ...]) -> sparse.csr_matrix:
    tokens = [_tokens(items.frame[column], column, kind) for column, kind in columns]
    documents = [[token for part in parts for token in part] for parts in zip(*tokens, strict=True)]
    if not any(documents):
        return sparse.csr_matrix((len(documents), 1), dtype=np.float32)
    vectoriser = TfidfVectorizer(analyzer=_as_it_is, sublinear_tf=True, dtype=np.float32)
    return vectoriser.fit_transform(documents).tocsr()


def _as_it_is(tokens: list[str]) -> list[str]:
    return tokens


def _tokens(values: pl.Series, column: str, kind: str) -> list[list[str]]:
    """The tokens of each item, none where the value is missing."""
    if kind == "text":
        return [_WORD.findall(text.lower()) if text is not None else [] for text in values.to_list()]
    if kind == "category":
        return [[f"{column}={value}"] if value is not None else [] for value in values.to_list()]
    return [[f"{column}={value}" for value in listed or () if value is not None] for listed in values.to_list()]
