"""Which items a row of the softmax is compared with, and how often each was to be expected there.

Mixed negative sampling (Yang et al., WWW'20, section 3.3): the other B-1 positives of the batch (drawn by unigram share)
and B' items drawn uniformly from the index data. Only the sampler knows the design, so it also tells log_n, and log_n of an
item is the same whatever stream brought it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shortlist.frequency import ItemFrequency
from shortlist.sections import NegativeSettings

Rows = NDArray[np.integer]
_ROUNDING = 1e-12  # shares add up to 1 but for this
_SIZES_KEPT = 4  # of batches, whose counts are kept


class Negatives(Protocol):
    """A design of draws. `in_batch`: are the other queries' positives negatives?"""

    @property
    def in_batch(self) -> bool: ...

    @property
    def frequency(self) -> ItemFrequency: ...

    @property
    def bring_unchosen(self) -> bool:
        """Can an item that nobody chose be a negative? If not, nothing is learned of how likely such items are."""

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(E,) item rows of the columns behind the positives."""

    def log_n(self, item_row: Rows, batch_size: int, positives: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """(C,) natural log of each column's expected count; `positives` replaces the part of the in-batch stream."""

    def log_pi(self, item_row: Rows, batch_size: int) -> NDArray[np.float32]:
        """(C,) natural log of the probability that the item is drawn at all."""

    def log_weight(self) -> NDArray[np.float32]:
        """(M,) natural log of what each item counts in the softmax's sum."""

    def draws(self, batch_size: int) -> int:
        """N, the number of negatives that a row was meant to have."""

    def expected_accidental_hits(self, batch_size: int) -> float:
        """Mean number of columns a row that hold its own positive once more."""


