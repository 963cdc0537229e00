"""How good is a retriever? Every query against the whole corpus: which queries count, and where each positive is ranked.

A retriever is anything that answers queries with rows and scores; the learned one and the baselines go the same way.
evaluation_table.py makes of it what is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.catalogue import Catalogue
from shortlist.dataset import Dataset, Examples
from shortlist.errors import DataError
from shortlist.metrics.lists import coverage, gini, intra_list_similarity, novelty
from shortlist.metrics.ranking import pessimistic_rank
from shortlist.protocols.split import Split
from shortlist.queries import Queries
from shortlist.sections import Config, EvaluateSettings
from shortlist.slices import DECILES, item_age, popularity_band, slices_of, slices_of_age, slices_of_unseen
from shortlist.snapshot import over_snapshot
from shortlist.unlisted import is_repeat, is_tested, treatment_of_repeats, unlisted

_BLOCK = 2048  # queries at a time


class Retriever(Protocol):
    """Answers queries out of the whole corpus."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k), best first, padded with -1 and -inf; `exclude` names rows to leave out per query."""


@dataclass(frozen=True)
class Ranked:
    """What one model did on one split: where it ranked each positive, and what its lists show."""

    model: str
    rank: NDArray[np.int64]  # (N,) from 1, ties against the model; NOT_FOUND beyond the largest k
    of_lists: dict[str, float] = field(default_factory=dict)  # coverage, gini, ... by "metric@k"
    seed: int | None = None  # of its training; None = there is nothing random in it
    tuned: dict[str, Any] = field(default_factory=dict)  # what was chosen within the training window, by setting


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The queries of one split: who asked for what, and which slice each belongs to. One row a query, in the same order for all models."""

    split: str
    items: Catalogue  # the corpus that is ranked
    asker: NDArray[np.int64]  # (N,)
    item_row: NDArray[np.int32]  # (N,) the item chosen
    decile: NDArray[np.int64]  # (N,) its popularity decile in training, 1 = the most chosen, 0 = never chosen
    item_age_us: NDArray[np.int64] | None = None  # (N,) since it was first chosen (slices.item_age); None where the log has no times
    slices: dict[str, NDArray[np.bool_]]  # each (N,)
    train_rows: int
    repeats_left_out: int = 0  # choices of what the query already knew
    unrewarded_left_out: int = 0  # choices with a reward of 0

    def __len__(self) -> int:
        return len(self.asker)


def asked_queries(dataset: Dataset, split: Split, config: Config) -> tuple[Dataset, Examples, Tested]:
    """(the dataset of the corpus that is ranked, the queries of `split` that count, what is known of them).

    The dataset that comes back is `dataset`, but where the split brings a newer corpus (protocol "release"): models and
    baselines then rank that one, and rows are its rows. Raises DataError where no query is left.
    """
    ranked = dataset if split.items is None else over_snapshot(dataset, split.items)
    examples, tested = queries_to_test(ranked, ranked.encode_split(split, config), config.evaluate, split.name)
    slices = dict(tested.slices)
    age = item_age(split.log if split.whole_log is None else split.whole_log, ranked.items, examples)
    if age is not None:
        slices |= slices_of_age(age)
    if split.items is not None:
        slices |= slices_of_unseen(ranked, examples, dataset.items)
    return ranked, examples, replace(tested, slices=slices, item_age_us=age, train_rows=len(dataset.train))


def queries_to_test(dataset: Dataset, examples: Examples, settings: EvaluateSettings, split: str) -> tuple[Examples, Tested]:
    """The examples that count under `settings.repeats`, and what is known of them. Raises DataError where none is left.

    A choice with a reward of 0 is no right answer and is not tested. A repeat is the choice of an item that the query already
    knew. The choice of an item that lists cannot hold (`unlisted`) is never tested: it could not be hit.
    """
    rewarded = examples.weight > 0
    unrewarded = int((~rewarded).sum())
    examples = examples.take(np.flatnonzero(rewarded))
    tested_rows = np.flatnonzero(is_tested(examples, settings))
    dropped = len(examples) - len(tested_rows)
    examples = examples.take(tested_rows)
    if not len(examples):
        raise DataError(
            f"split {split} needs a query to test: got none, {dropped} left out as known to the query, {unrewarded} for a reward of 0; "
            f'check [evaluate] seen_items (now "{settings.seen_items}") and repeats'
        )
    slices = slices_of(dataset, examples)
    if treatment_of_repeats(settings) == "apart":
        repeat = is_repeat(examples)
        slices |= {"repeats": repeat, "new choices": ~repeat}
    tested = Tested(
        split=split,
        items=dataset.items,
        asker=examples.asker,
        item_row=examples.item_row,
        decile=popularity_band(dataset.item_counts, DECILES)[examples.item_row],
        slices=slices,
        train_rows=len(dataset.train),
        repeats_left_out=dropped,
        unrewarded_left_out=unrewarded,
    )
    return examples, tested


def rank_positives(
    retriever: Retriever,
    examples: Examples,
    corpus_size: int,
    settings: EvaluateSettings,
    *,
    item_counts: NDArray[np.int64] | None = None,
    vectors: NDArray[np.floating] | sparse.csr_matrix | None = None,
) -> Ranked:
    """Retrieves for every example and finds its positive. One result more than the largest k settles ties at the edge.

    item_counts  (M,) choices in training, for the novelty of lists; None leaves it out
    vectors      (M, D) by which items of one list are compared, for their similarity; None leaves it out. Of an item whose vector is 0
                 nothing can be said: it is not counted
    """
    longest = min(max(settings.ks) + 1, corpus_size)
    ranks, lists = [], []
    for start in range(0, len(examples), _BLOCK):
        block = examples.take(np.arange(start, min(start + _BLOCK, len(examples))))
        exclude = unlisted(block.queries, settings)
        rows, scores = retriever.retrieve(block.queries, longest, exclude)
        ranks.append(pessimistic_rank(rows, scores, block.item_row.astype(np.int64), corpus_size))
        lists.append(rows)
    shown = np.concatenate(lists)
    of_lists: dict[str, float] = {}
    for k in settings.ks:
        of_lists |= {f"{name}@{k}": value for name, value in _of_lists(shown, min(k, longest), corpus_size, item_counts, vectors).items()}
    return Ranked(retriever.name, np.concatenate(ranks), of_lists)


def _of_lists(
    shown: NDArray[np.int64],
    k: int,
    corpus_size: int,
    item_counts: NDArray[np.int64] | None,
    vectors: NDArray[np.floating] | sparse.csr_matrix | None,
) -> dict[str, float]:
    """What the first k of all lists show, by metric."""
    found = {"coverage": coverage(shown, k, corpus_size), "gini": gini(shown, k, corpus_size)}
    if item_counts is not None:  # one is added to every count: an item without a choice has no finite surprise
        share = (item_counts + 1) / (item_counts.sum() + len(item_counts))
        found["novelty"] = float(novelty(shown[shown[:, 0] >= 0], k, share).mean())
    if vectors is not None:
        said = np.asarray(abs(vectors).sum(axis=1)).ravel() > 0  # (M,)
        known = np.where(said[shown] & (shown >= 0), shown, -1)
        pairs = known[(known[:, :k] >= 0).sum(axis=1) >= 2]
        if len(pairs):
            found["intra_list_similarity"] = float(intra_list_similarity(pairs, k, vectors).mean())
    return found
