"""One step's input as small arrays: every distinct item once, and only the table rows that the step touches.

A batch names each distinct item once, whatever roles it plays (positive, index negative, seed, history), so its features
are looked up and its tower is run once, and an item has the same vector in every role. numpy only: batches are made
beside the step that uses the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from shortlist.dataset import Dataset, Examples
from shortlist.features.arrays import Ids
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.local_rows import Features, Wanted, localise
from shortlist.masks import KnownItems, known_items, same_query_cells
from shortlist.negatives import MixedNegatives, Negatives
from shortlist.queries import Queries
from shortlist.sections import Mask
from shortlist.user_order import INT32_ROWS


@dataclass(frozen=True)
class Mined:
    """Hard negatives of each query of a batch, drawn from a list of candidates; they are negatives of that query alone."""

    rows: NDArray[np.int64]  # (B, h) catalogue rows
    chance: float  # expected count of an item of the list among the h drawn for its query

    def corrected(self, log_n: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C,) log_n with this stream's share added for its own columns, the last; that other columns could have been mined
        as well is not known, so the correction is biased."""
        if not self.rows.size:
            return log_n
        own = len(log_n) - self.rows.size
        return np.concatenate([log_n[:own], np.logaddexp(log_n[own:], np.float32(np.log(self.chance)))]).astype(np.float32)


NO_MINED = Mined(np.zeros((0, 0), np.int64), 0.0)


@dataclass(frozen=True)
class Batch:
    """B queries, their C = B + B' candidate columns, and what both are made of. Positions point into `item_row`."""

    item_row: NDArray[np.int64]  # (n,) catalogue rows of the distinct items, the candidates first
    candidates: int  # how many of them are candidates; the others are only looked at or remembered
    columns: NDArray[np.int64]  # (C,) positions; column i < B is query i's positive, the rest are index draws
    seed: NDArray[np.int64]  # (B,) positions, -1 = none
    history: NDArray[np.int64]  # (B, L) positions, newest first, padded with -1
    items: Features  # n entries
    users: Features  # B entries
    context: Features  # B entries
    log_n: NDArray[np.float32]  # (C,)
    weight: NDArray[np.float32]  # (B,)
    log_pi: NDArray[np.float32] | None = None  # (C,)
    hidden: NDArray[np.bool_] | None = None  # (B, C) cells that are no negatives, beside accidental hits
    draws: int = 0  # N, the negatives a row was meant to have
    mined: Mined = NO_MINED  # the last columns are mined
    cached_rows: NDArray[np.int64] | None = None  # catalogue rows of further columns, whose vectors are remembered
    asker: NDArray[np.int64] | None = None  # (B,) who asks, -1 = nobody

    @property
    def column_item_row(self) -> NDArray[np.int64]:
        """(C,) catalogue row of each column."""
        return self.item_row[self.columns]


