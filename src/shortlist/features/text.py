"""Text -> a bag of hashed tokens: words, and character n-grams inside words, so that a new spelling is not a stranger.

Weights are inverse document frequencies of the training window, with unit sum of squares a text, so that the pooled
vector keeps its scale whatever the length. Row 0 of the table means "missing". A word is a run of letters, marks, digits
and underscores (Unicode's definition, with the vowel signs of Indic scripts), in NFKC and lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from shortlist.errors import DataError
from shortlist.features.arrays import Bag, ragged_positions
from shortlist.sections import FeatureSettings

MISSING_ROW = 0
DEFAULT_BUCKETS = 32_768
_HASH_SEED = 29
_TEXTS_AT_ONCE = 65_536  # whose words are in memory together
_PAIRS_AT_ONCE = 1 << 22  # (text, token) pairs that are sorted together: they stay near the cache
_INT32_END = 1 << 31
_ASCII_WORD = re.compile(r"\w+", re.ASCII)


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

    @cached_property
    def _heaviest_first(self) -> NDArray[np.int32]:
        """(buckets + 1,) token rows by falling weight, ties by row."""
        return np.argsort(-self.inverse_frequency, kind="stable").astype(np.int32)

    @cached_property
    def _place(self) -> NDArray[np.int32]:
        """(buckets + 1,) where each token row stands in that order."""
        place = np.empty(self.table_rows, np.int32)
        place[self._heaviest_first] = np.arange(self.table_rows, dtype=np.int32)
        return place

    def encode(self, values: pl.Series) -> Bag:
        """n bags of at most `max_tokens` distinct tokens each, those of most weight first. Raises DataError for other than text."""
        tokens, weights, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        for count, text, place in _distinct_pairs(values, self.table_rows, self.character_ngrams, self._place):
            ends = np.cumsum(np.bincount(text, minlength=count))
            starts = np.concatenate([[0], ends[:-1]])
            kept, offsets = ragged_positions(starts, np.minimum(ends, starts + self.max_tokens))
            tokens.append(self._heaviest_first[place[kept]])
            weights.append(_unit_length(self.inverse_frequency[tokens[-1]], offsets))
            lengths.append(np.diff(offsets))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return Bag(np.concatenate(tokens), offsets, np.concatenate(weights))

    def encode_one(self, text: str | None) -> Bag:
        """The one bag that `encode` makes of this text. ASCII, where words mean the same to all programs, needs no table library."""
        if text is None or not text.isascii():
            return self.encode(pl.Series([text], dtype=pl.String))
        words = set(_ASCII_WORD.findall(text.lower()))
        rows = list({row for word in words for row in _word_rows(word, self.table_rows - 1, self.character_ngrams)}) or [MISSING_ROW]
        tokens = self._heaviest_first[np.sort(self._place[rows])[: self.max_tokens]]
        offsets = np.array([0, len(tokens)], np.int64)
        return Bag(tokens, offsets, _unit_length(self.inverse_frequency[tokens], offsets))


def fit_text(values: pl.Series, settings: FeatureSettings) -> TextEncoder:
    """The encoder with inverse document frequencies log((1 + n) / (1 + n_token)) + 1 over these n texts."""
    rows = (settings.buckets or DEFAULT_BUCKETS) + 1
    documents = np.zeros(rows, np.int64)
    for _, _, token in _distinct_pairs(values, rows, settings.character_ngrams, np.arange(rows, dtype=np.int32)):
        documents += np.bincount(token, minlength=rows)
    inverse = np.log((1 + len(values)) / (1 + documents)) + 1
    return TextEncoder(inverse.astype(np.float32), settings.max_tokens, settings.character_ngrams)


def _distinct_pairs(
    values: pl.Series, table_rows: int, character_ngrams: tuple[int, int], place: NDArray[np.int32]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Block after block of texts: (how many, text number in the block, place of a token), each pair once, in that order.

    place   (table_rows,) a renumbering of the token rows: a text's tokens come by rising place
    A text without a word has the token MISSING_ROW.
    """
    for start in range(0, len(values), _TEXTS_AT_ONCE):
        words_of, word_end = _words(values[start : start + _TEXTS_AT_ONCE])
        distinct = words_of.unique()
        rows, row_end = _rows_of_words(distinct, table_rows - 1, character_ngrams)
        rows = place[rows]
        numbers = pl.DataFrame({"word": distinct, "number": np.arange(len(distinct))})
        word = words_of.to_frame("word").join(numbers, on="word", how="left", maintain_order="left")["number"].to_numpy()
        pairs_before = np.concatenate([[0], np.cumsum(row_end[word + 1] - row_end[word])])[word_end]  # (n + 1,)
        edges = _block_edges(pairs_before, table_rows)
        for first, end in pairwise(edges):
            block = word[word_end[first] : word_end[end]]
            positions, _ = ragged_positions(row_end[block], row_end[block + 1])
            yield end - first, *_sorted_pairs(rows[positions], np.diff(pairs_before[first : end + 1]), place, table_rows)


