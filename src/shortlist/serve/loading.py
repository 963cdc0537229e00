"""A version on its way to being live: verified, its pages touched, warmed with recent queries, its index judged. Any fault refuses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortlist.errors import BadRequestError, BundleError
from shortlist.index.exact import ExactIndex
from shortlist.index.proposing import ProposingIndex
from shortlist.pace import step
from shortlist.sections import IndexSettings
from shortlist.serve.answering import Answering, Pinned, encoded
from shortlist.serve.heap import trim
from shortlist.serve.messages import RecommendRequest
from shortlist.serve.overlay import Floats
from shortlist.serve.settings import ServeSettings
from shortlist.serve.version import LiveVersion, open_version

_PAGE_BYTES = 4096
_REFERENCE_ITEMS = 16  # encoded again
_REFERENCE_TOLERANCE = 1e-3  # of the longest vector
_QUERIES_AT_ONCE = 16
_WARMING = 32  # queries that warm an exact index
_TOLERANCE = 0.02  # below the recall that was proved when publishing: recent queries are others, and few


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version that may go live."""

    version: LiveVersion
    recall: float  # of its index against exact search, over recent queries


def load_version(folder: Path, settings: ServeSettings, recent: Sequence[RecommendRequest]) -> Loaded:
    """The version in `folder`, ready. Raises BundleError for a file that is not as published, and for a version that answers wrong.

    recent   requests of late, which warm it and judge its index
    """
    try:
        version = open_version(folder, predicate_cache_bytes=settings.predicate_cache_bytes)
        _touch(version)
        step()
        _check_towers(version)
        step()
        queries = judging_queries(version, settings, recent)
        recall = recall_of(version, queries, settings.canary_k)
    except BundleError:
        raise
    except Exception as error:  # files that fit their hashes, and not each other
        raise BundleError(f"{folder} must answer: {type(error).__name__}: {error}; publish it again") from error
    target = least_recall(version, settings)
    if recall < target:
        raise BundleError(
            f"{folder} must answer with a recall@{settings.canary_k} of at least {target:g} against exact search: "
            f"got {recall:.4f} over {len(queries)} queries; publish it again with another index"
        )
    trim()
    return Loaded(version, recall)


def least_recall(version: LiveVersion, settings: ServeSettings) -> float:
    """The recall below which the version's index is no good."""
    return version.bundle.config.index.target_recall - _TOLERANCE if settings.canary_recall is None else settings.canary_recall


def recall_of(version: LiveVersion, queries: Floats, k: int) -> float:
    """The share of the exact top k that the version's index finds, over all `queries` (n, S)."""
    index, k = version.bundle.index, min(k, len(version.vectors))
    if not len(queries):
        return 1.0
    found = []
    for query in queries:
        found.append(index.search_one(query, k)[0])
        step()
    if index.is_exact:
        return 1.0
    exact = index.exact if isinstance(index, ProposingIndex) else ExactIndex.build(version.vectors, IndexSettings())
    hits = 0
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        true, _ = exact.search(queries[start : start + _QUERIES_AT_ONCE], k)
        step()
        hits += sum(len(np.intersect1d(line, found[start + place])) for place, line in enumerate(true))
    return hits / (k * len(queries))


def _touch(version: LiveVersion) -> None:
    """Nothing comes back: every page of the vectors is in memory, so that no request waits for the disk."""
    for array in (version.vectors, version.embeddings):
        array.reshape(-1).view(np.uint8)[::_PAGE_BYTES].max(initial=0)


def _check_towers(version: LiveVersion) -> None:
    """Raises BundleError unless the item tower makes the published vectors again, and a query that says nothing has one."""
    frame = version.bundle.items.frame[:_REFERENCE_ITEMS]
    for made, published, name in zip(
        version.bundle.encode_items(frame), (version.embeddings, version.vectors), ("embeddings", "vectors"), strict=True
    ):
        expected = published[: frame.height]
        if made.shape != expected.shape or not np.abs(made - expected).max() <= _REFERENCE_TOLERANCE * max(1.0, np.abs(expected).max()):
            raise BundleError(f"{name}.npy of version {version.name} must come from its own item tower: it does not; publish it again")
    silent = version.path.vector(None, version.embeddings[:0], -1, version.path.read_context({}))
    if silent.shape != (1, version.vectors.shape[1]) or not np.isfinite(silent).all():
        raise BundleError(
            f"query_tower.onnx of version {version.name} must answer a query that says nothing: it does not; publish it again"
        )


def judging_queries(version: LiveVersion, settings: ServeSettings, recent: Sequence[RecommendRequest]) -> Floats:
    """(n, S) vectors of the recent requests, filled up with held-out queries of the version where they are few.

    An exact index is warmed with some, and needs no judge.
    """
    warming, judging = (_WARMING, _WARMING) if version.bundle.index.is_exact else (settings.warm_queries, settings.canary_queries)
    answering, pinned = Answering(settings, None), Pinned.of(version, version.empty_overlay())
    vectors = []
    for request in recent[-warming:]:
        try:
            vectors.append(encoded(pinned, answering.understood(pinned, request, [])).values)
        except BadRequestError:  # one that this version cannot mean: its callers will be told so
            continue
        step()
    published = version.bundle.queries
    if published is not None:
        vectors.append(published[: max(0, judging - len(vectors))])
    return np.concatenate([version.vectors[:0], *vectors])
