"""Content codes: what is said of an item as a short vector, so that items match what a query shows by their very words.

    x_i = the TF-IDF vector of an item's words, of length 1        c_i = D' x_i, so that <c_i, c_j> is about <x_i, x_j>

The towers learn what words mean for a choice, from many choices a word. That two films have a rare name in common is seen without
having learned it, and it is most of what can be known of an item that nobody has chosen: so it is told beside the towers, and
calibration.py sets how much it says.

D (words x m): one half leading singular directions of the x_i, where the most products are explained; the other half random ones, less
what the first explain, by which rare words keep their products, with an error of about sqrt(2 / m) of what is left (Johnson and
Lindenstrauss, 1984). Where m is enough for all words, D is the unit matrix, and products are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.features.content_words import Columns, content_words
from shortlist.id_places import places_among, row_blocks

Floats = NDArray[np.float32]
_MOST_WORDS = 200_000  # that can match, the most common ones; the others count in an item's length alone
_MOST_ITEMS = 100_000  # by which directions are found, evenly spread
_SEED, _SPARE, _PASSES = 0, 32, 8  # of the random directions and of the decomposition
_ITEMS_AT_ONCE = 65_536  # whose words are in memory together
_WORDS_AT_ONCE = 2048  # whose directions are: they stay near a core
HALF_LIFE = 4.0  # an item so many choices ago says half as much of what a query shows


@dataclass(frozen=True, eq=False)
class ContentCodes:
    """Rows of an items table -> codes.

    columns       (column, how it is read) of the items table (content_words.py)
    words         (V,) those that two items or more have, sorted: no other could match
    frequency     (V,) inverse document frequency log((1 + n) / (1 + n_word)) + 1
    of_others     the same of a word that one item of n has; words not known are such
    directions    (V, m) D
    """

    columns: Columns
    words: pl.Series
    frequency: Floats
    of_others: float
    directions: Floats

    @property
    def width(self) -> int:
        """m."""
        return int(self.directions.shape[1])

    def encode(self, frame: pl.DataFrame) -> Floats:
        """(n, m) the codes of the rows of `frame`; zeros where nothing is said of one that any other item has."""
        codes = np.zeros((frame.height, self.width), np.float32)
        for rows in row_blocks(frame.height, _ITEMS_AT_ONCE):
            self._add(codes[rows], content_words(frame[rows], self.columns))
        return codes

    def _add(self, codes: Floats, words: pl.DataFrame) -> None:
        """Nothing comes back: the codes of the items that have these words are added to `codes`."""
        item, row, weight = self.weights(words)
        for some in row_blocks(len(item), _WORDS_AT_ONCE):
            items, first = np.unique(item[some], return_index=True)
            codes[items] += np.add.reduceat(self.directions[row[some]] * weight[some, None], first, axis=0)

    def weights(self, words: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """(item, row of the word, weight): the x_i of items with these words, in order, but for words that are not known."""
        item, row = words["item"].to_numpy().astype(np.int64), places_among(self.words, words["word"]).astype(np.int64)
        frequency = np.where(row >= 0, self.frequency[row], np.float32(self.of_others)) if len(self.words) else np.float32(self.of_others)
        weight = (1 + np.log(words["times"].to_numpy())) * frequency
        length = np.sqrt(np.bincount(item, weights=weight**2))
        known = row >= 0
        return item[known], row[known], (weight[known] / length[item[known]]).astype(np.float32)


def fit_content_codes(frame: pl.DataFrame, columns: Columns, width: int) -> ContentCodes:
    """The codes of the items of `frame`, of `width` m or less: where fewer words can match, they are exact and as wide as these."""
    said = content_words(frame, columns)
    count = said.group_by("word").len("items").filter(pl.col("items") > 1)
    count = count.sort("items", "word", descending=[True, False]).head(_MOST_WORDS).sort("word")
    frequency = (np.log((1 + frame.height) / (1 + count["items"].to_numpy())) + 1).astype(np.float32)
    of_others = float(np.log((1 + frame.height) / 2) + 1)
    found = ContentCodes(columns, count["word"], frequency, of_others, np.zeros((len(count), 0), np.float32))
    if len(count) <= width:
        return replace(found, directions=np.eye(len(count), dtype=np.float32))
    kept = np.unique(np.linspace(0, frame.height - 1, min(frame.height, _MOST_ITEMS)).astype(np.int64))
    item, row, weight = found.weights(said.filter(pl.col("item").is_in(kept)) if len(kept) < frame.height else said)
    return replace(found, directions=_directions(item, row, weight, len(count), width))


def shown_codes(codes: Floats, seed: NDArray[np.integer], history: NDArray[np.integer]) -> Floats:
    """(N, m) what N queries show, of length 1 each, or 0: the code of the seed, and of the history by age.

    A seed that is the newest of the history says both: 1 and 2^(-1/4).

    codes     (M, m) of the items
    seed      (N,) and history (N, L), newest first: rows of `codes`, -1 = none
    """
    shown = codes[np.maximum(seed, 0)] * (seed >= 0)[:, None]
    for place, weight in enumerate(weights_by_age(history.shape[1])):  # place by place: no copy of every history's codes
        there = np.flatnonzero(history[:, place] >= 0)
        shown[there] += weight * codes[history[there, place]]
    return unit_length(shown)


def shown_by_one(seed: Floats | None, history: Floats, weights: Floats) -> Floats:
    """(1, m) as `shown_codes` gives it, to the bit, of one query: the code of its seed, and those (n, m) of its history, newest first."""
    shown = np.empty((len(history) + 1, history.shape[1]), np.float32)
    shown[0] = 0 if seed is None else seed
    np.multiply(weights[:, None], history, out=shown[1:])
    return unit_length(np.add.reduce(shown, axis=0)[None])  # one row after the other, as there


def weights_by_age(places: int) -> Floats:
    """(L,) what the items of a history say, newest first, where a seed says 1: half as much every HALF_LIFE places."""
    return np.exp2(-np.arange(1, places + 1) / HALF_LIFE).astype(np.float32)


def unit_length(shown: Floats) -> Floats:
    """(N, m) rows of length 1; those of 0 stay."""
    length = np.sqrt(np.einsum("nm,nm->n", shown, shown))[:, None]
    return np.asarray(shown / np.where(length > 0, length, 1), np.float32)


def _directions(item: NDArray[np.int64], row: NDArray[np.int64], weight: Floats, words: int, width: int) -> Floats:
    """(V, m) half leading, half random."""
    from scipy import sparse  # only fitting needs it, and a server does not fit
    from threadpoolctl import threadpool_limits

    from shortlist.decomposition import leading_directions

    said = sparse.csr_array((weight.astype(np.float64), (item, row)), shape=(int(item.max()) + 1, words))
    leading = min(width // 2, len(np.unique(item)))
    _, right = leading_directions(said, leading, passes=_PASSES, spare=_SPARE, seed=_SEED)  # (k, V)
    random = np.random.default_rng(_SEED).standard_normal((words, width - leading)) / np.sqrt(width - leading)
    with threadpool_limits(limits=1, user_api="blas"):  # the same bytes on any number of cores
        random -= right.T @ (right @ random)
    return np.hstack([right.T, random]).astype(np.float32)
