"""The exact index: every row is compared with every query. The reference that approximate indexes are judged against.

A block of matrix products proposes candidates, `contract.score_pairs` decides. That is exact because a float32 product of
D terms, summed in any order, is off by at most about D * 2^-24 * |q| * |v|: a row further than that (counted twice) below
a score that k rows reach cannot belong to the top k. So the answer does not depend on BLAS, block or batch.

Most entries are never sorted: the maxima of groups of columns give a score that at least k rows reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from shortlist.errors import BundleError
from shortlist.index.contract import (
    Eligible,
    Float32s,
    Index,
    Keys,
    Rows,
    best_of_one,
    check_exclude,
    check_queries,
    check_query,
    check_vectors,
    dot_products,
    from_order_keys,
    known_rows,
    order_keys,
    padded,
    score_pairs,
    score_rows,
)
from shortlist.pace import step
from shortlist.sections import IndexSettings

FACTS_FILE = "exact.json"
FACTS_LARGEST_BYTES = 4096
QUERY_BLOCK = 256
BLOCK_ENTRIES = 1 << 22  # scores at a time: 16 MB
COLUMNS_AT_ONCE = BLOCK_ENTRIES // QUERY_BLOCK  # also for fewer queries: no faster in larger blocks, and a block is a step (pace.py)
GATHERED_SHARE = 1 / 8  # of the corpus: copying more than that costs one query more than it saves
GROUPS_PER_RESULT = 8  # with 8k groups, the k-th largest group maximum lets about 1.07k entries through
NOTHING = np.uint64(0xFF800000_FFFFFFFF)  # the order key of row -1 with score -inf
LOWEST = np.finfo(np.float32).min


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    size: int
    dim: int


class ExactIndex(Index):
    """Blocked inner products over the whole corpus; memory beyond the vectors is bounded by the block and the results."""

    kind = "exact"
    is_exact = True

    def __init__(self, vectors: Float32s) -> None:
        self.largest_norm = float(check_vectors(vectors).max())
        self.vectors = vectors.view()
        self.vectors.flags.writeable = False
        self.size, self.dim = vectors.shape

    @classmethod
    def build(cls, vectors: Float32s, settings: IndexSettings) -> Self:
        """An index over `vectors` (M, D) float32; nothing is copied."""
        return cls(vectors)

    @classmethod
    def open(cls, folder: Path, vectors: Float32s) -> Self:
        """The index that `save` wrote into `folder`. Raises BundleError where its facts and `vectors` do not fit."""
        path = folder / FACTS_FILE
        try:
            with path.open("rb") as file:
                facts = msgspec.json.decode(file.read(FACTS_LARGEST_BYTES), type=_Facts)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise BundleError(f"{path} must hold the facts of an exact index: {error}; publish again") from None
        index = cls(vectors)
        expected = _Facts(kind=cls.kind, size=index.size, dim=index.dim)
        if facts != expected:
            raise BundleError(f"{path} must describe its vectors, {expected}: got {facts}; publish again")
        return index

    def save(self, folder: Path) -> None:
        """Nothing comes back. Writes the facts that `open` compares with the vectors; the vectors are the caller's."""
        facts = _Facts(kind=self.kind, size=self.size, dim=self.dim)
        (folder / FACTS_FILE).write_bytes(msgspec.json.encode(facts))

    def prepare(self, mask: NDArray[np.bool_]) -> Eligible:
        """The rows of `mask`, with copies of their vectors where these are at most a GATHERED_SHARE of the corpus."""
        return Eligible(self, mask, gather=lambda rows: gather(self.vectors, rows) if len(rows) <= GATHERED_SHARE * self.size else None)

    def search(
        self,
        queries: Float32s,
        k: int,
        *,
        exclude: Sequence[NDArray[Any]] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (B, k), as the contract says."""
        allowed = self._prepared(eligible)
        if allowed is not None and (allowed.gathered is not None or not len(allowed)):
            return allowed.search(queries, k, exclude=exclude)
        return self.search_masked(queries, k, exclude=exclude, mask=None if allowed is None else allowed.mask)

    def search_masked(
        self, queries: Float32s, k: int, *, exclude: Sequence[NDArray[Any]] | None = None, mask: NDArray[np.bool_] | None = None
    ) -> tuple[Rows, Float32s]:
        """What `search` answers, found by comparing all rows and leaving out those where `mask` (M,) is false."""
        norms = check_queries(queries, self.dim, k)
        excluded = check_exclude(exclude, len(queries), self.size)
        ineligible = None if mask is None else ~mask
        slack: Float32s = largest_error(norms * self.largest_norm, self.dim).astype(np.float32)
        best = np.full((len(queries), min(k, self.size)), NOTHING, np.uint64)  # (B, min(k, M)) order keys
        rows_at_once = max(1, min(len(queries), QUERY_BLOCK))
        columns_at_once = min(BLOCK_ENTRIES // rows_at_once, COLUMNS_AT_ONCE)
        for start in range(0, self.size, columns_at_once):  # ascending: a later row loses a tie
            columns = slice(start, min(start + columns_at_once, self.size))
            for first in range(0, len(queries), rows_at_once):
                lines = slice(first, min(first + rows_at_once, len(queries)))
                self._search_block(queries, lines, columns, slack, excluded, ineligible, best)
                step()
        return padded(*from_order_keys(best), k)

    def search_one(
        self,
        query: Float32s,
        k: int,
        *,
        exclude: NDArray[Any] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (k,), as the contract says."""
        norm = check_query(query, self.dim, k)
        allowed = self._prepared(eligible)
        if allowed is not None and (allowed.gathered is not None or not len(allowed)):
            return allowed.search_one(query, k, exclude=exclude)
        out = None if exclude is None else known_rows(exclude, self.size)
        return self.scan_one(query, norm, k, out, None if allowed is None else allowed.penalty)

    def scan_one(self, query: Float32s, norm: float, k: int, out: Rows | None, penalty: Float32s | None) -> tuple[Rows, Float32s]:
        """(rows, scores), each (k,), of a checked query of norm `norm`, found by comparing all rows.

        out      known rows to leave out
        penalty  (M,), -inf for those that may not come back, else 0
        """
        largest = norm * self.largest_norm
        scores = dot_products(self.vectors, query)  # (M,)
        if penalty is not None:
            scores += penalty
        if out is not None:
            scores[out] = -np.inf
        least = reached_by(scores[None], min(k, self.size))[0] - 2 * np.float32(largest_error(largest, self.dim))
        rows = np.flatnonzero(scores >= max(least, LOWEST))
        return best_of_one(rows, score_rows(query, self.vectors, rows, largest), k)

    def _search_block(
        self,
        queries: Float32s,
        lines: slice,
        columns: slice,
        slack: Float32s,
        excluded: tuple[Rows, Rows],
        ineligible: NDArray[np.bool_] | None,
        best: Keys,
    ) -> None:
        """Nothing comes back: best[lines] takes in what the block of `lines` by `columns` holds."""
        scores = dot_products(queries[lines], self.vectors[columns].T)  # (b, C)
        if ineligible is not None:
            scores[:, ineligible[columns]] = -np.inf
        _blank(scores, lines, columns, excluded)
        k = best.shape[1]
        _, so_far = from_order_keys(best[lines, k - 1])
        least = np.maximum(reached_by(scores, k) - 2 * slack[lines], so_far - slack[lines])
        query, column = _at_least(scores, np.maximum(least, LOWEST))
        if not len(query):
            return
        row = column + columns.start
        keys = order_keys(row, score_pairs(queries[lines], self.vectors, query, row))
        found = _one_line_each(query, keys, len(scores))
        best[lines] = np.sort(np.concatenate([best[lines], found], axis=1), axis=1)[:, :k]


def gather(vectors: Float32s, rows: Rows) -> ExactIndex:
    """An exact index over copies of the vectors at `rows`."""
    return ExactIndex(np.ascontiguousarray(vectors[rows]))


def largest_error(norms: Any, dim: int) -> Any:
    """How far a float32 inner product of `dim` terms can be from the canonical score; `norms`, one or (B,), are |q| max|v|.

    Twice the textbook bound (dim + 1) u |q||v|, u = 2^-24 (Higham, Accuracy and Stability, 3.1), and room for underflow.
    """
    return 2 * (dim + 1) * 2.0**-24 * norms + dim * 1e-37


def _blank(scores: Float32s, lines: slice, columns: slice, excluded: tuple[Rows, Rows]) -> None:
    """Nothing comes back: the excluded entries of a block become -inf."""
    query, row = excluded  # sorted by query
    first, last = np.searchsorted(query, [lines.start, lines.stop])
    query, row = query[first:last] - lines.start, row[first:last] - columns.start
    inside = (row >= 0) & (row < scores.shape[1])
    scores[query[inside], row[inside]] = -np.inf


def groups_of(count: int, k: int) -> int:
    """How many groups of equal size, of which the k-th largest maximum is asked: some times k, but at most `count` of one entry each."""
    return count // max(1, count // (GROUPS_PER_RESULT * k))


def reached_by(scores: Float32s, k: int) -> Float32s:
    """A score (b,) that at least k entries of every line reach: the k-th largest maximum of groups; -inf where k > C."""
    count = scores.shape[1]
    if k > count:
        return np.full(len(scores), -np.inf, np.float32)
    groups = groups_of(count, k)
    length = count // groups
    if length > 1:
        scores = scores[:, : length * groups].reshape(len(scores), length, groups).max(axis=1)  # (b, groups)
    kth: Float32s = np.partition(scores, groups - k, axis=1)[:, groups - k]
    return kth


def _at_least(scores: Float32s, least: Float32s) -> tuple[Rows, Rows]:
    """(line, column) of all entries that reach their line's `least`, in reading order."""
    flat = np.flatnonzero((scores >= least[:, None]).ravel())
    line, column = np.divmod(flat, scores.shape[1])
    return line, column


def _one_line_each(query: Rows, keys: Keys, count: int) -> Keys:
    """The keys (count, W) laid out by query, which is sorted; filled up with NOTHING."""
    found = np.bincount(query, minlength=count)
    starts = np.cumsum(found) - found
    laid_out = np.full((count, int(found.max())), NOTHING, np.uint64)
    laid_out[query, np.arange(len(query)) - starts[query]] = keys
    return laid_out
