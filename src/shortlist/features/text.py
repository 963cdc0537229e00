"""Text -> a bag of hashed tokens: words, and character n-grams inside words, so that a new spelling is not a stranger.

Weights are inverse document frequencies of the training window, with unit sum of squares a text, so that the pooled
vector keeps its scale whatever the length. Row 0 of the table means "missing".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from shortlist.config import FeatureSettings
from shortlist.features.arrays import Bag, ragged_positions

MISSING_ROW = 0
DEFAULT_BUCKETS = 32_768
_HASH_SEED = 29
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TextEncoder:
    """`text`: see the module."""

    inverse_frequency: NDArray[np.float32]  # (buckets + 1,), row 0 is for missing text
    max_tokens: int
    character_ngrams: tuple[int, int]

    @property
    def table_rows(self) -> int:
        """Rows of the embedding table: missing, then the hash buckets."""
        return len(self.inverse_frequency)

    def encode(self, values: pl.Series) -> Bag:
        """n bags of at most `max_tokens` distinct tokens each, those of most weight first."""
        text, token = distinct_tokens(values, self.table_rows - 1, self.character_ngrams)
        weight = self.inverse_frequency[token]
        order = np.lexsort((token, -weight, text))  # by text, then weight, then token
        text, token, weight = text[order], token[order], weight[order]
        starts = np.searchsorted(text, np.arange(len(values)))
        lengths = np.diff(np.append(starts, len(text)))
        kept, offsets = ragged_positions(starts, starts + np.minimum(lengths, self.max_tokens))
        weight = weight[kept]
        squares = np.add.reduceat(weight.astype(np.float64) ** 2, offsets[:-1]) if len(values) else np.zeros(0)
        weight = (weight / np.repeat(np.sqrt(squares), np.diff(offsets))).astype(np.float32)
        return Bag(token[kept], offsets, weight)


def fit_text(values: pl.Series, settings: FeatureSettings) -> TextEncoder:
    """The encoder with inverse document frequencies log((1 + n) / (1 + n_token)) + 1 over these n texts."""
    buckets = settings.buckets or DEFAULT_BUCKETS
    _, token = distinct_tokens(values, buckets, settings.character_ngrams)
    documents = np.bincount(token, minlength=buckets + 1)
    inverse = np.log((1 + len(values)) / (1 + documents)) + 1
    return TextEncoder(inverse.astype(np.float32), settings.max_tokens, settings.character_ngrams)


def distinct_tokens(
    values: pl.Series, buckets: int, character_ngrams: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Parallel arrays (text number, token row) of the distinct tokens of each text; a text without any has row 0."""
    rows_of_word: dict[str, NDArray[np.int64]] = {}
    numbers, tokens = [], []
    for number, text in enumerate(values):
        words = set(_WORD.findall(unicodedata.normalize("NFKC", text).lower())) if text else set()
        rows = [_word_rows(word, buckets, character_ngrams, rows_of_word) for word in words]
        found = np.concatenate(rows) if rows else np.zeros(1, np.int64)
        numbers.append(np.full(len(found), number, np.int64))
        tokens.append(found)
    if not numbers:
        return np.zeros(0, np.int64), np.zeros(0, np.int32)
    pairs = np.unique(np.concatenate(numbers) * (buckets + 1) + np.concatenate(tokens))
    return pairs // (buckets + 1), (pairs % (buckets + 1)).astype(np.int32)


def _word_rows(
    word: str, buckets: int, character_ngrams: tuple[int, int], known: dict[str, NDArray[np.int64]]
) -> NDArray[np.int64]:
    if word not in known:
        shortest, longest = character_ngrams
        marked = f"<{word}>"
        pieces = [marked]
        if longest:
            pieces += [
                marked[start : start + length]
                for length in range(shortest, longest + 1)
                for start in range(len(marked) - length + 1)
            ]
        hashes = {xxhash.xxh3_64_intdigest(piece.encode(), seed=_HASH_SEED) % buckets + 1 for piece in pieces}
        known[word] = np.fromiter(hashes, np.int64, len(hashes))
    return known[word]
