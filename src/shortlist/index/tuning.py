"""How hard an approximate index must look: the cheapest efforts that find `target_recall`, and the proof on other queries.

Tuned with the queries that will be asked. Item vectors would be the wrong questions: they lie where items lie, have no bias
dimension, and are found too easily. Half of the queries tune, the other half prove.

Costs are counted, not timed, so that the same corpus and queries give the same efforts on a busy machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from shortlist.errors import BundleError
from shortlist.index.contract import Float32s, Rows
from shortlist.index.engines import training_threads
from shortlist.index.proposing import Effort, ProposingIndex
from shortlist.sections import IndexSettings

FEWEST_QUERIES = 100  # of both halves: fewer prove nothing
DEPTHS = (1, 1.5, 2.5, 5, 14)  # times target_k: for exclusions, for filters down to 1 / 11 of the rows, and for a larger k
PARTITION_STEP = 1.12  # partitions tried: as many times more at each step
QUERIES_AT_ONCE = 128
RESCORED_PER_RESULT = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
ORDERED_PER_RESULT = (*RESCORED_PER_RESULT, 14.0, 20.0)  # where finer codes order them, and of these as many are compared:
COMPARED_PER_RESULT = 1.3
TOLERANCE = 0.005  # below the target, within which a proof passes
ATTEMPTS = 3  # proofs: after one that falls short, harder efforts are tried; with many more, luck would pass one
SURE = 2.0  # standard deviations by which the other half of the queries may come out lower, and still pass


class Proof(msgspec.Struct, frozen=True):
    """What was found out: mean recall@target_k over `queries` held-out queries that took no part in tuning."""

    recall: float
    queries: int
    tuned_on: int
    attempts: int = 1  # proofs until one passed: each failed one made the next efforts harder


def tuned(index: ProposingIndex, queries: Float32s, settings: IndexSettings) -> tuple[ProposingIndex, Proof]:
    """The index with efforts that find `target_recall` of the best `target_k`, and the proof.

    queries  (N, D) float32 as the query tower makes them
    Raises   BundleError where there are too few, or where the proof falls below target_recall - TOLERANCE
    """
    if len(queries) < FEWEST_QUERIES:
        raise BundleError(
            f"an index of kind {index.kind!r} must be proved on at least {FEWEST_QUERIES} held-out queries: got {len(queries)}; raise "
            'train.validation_fraction and train again, or publish with [index] kind = "exact"'
        )
    to_tune, to_prove = split(queries, settings)
    attempts = 1 if settings.searched is not None else ATTEMPTS
    target, recall = settings.target_recall, 0.0
    for attempt in range(1, attempts + 1):
        if settings.searched is None:
            index = index.with_efforts(_efforts(index, to_tune, msgspec.structs.replace(settings, target_recall=min(target, 1.0))))
        recall = mean_recall(index, to_prove, settings.target_k)
        if recall >= settings.target_recall - TOLERANCE:
            return index, Proof(recall, len(to_prove), len(to_tune), attempt)
        target += settings.target_recall - recall  # queries that find nothing may have fallen to one half: no deviation tells of them
    raise BundleError(
        f"recall@{settings.target_k} of the {index.kind} index must be at least {settings.target_recall} - {TOLERANCE} against exact "
        f"search: got {recall:.4f} on {len(to_prove)} held-out queries with {index.efforts[0]}; lower index.target_recall, raise "
        'searched and rescored, or set kind = "exact"'
    )


def split(queries: Float32s, settings: IndexSettings) -> tuple[Float32s, Float32s]:
    """(those to tune with, those to prove with): halves in random order."""
    shuffled = queries[np.random.default_rng((settings.seed, 7)).permutation(len(queries))]
    return shuffled[::2], shuffled[1::2]


def mean_recall(index: ProposingIndex, queries: Float32s, k: int) -> float:
    """The mean share (of min(k, M)) of each query's true best rows that the index finds."""
    k = min(k, index.size)
    true, _ = index.exact.search(queries, k)
    found, _ = index.search(queries, k)
    return float(np.mean([len(np.intersect1d(one, other, assume_unique=True)) / k for one, other in zip(true, found, strict=True)]))