@dataclass(frozen=True)
class MixedNegatives:
    """In-batch negatives and `index_batch_size` uniform draws from the index data (B' = 0: in-batch alone).

    The index data are the whole corpus of M items, or the M' rows of `snapshot`. Without replacement, index data smaller than
    B' are drawn whole: then B' is their number, in the counts as well. Further streams that the trainer keeps add to the
    counts: `queued` past positives (unigram) and `cached` uniform draws.
    """

    frequency: ItemFrequency
    index_batch_size: int
    replacement: bool = False
    unchosen_weight: float = 1.0  # in (0, 1]: what an item that nobody chose counts in the softmax, see `log_n`
    snapshot: NDArray[np.int64] | None = None  # (M',) the rows to draw from; None = all
    queued: int = 0
    cached: int = 0
    unigram_only: bool = False  # for B' = 0 only: the settings refuse it elsewhere
    in_batch = True

    @property
    def corpus_size(self) -> int:
        """M."""
        return len(self.frequency)

    @property
    def index_size(self) -> int:
        """M', the number of items that uniform draws come from."""
        return self.corpus_size if self.snapshot is None else len(self.snapshot)

    @property
    def bring_unchosen(self) -> bool:
        """Are there uniform draws, and are they from the whole corpus?"""
        return self.drawn + self.cached > 0 and self.snapshot is None

    @property
    def drawn(self) -> int:
        """B', the number of index items in every batch."""
        return self.index_batch_size if self.replacement else min(self.index_batch_size, self.index_size)

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(B',) item rows of the index batch."""
        return self._uniform(rng, self.drawn, self.replacement)

    def sample_cached(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(cached,) item rows, with replacement, whose remembered vectors are further columns."""
        return self._uniform(rng, self.cached, True)

    def log_n(self, item_row: Rows, batch_size: int, positives: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """(C,) natural log of the expected count of each column's item among one row's negatives.

            n_j = (B - 1 + queued) q_j + (B' + cached) [j in the index data] / M'

        It may exceed 0. An item that nobody chose has the uniform part alone.
        With `unchosen_weight` w < 1 an item that nobody chose weighs w in the softmax's sum: its n is divided by w, so its
        logit settles log(1/w) higher. Nobody choosing it may mean that nobody could.

        positives   (C,) expected count of each item among the B-1 other positives and the queued, where a stream tells it
                    (streaming.py); None = by the shares q
        Raises      ValueError if an item can never be a negative (no draws and q_j = 0): it cannot be corrected
        Source      SCIENCE of the project, section 1; Yang et al. name the mixture Q* and leave it open
        """
        logs = self._log_n_of_all(batch_size)[item_row] if positives is None else self._log_n(item_row, positives)
        if batch_size > 1 and len(logs) and not logs.min() > -np.inf:
            row = int(np.asarray(item_row)[np.argmin(logs)])
            raise ValueError(f"every candidate must have a positive expected count: item row {row} has 0 with B' = {self.drawn}")
        return logs

    def _log_n_of_all(self, batch_size: int) -> NDArray[np.float32]:
        """(M,) kept, because each step asks for some: the batches of a pass have two sizes at most."""
        logs = self._kept.get(batch_size)
        if logs is None:
            if len(self._kept) >= _SIZES_KEPT:
                self._kept.clear()
            rows = np.arange(self.corpus_size)
            logs = self._kept[batch_size] = self._log_n(rows, self.frequency.expected_positives(rows, batch_size - 1 + self.queued))
        return logs

    def _log_n(self, item_row: Rows, positives: NDArray[np.float64]) -> NDArray[np.float32]:
        expected = positives
        if not self.unigram_only:
            expected = expected + (self.drawn + self.cached) * self._indexed[item_row] / self.index_size
        if self.unchosen_weight != 1.0:
            expected = np.where(self.frequency.chosen(item_row), expected, expected / self.unchosen_weight)
        with np.errstate(divide="ignore"):
            return np.log(expected).astype(np.float32)

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def log_pi(self, item_row: Rows, batch_size: int) -> NDArray[np.float32]:
        """(C,) log of pi_j = 1 - (1 - q_j)^(B-1) * (the probability that no index draw is j).

        With `unchosen_weight` w < 1 it is divided by w where nobody chose the item, as n is in `log_n`.
        """
        q = self.frequency.q[item_row]
        indexed = self._indexed[item_row].astype(np.float64)
        with np.errstate(divide="ignore"):
            log_missed = (batch_size - 1) * np.log1p(-q) if batch_size > 1 else np.zeros(len(q))
            if self.replacement:
                log_missed = log_missed + indexed * self.drawn * np.log1p(-1.0 / self.index_size)
            else:
                log_missed = log_missed + np.log1p(-indexed * self.drawn / self.index_size)
            log_pi = np.log(-np.expm1(log_missed))
        return _float32(np.where(self.frequency.chosen(item_row), log_pi, log_pi - np.log(self.unchosen_weight)))

    def log_weight(self) -> NDArray[np.float32]:
        """(M,) natural log of what each item counts in the softmax's sum: 0, or log(unchosen_weight) where nobody chose it."""
        chosen = self.frequency.chosen(np.arange(self.corpus_size))
        weight: NDArray[np.float64] = np.where(chosen, 1.0, self.unchosen_weight)
        logs: NDArray[np.float32] = np.log(weight).astype(np.float32)
        return logs

    def draws(self, batch_size: int) -> int:
        """N = B - 1 + B' and the further streams."""
        return batch_size - 1 + self.queued + self.drawn + self.cached

    def expected_accidental_hits(self, batch_size: int) -> float:
        """(B-1+queued) sum_j q_j^2 + (B'+cached) sum_j q_j [j in the index data] / M'."""
        meet, indexed = self._chances
        return (batch_size - 1 + self.queued) * meet + (self.drawn + self.cached) * indexed / self.index_size

    @cached_property
    def _chances(self) -> tuple[float, float]:
        """(sum_j q_j^2, sum_j q_j [j in the index data]): a choice that is another one's item, one that uniform draws may bring."""
        q = self.frequency.q
        return float(np.sum(q**2)), float(np.sum(q * self._indexed))

    @cached_property
    def _indexed(self) -> NDArray[np.bool_]:
        """(M,) which items uniform draws may bring."""
        if self.snapshot is None:
            return np.ones(self.corpus_size, bool)
        indexed = np.zeros(self.corpus_size, bool)
        indexed[self.snapshot] = True
        return indexed

    def _uniform(self, rng: np.random.Generator, count: int, replacement: bool) -> NDArray[np.int64]:
        if replacement:
            places = rng.integers(0, self.index_size, count)
        else:
            places = rng.choice(self.index_size, count, replace=False, shuffle=False)
        return places if self.snapshot is None else self.snapshot[places]


@dataclass(frozen=True)
class SampledNegatives:
    """Distinct items from a proposal p, shared by all rows of the batch; other positives are no negatives (sampled softmax).

    `tries` draws with replacement, repetitions dropped; so item j is there with pi_j = 1 - (1 - p_j)^tries, exactly.
    The paper's production baseline draws this way and names no proposal.
    """

    frequency: ItemFrequency
    proposal: NDArray[np.float64]  # (M,) adds up to 1
    tries: int
    in_batch = False
    bring_unchosen = False

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The distinct item rows of one draw, rising; their number varies."""
        places = np.searchsorted(self._cumulative, rng.random(self.tries), side="right")
        last = np.flatnonzero(self.proposal)[-1]  # rounding may leave the shares' sum a little below 1
        return np.unique(np.minimum(places, last)).astype(np.int64)

    def log_n(self, item_row: Rows, batch_size: int, positives: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """(C,) log of the expected count after repetitions are dropped, which is pi."""
        return self.log_pi(item_row, batch_size)

    def log_pi(self, item_row: Rows, batch_size: int) -> NDArray[np.float32]:
        """(C,) log(1 - (1 - p_j)^tries)."""
        with np.errstate(divide="ignore"):
            return _float32(np.log(_inclusion(self.proposal[item_row], self.tries)))

    def log_weight(self) -> NDArray[np.float32]:
        """(M,) zeros: every item counts once."""
        return np.zeros(len(self.proposal), np.float32)

    def draws(self, batch_size: int) -> int:
        """The expected number of distinct items."""
        return round(expected_distinct(self.proposal, self.tries))

    def expected_accidental_hits(self, batch_size: int) -> float:
        """sum_j q_j pi_j."""
        return float(np.sum(self.frequency.q * _inclusion(self.proposal, self.tries)))

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        return np.cumsum(self.proposal)


@dataclass(frozen=True)
class WholeCorpus:
    """Every item of the corpus once: the full softmax. For corpora where its logits fit (below about 50,000 items)."""

    frequency: ItemFrequency
    in_batch = False
    bring_unchosen = True

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(M,) all rows."""
        return np.arange(len(self.frequency))

    def log_n(self, item_row: Rows, batch_size: int, positives: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """(C,) zeros: every item is there exactly once."""
        return np.zeros(len(item_row), np.float32)

    def log_pi(self, item_row: Rows, batch_size: int) -> NDArray[np.float32]:
        """(C,) zeros: every item is there for certain."""
        return np.zeros(len(item_row), np.float32)

    def log_weight(self) -> NDArray[np.float32]:
        """(M,) zeros: every item counts once."""
        return np.zeros(len(self.frequency), np.float32)

    def draws(self, batch_size: int) -> int:
        """M - 1 others."""
        return len(self.frequency) - 1

    def expected_accidental_hits(self, batch_size: int) -> float:
        """1: the positive stands among all."""
        return 1.0


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def make_negatives(frequency: ItemFrequency, settings: NegativeSettings, *, unigram_only: bool = False) -> Negatives:
    """The design that the settings name."""
    match settings.kind:
        case "full":
            return WholeCorpus(frequency)
        case "sampled":
            proposal = proposal_shares(frequency, settings.proposal)
            return SampledNegatives(frequency, proposal, tries_for(proposal, settings.index_batch_size))
        case "mixed":
            snapshot = np.flatnonzero(frequency.q > 0) if settings.index_from == "chosen" else None
            return MixedNegatives(
                frequency,
                settings.index_batch_size,
                settings.replacement,
                settings.unchosen_weight,
                snapshot,
                queued=0,  # the queue is empty at first; the trainer tells how full it is
                cached=settings.cached,
                unigram_only=unigram_only,
            )


def proposal_shares(frequency: ItemFrequency, name: str) -> NDArray[np.float64]:
    """(M,) the proposal p over the items that were chosen; an item outside that vocabulary is never drawn.

    uniform       1 / (number of chosen items)
    unigram       q
    log_uniform   log((k+2)/(k+1)) / log(K+1) over falling frequency rank k = 0..K-1, ties by row
    """
    q = frequency.q
    chosen = np.flatnonzero(q > 0)
    shares = np.zeros(len(q))
    if name == "unigram":
        return q.copy()
    if name == "uniform":
        shares[chosen] = 1.0 / len(chosen)
        return shares
    rank = np.arange(len(chosen))
    ordered = chosen[np.argsort(-q[chosen], kind="stable")]
    shares[ordered] = np.log((rank + 2) / (rank + 1)) / np.log(len(chosen) + 1)
    return shares


def expected_distinct(proposal: NDArray[np.float64], tries: int) -> float:
    """How many distinct items `tries` draws with replacement bring on average: sum_j 1 - (1 - p_j)^tries."""
    return float(np.sum(_inclusion(proposal, tries)))


def _inclusion(proposal: NDArray[np.float64], tries: int) -> NDArray[np.float64]:
    """pi = 1 - (1 - p)^tries, in the shape of p; 1 where p is 1."""
    with np.errstate(divide="ignore"):
        pi: NDArray[np.float64] = -np.expm1(tries * np.log1p(-proposal))
    return pi


def tries_for(proposal: NDArray[np.float64], distinct: int) -> int:
    """The fewest draws, 1 or more, that bring `distinct` items on average, or half the vocabulary where that is less: to meet
    nearly all of it would take draws without end."""
    wanted = min(distinct, np.count_nonzero(proposal) / 2) * (1 - _ROUNDING)
    low, high = 0, 1
    while expected_distinct(proposal, high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if expected_distinct(proposal, middle) < wanted else (low, middle)
    return high
