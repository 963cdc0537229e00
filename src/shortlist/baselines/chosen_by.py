"""Who chose what: a training window as a matrix with one row an asker, and what a query shows in the same terms.

Who asks, follows from the log:
- users ask, and a query brings its seed and history. A row of the matrix is a user.
- the seed itself asks, over and over (a package, a page), in logs with a seed column and no users. A row is a seed, and what
  a query shows is what its seed chose in the window. A seed that the window does not know has chosen nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.dataset import Dataset, Examples
from shortlist.queries import Queries
from shortlist.sections import Config

MOST_SHOWN = 500  # items of one query that are looked at, the newest
_HALVINGS = 20  # an item older than so many half-lives weighs less than a millionth, and is not looked at


@dataclass(frozen=True, eq=False)
class Window:
    """The choices that baselines are fitted on, made by `window_of`: those with a reward of 0 are not among them."""

    dataset: Dataset
    config: Config

    @property
    def train(self) -> Examples:
        """The choices, in the order of the log."""
        return self.dataset.train

    @property
    def corpus_size(self) -> int:
        """M."""
        return len(self.dataset.items)

    @property
    def popularity(self) -> NDArray[np.int64]:
        """(M,) how often each item was chosen."""
        return self.dataset.item_counts

    @property
    def seeds_ask(self) -> bool:
        """Whether the log has seeds of its own and no users."""
        return self.config.columns.user is None and self.config.columns.seed is not None

    @property
    def has_time(self) -> bool:
        """Whether the log says what came before what."""
        return self.config.columns.time is not None

    def only(self, rows: NDArray[np.integer]) -> Window:
        """The window of these training examples alone, counted anew."""
        train = self.train.take(rows)
        counts = np.bincount(train.item_row, minlength=self.corpus_size)
        return replace(self, dataset=replace(self.dataset, train=train, item_counts=counts))


def window_of(dataset: Dataset, config: Config) -> Window:
    """The rewarded choices of `dataset`: a choice with a reward of 0 is no choice."""
    return Window(dataset, config).only(np.flatnonzero(dataset.train.weight > 0))


def chosen_by_asker(window: Window, *, with_seed: bool = False) -> sparse.csr_matrix:
    """(A, M) float32, 1 where the asker chose the item; choices of nobody are left out.

    with_seed   where seeds ask: count the seed, as an item, among its own choices
    """
    if not window.seeds_ask:
        known = window.train.asker >= 0
        asker = np.unique(window.train.asker[known], return_inverse=True)[1]
        return _ones(asker, window.train.item_row[known], (int(asker.max(initial=-1)) + 1, window.corpus_size))
    chosen = chosen_by_seed(window.train, window.corpus_size)
    seeds = np.flatnonzero(np.diff(chosen.indptr))
    if not with_seed:
        return chosen[seeds]
    return chosen[seeds].maximum(_ones(np.arange(len(seeds)), seeds, (len(seeds), window.corpus_size))).tocsr()


def chosen_by_seed(train: Examples, size: int) -> sparse.csr_matrix:
    """(M, M) float32, 1 where the seed of that row chose the item of that column."""
    known = train.queries.seed_row >= 0
    return _ones(train.queries.seed_row[known], train.item_row[known], (size, size))


def _ones(row: NDArray[np.integer], column: NDArray[np.integer], shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape).minimum(1).tocsr()


def shown_rows(queries: Queries, last: int) -> NDArray[np.int32]:
    """(N, last) the items a query shows: its seed, then its history, newest first, in which a derived seed stands already."""
    history = queries.newest_first(last)
    own_seed = (queries.seed_row >= 0) & (queries.seed_row != history[:, 0])
    return np.where(own_seed[:, None], np.column_stack([queries.seed_row, history[:, :-1]]), history)


@dataclass(frozen=True, eq=False)
class Shown:
    """What queries show, as weights over the corpus.

    size          M
    half_life     an item so many places behind the newest weighs half of it; the newest weighs 1
    choices       where seeds ask: (M, M) what each chose in training, of weight 1; else None
    seed_weight   where seeds ask: what the seed weighs as an item
    """

    size: int
    half_life: float = np.inf
    choices: sparse.csr_matrix | None = None
    seed_weight: float = 1.0

    def weights(self, queries: Queries) -> sparse.csr_matrix:
        """(B, M) float32, 0 where the query does not show the item. An item shown twice weighs what its newest place does."""
        if self.choices is not None:
            seed = _at_rows(queries.seed_row[:, None], np.ones(1, np.float32), self.size)
            return (seed @ self.choices).maximum(seed * np.float32(self.seed_weight)).tocsr()
        last = int(min(MOST_SHOWN, _HALVINGS * self.half_life + 1))
        return _at_rows(shown_rows(queries, last), np.exp2(-np.arange(last) / self.half_life).astype(np.float32), self.size)


def shown_in(window: Window, *, half_life: float = np.inf, seed_weight: float = 1.0) -> Shown:
    """What queries show to a baseline that is fitted on `window`."""
    choices = chosen_by_seed(window.train, window.corpus_size) if window.seeds_ask else None
    return Shown(window.corpus_size, half_life, choices, seed_weight)


def _at_rows(rows: NDArray[np.int32], weights: NDArray[np.float32], size: int) -> sparse.csr_matrix:
    """(N, size) with weights[place] at each of the (N, L) rows: -1 is left out, and an item counts at its first place alone."""
    query, place = np.nonzero(rows >= 0)
    item = rows[query, place]
    first = np.unique(query * np.int64(size) + item, return_index=True)[1]
    return sparse.csr_matrix((weights[place[first]], (query[first], item[first])), shape=(len(rows), size))