def _efforts(index: ProposingIndex, queries: Float32s, settings: IndexSettings) -> list[Effort]:
    """The cheapest effort for every depth; deeper ones never look less hard."""
    depths = sorted({min(math.ceil(settings.target_k * times), index.size) for times in DEPTHS})
    true, _ = index.exact.search(queries, depths[-1])
    efforts: list[Effort] = []
    for depth in depths:
        at_least = efforts[-1].searched if efforts else 1
        efforts.append(_cheapest(index, queries, true[:, :depth], settings, at_least))
    return efforts


def _cheapest(index: ProposingIndex, queries: Float32s, true: Rows, settings: IndexSettings, at_least: int) -> Effort:
    """The cheapest effort that surely finds the target of the true rows (N, depth); where none does, the hardest one.

    Where the library has finer codes, they rule out most rows in it, unless the target cannot be had so at all.
    """
    depth, size = true.shape[1], index.size
    few, found = min(size, math.ceil(depth * COMPARED_PER_RESULT)), None
    if index.has_finer_codes:
        choices = [Effort(depth, 1, count, few if few < count else None) for count in _counts(depth, ORDERED_PER_RESULT, size)]
        found = _cheapest_of(choices, index, queries, true, settings, at_least)
    choices = [Effort(depth, 1, count) for count in _counts(depth, RESCORED_PER_RESULT, size)]
    if found is None:
        found = _cheapest_of(choices, index, queries, true, settings, at_least)
    return found or msgspec.structs.replace(choices[-1], searched=index.leaves)


def _counts(depth: int, per_result: tuple[float, ...], size: int) -> list[int]:
    """Numbers of rows, rising, as many times `depth` and at most `size`."""
    return sorted({min(size, math.ceil(depth * times)) for times in per_result})


def _cheapest_of(
    choices: list[Effort], index: ProposingIndex, queries: Float32s, true: Rows, settings: IndexSettings, at_least: int
) -> Effort | None:
    """The cheapest of `choices`, each harder than the one before, with the number of partitions that it reaches the target by."""
    best, best_cost = None, math.inf
    for searched in _partitions(at_least, index.leaves):
        efforts = [msgspec.structs.replace(choice, searched=searched) for choice in choices]
        efforts = [effort for effort in efforts if index.search_ns(effort) < best_cost]
        if not efforts:
            break  # more partitions cost more than the best so far, whatever is re-scored
        if not _reaches(index, queries, true, efforts[-1], settings):
            continue
        enough = bisect_left(efforts[:-1], True, key=lambda effort: _reaches(index, queries, true, effort, settings))
        best, best_cost = efforts[enough], index.search_ns(efforts[enough])
    return best


def _reaches(index: ProposingIndex, queries: Float32s, true: Rows, effort: Effort, settings: IndexSettings) -> bool:
    """Is the target surely reached on queries like these?"""
    recall, target = _recalls(index, queries, true, effort, threads=training_threads(settings)), settings.target_recall
    return float(recall.mean()) >= max(target, target - TOLERANCE + SURE * _deviation(recall))


def _recalls(index: ProposingIndex, queries: Float32s, true: Rows, effort: Effort, *, threads: int) -> NDArray[np.float64]:
    """(N,) the share of each query's true rows (N, depth) among those that the library hands over."""
    recalls = np.empty(len(queries))
    is_true = np.zeros(index.size, bool)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        block = np.ascontiguousarray(queries[start : start + QUERIES_AT_ONCE])
        for number, proposed in enumerate(index.propose_all(block, effort, threads=threads), start):
            is_true[true[number]] = True
            recalls[number] = np.count_nonzero(is_true[proposed]) / true.shape[1]
            is_true[true[number]] = False
    return recalls


def _deviation(recall: NDArray[np.float64]) -> float:
    """The standard deviation of the difference between the means of two halves, each as long and as scattered as `recall` (N,)."""
    return float(recall.std()) * math.sqrt(2 / len(recall))


def _partitions(first: int, last: int) -> Iterator[int]:
    """Rising numbers from `first` to `last`, each about PARTITION_STEP times the one before."""
    number = first
    while number < last:
        yield number
        number = max(number + 1, math.floor(number * PARTITION_STEP))
    yield last