def _sorted_pairs(
    places: NDArray[np.int32], lengths: NDArray[np.int64], place: NDArray[np.int32], table_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(text, place) of the distinct pairs, sorted, of texts that have `lengths` of the `places` each."""
    dtype = np.int32 if len(lengths) * table_rows < _INT32_END else np.int64  # int32 sorts in half the time
    text = np.multiply(np.arange(len(lengths)), table_rows, dtype=dtype)
    pairs = np.repeat(text, lengths) + places
    if not lengths.all():
        pairs = np.concatenate([pairs, text[lengths == 0] + place[MISSING_ROW]])
    pairs.sort()
    is_new = np.ones(len(pairs), bool)
    np.not_equal(pairs[1:], pairs[:-1], out=is_new[1:])
    number, places_found = np.divmod(pairs[is_new], table_rows)
    return number.astype(np.int64), places_found.astype(np.int64)


def _block_edges(pairs_before: NDArray[np.int64], table_rows: int) -> list[int]:
    """Where blocks of texts begin and end, so that a block has few pairs and, but for a giant table, keys within int32."""
    count = len(pairs_before) - 1
    by_pairs = np.searchsorted(pairs_before, np.arange(0, pairs_before[-1], _PAIRS_AT_ONCE))
    by_texts = np.arange(0, count, max(1, (_INT32_END - 1) // table_rows))
    return [int(edge) for edge in np.unique(np.concatenate([by_pairs, by_texts, [0, count]]))]


def _words(values: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """(the words of all texts one after the other, (n + 1,) the place in them where each text's begin and the last end)."""
    if values.dtype not in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        raise DataError(f"column {values.name!r} must hold text: got {values.dtype}; convert it to strings")
    lists = values.cast(pl.String).str.normalize("NFKC").str.to_lowercase().str.extract_all(r"\w+")
    ends = np.cumsum(lists.list.len().fill_null(0).to_numpy(), dtype=np.int64)
    words = lists.alias("word").to_frame().explode("word", empty_as_null=False, keep_nulls=False)["word"]
    return words, np.concatenate([[0], ends])


def _rows_of_words(words: pl.Series, buckets: int, character_ngrams: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(the distinct token rows of each word one after the other, (n + 1,) where each word's begin and the last end)."""
    rows = [_word_rows(word, buckets, character_ngrams) for word in words]
    ends = np.cumsum([len(found) for found in rows], dtype=np.int64)
    return np.fromiter(chain.from_iterable(rows), np.int32), np.concatenate([[0], ends])


def _word_rows(word: str, buckets: int, character_ngrams: tuple[int, int]) -> set[int]:
    """The rows of a word and its pieces, 1..buckets. The marks make the word itself, and its ends, differ from what is inside."""
    shortest, longest = character_ngrams
    marked = f"<{word}>"
    pieces = [marked]
    for length in range(shortest, longest + 1) if longest else ():
        pieces += [marked[start : start + length] for start in range(len(marked) - length + 1)]
    return {xxhash.xxh3_64_intdigest(piece.encode(), seed=_HASH_SEED) % buckets + 1 for piece in pieces}


def _unit_length(weights: NDArray[np.float32], offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """The weights with unit sum of squares in each range; no range is empty."""
    lengths = np.sqrt(np.add.reduceat(weights.astype(np.float64) ** 2, offsets[:-1]))
    unit: NDArray[np.float64] = weights / np.repeat(lengths, np.diff(offsets))
    return unit.astype(np.float32)