Mine = Callable[[Queries, np.random.Generator], Mined]


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of any step from its number alone, so that training can resume anywhere."""

    dataset: Dataset
    examples: Examples
    negatives: Negatives
    batch_size: int
    id_dropout: float
    singleton_id_dropout: float
    history_dropout: float
    seed: int
    masks: tuple[Mask, ...] = ()
    inclusion: bool = False  # does the loss ask for log_pi?
    mine: Mine | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass: as few as hold every example, of sizes that differ by at most one."""
        return -(-len(self.examples) // self.batch_size)

    def example_rows(self, step: int) -> NDArray[np.signedinteger]:
        """(B,) which examples step `step` (from 0, running on over epochs) learns from: a seeded shuffle per epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.seed, epoch, len(self.examples))
        return order[self._bounds[place] : self._bounds[place + 1]]

    def make(self, step: int, *, shares_out: bool = False) -> Batch:
        """The batch of step `step`; `shares_out`: torch's threads have nothing else to do, and help."""
        rng = np.random.default_rng((self.seed, 2, step))
        chosen = self._looked_at.take(np.sort(self.example_rows(step)).astype(np.intp))  # what numpy looks up by quickest
        return self.assemble(chosen, self.negatives.sample(rng), rng, shares_out=shares_out)

    def assemble(
        self, examples: Examples, index_rows: NDArray[np.int64], rng: np.random.Generator | None, *, shares_out: bool = False
    ) -> Batch:
        """The batch of these examples and index draws; without `rng` nothing is dropped out."""
        queries, dataset = examples.queries, self.dataset
        last = dataset.query_encoder.history_last
        history = queries.newest_first(last).astype(np.int64)
        if rng is not None and self.history_dropout:
            history[rng.random(history.shape) < self.history_dropout] = -1
        mined = self._mined(queries, rng)
        column_rows = np.concatenate([examples.item_row.astype(np.int64), index_rows, mined.rows.ravel()])
        size = len(examples)
        item_row, candidates, place = _distinct_items(len(dataset.items), column_rows, np.concatenate([queries.seed_row, history.ravel()]))
        shown = {}
        if rng is not None and max(self.id_dropout, self.singleton_id_dropout):
            shown = self._shown_ids(item_row, self._hidden_shares(item_row, place[examples.item_row]), rng)
        query_encoder = dataset.query_encoder
        items, users, context = localise(
            (
                Wanted(dataset.item_features, dataset.item_encoder.embedded, item_row, shown),
                Wanted(dataset.user_features, query_encoder.user.embedded, queries.user_row),
                Wanted(queries.context, query_encoder.context.embedded),
            ),
            shares_out=shares_out,
        )
        return Batch(
            item_row,
            candidates,
            place[column_rows],
            place[queries.seed_row],
            place[history],
            items,
            users,
            context,
            mined.corrected(self.negatives.log_n(column_rows, size)),
            examples.weight,
            self.negatives.log_pi(column_rows, size) if self.inclusion else None,
            self._hidden(examples, column_rows, mined),
            self.negatives.draws(size) + mined.rows.shape[1],
            mined,
            self._cached_draws(rng),
            examples.asker,
        )

    def known_cells(self, asker: NDArray[np.int64], own_row: NDArray[np.integer], column_rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(B, C) what the mask "known" hides, if it is asked for; a row's own item is the loss design's affair."""
        if "known" not in self.masks:
            return np.zeros((len(asker), len(column_rows)), bool)
        known: NDArray[np.bool_] = self._known.cells(asker, column_rows) & (own_row[:, None] != column_rows[None, :])
        return known

    def _cached_draws(self, rng: np.random.Generator | None) -> NDArray[np.int64] | None:
        if rng is None or not isinstance(self.negatives, MixedNegatives) or not self.negatives.cached:
            return None
        return self.negatives.sample_cached(rng)

    def _mined(self, queries: Queries, rng: np.random.Generator | None) -> Mined:
        if self.mine is None or rng is None:
            return NO_MINED
        return self.mine(queries, rng)

    def _hidden(self, examples: Examples, column_rows: NDArray[np.int64], mined: Mined) -> NDArray[np.bool_] | None:
        """(B, C) what the masks hide, and from each row the items mined for the others; None where nothing is hidden."""
        size, columns = len(examples), len(column_rows)
        if not self.masks and not mined.rows.size:
            return None
        hidden = np.zeros((size, columns), bool)
        if "same_query" in self.masks:
            hidden |= same_query_cells(examples.asker, examples.item_row, column_rows)
        hidden |= self.known_cells(examples.asker, examples.item_row, column_rows)
        if mined.rows.size:
            width = mined.rows.shape[1]
            owner = np.repeat(np.arange(size), width)
            hidden[:, columns - size * width :] |= np.arange(size)[:, None] != owner
        return hidden if hidden.any() else None

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """(steps + 1,) where each step's examples begin in the order of a pass: a long list for a long log, so it is kept."""
        return np.linspace(0, len(self.examples), self.steps_per_epoch + 1).astype(np.int64)

    @cached_property
    def _looked_at(self) -> Examples:
        """The examples without what no batch looks at: what is not read takes neither time nor, memory-mapped, memory."""
        examples, encoder, size = self.examples, self.dataset.query_encoder, len(self.examples)
        queries = examples.queries
        if not encoder.history_last and self.mine is None:
            nowhere = np.broadcast_to(np.array(0, queries.history_start.dtype), size)
            queries = replace(queries, history_start=nowhere, history_end=nowhere)
        return replace(examples, queries=queries, time=np.broadcast_to(np.int64(0), size))

    @cached_property
    def _known(self) -> KnownItems:
        return known_items(self.examples)

    def _hidden_shares(self, item_row: NDArray[np.int64], positives: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) how often each of the items shows no id of its own; `positives` are the places of some of them.

        A positive that the window chose once would, without this very choice, be an item that nobody chose. In a share of
        `model.singleton_id_dropout` it is learned as one: so the unknown id learns how likely such items are (Good, 1953: the unseen
        have the share of what was seen once).
        """
        is_positive = np.zeros(len(item_row), bool)
        is_positive[positives] = True
        is_once = is_positive & (self.dataset.item_counts[item_row] == 1)
        return np.where(is_once, max(self.id_dropout, self.singleton_id_dropout), self.id_dropout)

    def _shown_ids(self, item_row: NDArray[np.int64], share: NDArray[np.float64], rng: np.random.Generator) -> dict[str, Ids]:
        """The ids of the items at `item_row`, a `share` (n,) of them shown as unknown, so that content learns to stand alone."""
        name = self.dataset.item_encoder.id_feature()
        if name is None:
            return {}
        column = self.dataset.item_features[name]
        encoder = self.dataset.item_encoder.features[name].encoder
        assert isinstance(column, Ids) and isinstance(encoder, CategoryEncoder)
        unknown = encoder.vocabulary.unknown
        hidden = rng.integers(0, len(unknown), len(item_row)).astype(np.int32) + np.int32(unknown.start)
        return {name: Ids(np.where(rng.random(len(item_row)) < share, hidden, column.values[item_row]))}


@lru_cache(maxsize=1)
def _epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.signedinteger]:
    """(count,) the order of one pass; kept, because every step of the pass asks for it. 32-bit where it fits."""
    rows: NDArray[np.signedinteger] = np.arange(count, dtype=np.int32 if count < INT32_ROWS else np.int64)
    np.random.default_rng((seed, 1, epoch)).shuffle(rows)
    return rows


def _distinct_items(
    corpus_size: int, candidate_rows: NDArray[np.integer], other_rows: NDArray[np.integer]
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """(distinct catalogue rows, candidates first; how many are candidates; (M + 1,) place by row, -1 for row -1)."""
    is_candidate, is_other = np.zeros(corpus_size + 1, bool), np.zeros(corpus_size + 1, bool)
    is_candidate[candidate_rows] = True
    is_other[other_rows] = True  # row -1, "none", lands on the spare last entry
    is_other[-1] = False
    candidates = np.flatnonzero(is_candidate)
    item_row = np.concatenate([candidates, np.flatnonzero(is_other & ~is_candidate)])
    place = np.empty(corpus_size + 1, np.int64)
    place[item_row] = np.arange(len(item_row))
    place[-1] = -1
    return item_row, len(candidates), place
