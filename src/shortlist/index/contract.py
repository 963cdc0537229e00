"""What every index promises, and the parts they share: checks, canonical scores, the order of results.

Not a search itself. `exact` and the approximate indexes implement `Index`; evaluation, bundle and recommender call it.

The score of a (query, row) pair has one definition, `rescore`: products exact in float64, summed by halving with
elementwise additions, rounded once to float32. It has the same bits in any batch, with any BLAS, on any machine; matrix
products do not (their low bits move with the shape of the batch), so they only propose candidates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import ShapeError
from shortlist.pace import step
from shortlist.sections import IndexSettings

Float32s = NDArray[np.float32]
Rows = NDArray[np.int64]
Keys = NDArray[np.uint64]

LARGEST_NORM = 1e18  # two such rows have an inner product that float32 still holds
LARGEST_SIZE = 2**31 - 1  # rows must fit the low half of an order key
CHUNK_ENTRIES = 1 << 18  # float64 products at a time: stays in the second-level cache


class Index(ABC):
    """Maximum inner product search over the M vectors of a corpus; row i answers for vectors[i].

    kind      the name in `[index] kind`
    is_exact  whether `search` always returns the true top k
    size      M, the number of rows
    dim       D, the dimension of vectors and queries

    A search never changes the object, and a query's answer has the same bits alone, in any batch, and from `search_one`.
    """

    kind: str
    is_compiled: bool = False  # is a part of the search compiled where it runs?
    is_exact: bool
    size: int
    dim: int

    @classmethod
    @abstractmethod
    def build(cls, vectors: Float32s, settings: IndexSettings) -> Self:
        """An index over `vectors` (M, D) float32, which must not change while the index lives; may be memory-mapped.

        Raises ShapeError and ValueError as `check_vectors` does.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, vectors: Float32s) -> Self:
        """The index that `save` wrote into `folder`, over the same `vectors`. Raises BundleError where they do not fit."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Nothing comes back. Writes what `open` needs into the existing `folder`, the vectors left out."""

    @abstractmethod
    def search(
        self,
        queries: Float32s,
        k: int,
        *,
        exclude: Sequence[NDArray[Any]] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (B, k): the best rows of every query by inner product, best first, ties by lower row.

        queries   (B, D) float32, finite; B may be 0
        k         at least 1; k rows come back while there are k eligible ones that are not excluded, by every kind of index;
                  what is missing is row -1 with score -inf
        exclude   one integer array a query: rows to leave out; unknown rows and repetitions are ignored
        eligible  the only rows that may come back, for all queries: a mask (M,) bool, or better what `prepare` made of it
        Raises    ShapeError, ValueError as `check_queries`, `check_exclude` and `prepare` do
        """

    @abstractmethod
    def prepare(self, mask: NDArray[np.bool_]) -> Eligible:
        """The rows where `mask` (M,) bool is true, ready for any number of searches of this index.

        Reading the mask and copying the vectors of few rows costs more than a search: keep what comes back for as long as the
        filter holds. Raises ShapeError for another shape or type.
        """

    def search_one(
        self,
        query: Float32s,
        k: int,
        *,
        exclude: NDArray[Any] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (k,): what `search` answers to this query (D,) alone, with less ado."""
        check_query(query, self.dim, k)
        rows, scores = self.search(query[None], k, exclude=None if exclude is None else [exclude], eligible=eligible)
        return rows[0], scores[0]

    def _prepared(self, eligible: Eligible | NDArray[np.bool_] | None) -> Eligible | None:
        """The eligible rows, prepared where they are not. Raises ValueError for those of another index: rows would be mixed up."""
        if eligible is None:
            return None
        if not isinstance(eligible, Eligible):
            return self.prepare(eligible)
        if eligible.index is not self:
            raise ValueError(
                f"eligible rows must be prepared by the index that is searched: got those of another {eligible.index.kind} index of "
                f"{eligible.index.size} rows; prepare the mask again after a version is swapped"
            )
        return eligible


class Eligible:
    """Rows that may come back from the searches of one index. Made by `Index.prepare`; never changes.

    index     the index whose rows they are
    mask      (M,) bool, read-only
    rows      (E,) int64, ascending
    gathered  an index over copies of the vectors of just these rows, where they are few enough to be compared one by one;
              its row i is rows[i], so ties fall as they must
    penalty   (M,) float32, 0 where the mask is true and -inf elsewhere, where nothing is gathered: adding it to all scores takes a
              twentieth of the time that assigning by the mask takes
    """

    __slots__ = ("gathered", "index", "mask", "penalty", "rows")

    def __init__(self, index: Index, mask: NDArray[np.bool_], *, gather: Callable[[Rows], Index | None]) -> None:
        """gather   gets the rows, at least one; returns an index over their vectors, or None where they are too many."""
        check_mask(mask, index.size)
        self.index = index
        self.mask = mask.copy()
        self.mask.flags.writeable = False
        self.rows: Rows = np.flatnonzero(self.mask)
        self.rows.flags.writeable = False
        self.gathered = gather(self.rows) if len(self.rows) else None
        self.penalty: Float32s | None = None
        if len(self.rows) and self.gathered is None:
            self.penalty = np.where(self.mask, np.float32(0), np.float32(-np.inf))
            self.penalty.flags.writeable = False

    def __len__(self) -> int:
        return len(self.rows)

    def search(self, queries: Float32s, k: int, *, exclude: Sequence[NDArray[Any]] | None = None) -> tuple[Rows, Float32s]:
        """What the index answers among these rows, found by comparing them all. They must be gathered, or none."""
        if not len(self.rows):
            check_queries(queries, self.index.dim, k)
            check_exclude(exclude, len(queries), self.index.size)
            return np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        assert self.gathered is not None
        if exclude is not None:
            query, row = check_exclude(exclude, len(queries), self.index.size)
            place = np.minimum(np.searchsorted(self.rows, row), len(self.rows) - 1)
            place = np.where(self.rows[place] == row, place, -1)
            exclude = np.split(place, np.searchsorted(query, np.arange(1, len(queries)))) if len(queries) else []
        places, scores = self.gathered.search(queries, k, exclude=exclude)
        return np.where(places >= 0, self.rows[places], -1), scores

    def search_one(self, query: Float32s, k: int, *, exclude: NDArray[Any] | None = None) -> tuple[Rows, Float32s]:
        """What `search` answers to one query (D,)."""
        if self.gathered is None:
            rows, scores = self.search(query[None], k, exclude=None if exclude is None else [exclude])
            return rows[0], scores[0]
        if exclude is not None:
            out = known_rows(exclude, self.index.size)
            place = np.minimum(np.searchsorted(self.rows, out), len(self.rows) - 1)
            exclude = place[self.rows[place] == out]
        places, scores = self.gathered.search_one(query, k, exclude=exclude)
        rows = self.rows[places]
        rows[places < 0] = -1
        return rows, scores


def check_mask(mask: NDArray[np.bool_], size: int) -> None:
    """Raises ShapeError unless `mask` is one boolean for each of `size` rows."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (size,):
        raise ShapeError(
            f"eligible must be a mask ({size},) of bool, one for each row: got {_described(mask)}; make it of this version's items"
        )


def check_vectors(vectors: Float32s) -> NDArray[np.float64]:
    """The Euclidean norm (M,) of every row of a corpus fit to be indexed; a block of rows a step (pace.py).

    vectors  (M, D) float32, M >= 1, D >= 1
    Raises   ShapeError for another shape or type; ValueError naming the first row that is not finite or too long
    """
    _refuse_shape(vectors, "vectors", "(M, D)")
    if vectors.shape[0] < 1 or vectors.shape[1] < 1:
        raise ShapeError(f"vectors must have at least one row and one column: got shape {vectors.shape}; is the corpus empty?")
    if vectors.shape[0] > LARGEST_SIZE:
        raise ShapeError(f"an index holds at most {LARGEST_SIZE} rows: got {vectors.shape[0]}; split the corpus")
    return checked_norms(vectors, "vectors")


def check_queries(queries: Float32s, dim: int, k: int) -> NDArray[np.float64]:
    """The Euclidean norm (B,) of every query fit to be searched in `dim` dimensions for its best `k`.

    Raises ShapeError for another shape, type or dimension; ValueError for k < 1, or naming the first bad row.
    """
    _refuse_shape(queries, "queries", f"(B, {dim})")
    if queries.shape[1] != dim:
        raise ShapeError(f"queries must have the index's dimension {dim}: got {queries.shape[1]}; were both made by one model?")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be an integer of at least 1: got {k!r}; ask for one or more results")
    return checked_norms(queries, "queries")


def check_query(query: Float32s, dim: int, k: int) -> float:
    """The Euclidean norm of one query (D,). Raises as `check_queries` does; for a good query it costs a few microseconds."""
    if not isinstance(query, np.ndarray) or query.ndim != 1:
        raise ShapeError(f"a query must be one array ({dim},) of float32: got {_described(query)}; `search` takes many")
    if query.dtype == np.float32 and query.shape[0] == dim and type(k) is int and k >= 1:
        wide = query.astype(np.float64)
        norm = math.sqrt(wide.dot(wide))
        if norm <= LARGEST_NORM:
            return norm
    return float(check_queries(query[None], dim, k)[0])


def checked_norms(rows: Float32s, name: str) -> NDArray[np.float64]:
    """The Euclidean norm (N,) float64 of every row. Raises ValueError naming the first not finite or above LARGEST_NORM."""
    norms = np.empty(len(rows), np.float64)
    rows_at_once = max(1, CHUNK_ENTRIES // max(1, rows.shape[1]))
    for start in range(0, len(rows), rows_at_once):
        part = rows[start : start + rows_at_once].astype(np.float64)
        norms[start : start + rows_at_once] = np.sqrt(np.einsum("nd,nd->n", part, part))
        step()
    bad = np.flatnonzero(~(norms <= LARGEST_NORM))  # NaN fails every comparison
    if len(bad):
        row = int(bad[0])
        columns = np.flatnonzero(~np.isfinite(rows[row]))
        if len(columns):
            found = f"{rows[row, columns[0]]} in row {row}, column {columns[0]} ({len(bad)} bad rows)"
            raise ValueError(f"{name} must be finite: got {found}; did training diverge?")
        raise ValueError(f"{name} must have norms up to {LARGEST_NORM:g}: got {norms[row]:g} in row {row}; scale them down")
    return norms


def check_exclude(exclude: Sequence[NDArray[Any]] | None, count: int, size: int) -> tuple[Rows, Rows]:
    """(query, row): the pairs to leave out, both (E,) int64, sorted by query, without rows outside 0..size-1.

    Raises ShapeError unless there are `count` one-dimensional integer arrays.
    """
    if exclude is None or len(exclude) == count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if len(exclude) != count:
        raise ShapeError(f"exclude must have one array a query: got {len(exclude)} for {count} queries; use empty arrays to fill up")
    arrays = [np.asarray(rows) for rows in exclude]
    for position, rows in enumerate(arrays):
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            found = f"{rows.dtype} of shape {rows.shape}"
            raise ShapeError(f"exclude[{position}] must be a one-dimensional integer array: got {found}; pass rows, not ids")
    query = np.repeat(np.arange(count, dtype=np.int64), [rows.size for rows in arrays])
    row = np.concatenate([rows.astype(np.int64) for rows in arrays])
    known = (row >= 0) & (row < size)
    return query[known], row[known]


def known_rows(exclude: NDArray[Any], size: int) -> Rows:
    """The rows (E,) int64 to leave out of one query's answer, in no order, perhaps repeated, all of 0..size-1.

    Raises ShapeError as `check_exclude` does.
    """
    rows = np.asarray(exclude)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        return check_exclude([rows], 1, size)[1]
    rows = rows.astype(np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= size):
        rows = rows[(rows >= 0) & (rows < size)]
    return rows


def rescore(queries: Float32s, vectors: Float32s, rows: Rows) -> Float32s:
    """The canonical scores (B, W) float32 of `rows` (B, W) for their queries; row -1 scores -inf."""
    if rows.ndim != 2 or len(rows) != len(queries):
        raise ShapeError(f"rows must be (B, W) with one line a query: got {rows.shape} for {len(queries)} queries; pad with -1")
    scores = np.full(rows.shape, -np.inf, np.float32)
    query, column = np.nonzero(rows >= 0)
    scores[query, column] = score_pairs(queries, vectors, query, rows[query, column])
    return scores


def score_pairs(queries: Float32s, vectors: Float32s, query: Rows, row: Rows) -> Float32s:
    """The canonical scores (N,) float32 of the pairs (queries[query[i]], vectors[row[i]]); never -0."""
    scores = np.empty(len(row), np.float32)
    pairs_at_once = max(1, CHUNK_ENTRIES // vectors.shape[1])
    for start in range(0, len(row), pairs_at_once):
        part = slice(start, start + pairs_at_once)
        products = np.multiply(queries[query[part]], vectors[row[part]], dtype=np.float64)  # (n, D)
        scores[part] = _sum_by_halving(products)
    return scores + np.float32(0.0)  # no -0, also where a tiny number was rounded to one


def dot_products(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """left @ right, of finite numbers. BLAS computes in lanes behind the rows too, and numpy reads the flags that these raise: no fault."""
    with np.errstate(invalid="ignore"):
        return np.asarray(left @ right)


def score_rows(query: Float32s, vectors: Float32s, rows: Rows, largest: float) -> Float32s:
    """The canonical scores (W,) float32 of `rows` (W,) for one query (D,), as `score_pairs` gives them but five times as fast.

    largest  at least |query| times the norm of any row

    Where all numbers within `summation_error` of a float64 product round to one float32, that is the canonical score; the few other
    rows are added up by halving.
    """
    sums = dot_products(vectors.take(rows, axis=0).astype(np.float64), query.astype(np.float64))
    error = summation_error(largest, len(query))
    scores, above = (sums - error).astype(np.float32), (sums + error).astype(np.float32)
    if not np.array_equal(scores, above):
        unsure = np.flatnonzero(scores != above)
        scores[unsure] = score_pairs(query[None], vectors, np.zeros(len(unsure), np.int64), rows[unsure])
    scores += np.float32(0.0)  # no -0
    return scores


def summation_error(largest: float, dim: int) -> float:
    """How far a float64 product of `dim` terms, added in any order, is from the sum by halving; `largest` is at least |q||v|."""
    return (2 * dim + 4) * 2.0**-53 * largest


def best_of_one(rows: Rows, scores: Float32s, k: int) -> tuple[Rows, Float32s]:
    """(rows, scores), each (k,): the first k of distinct candidates (W,) by falling score, ties by row, padded with -1 and -inf."""
    if len(rows) > k:
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    if len(order) == k:
        return rows[order], scores[order]
    missing = k - len(order)
    return (
        np.concatenate([rows[order], np.full(missing, -1, np.int64)]),
        np.concatenate([scores[order], np.full(missing, -np.inf, np.float32)]),
    )


def order_keys(rows: Rows, scores: Float32s) -> Keys:
    """Numbers that sort ascending as (score descending, row ascending); row -1 with score -inf sorts last.

    rows, scores  equal shapes; scores without NaN and -0
    Source        the bits of a float32 sort like integers once negatives are flipped; the row fills the low half
    """
    bits = np.ascontiguousarray(scores).view(np.uint32)
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    low = rows.astype(np.int32).view(np.uint32)
    return (falling.astype(np.uint64) << np.uint64(32)) | low


def from_order_keys(keys: Keys) -> tuple[Rows, Float32s]:
    """(rows, scores) that `order_keys` turned into `keys`, in the same shape."""
    falling = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling >> 31, falling, ~falling & np.uint32(0x7FFFFFFF))
    rows = keys.astype(np.uint32).view(np.int32).astype(np.int64)  # the cast keeps the low half
    return rows, bits.view(np.float32)


def best_first(rows: Rows, scores: Float32s, k: int) -> tuple[Rows, Float32s]:
    """(rows, scores), each (B, k): the first k of (B, W) candidates by falling score, ties by row, padded with -1 and -inf.

    Each line's rows must differ, apart from the padding; scores come from `rescore`.
    """
    keys = np.sort(order_keys(rows, scores), axis=1)[:, :k]
    return padded(*from_order_keys(keys), k)


def padded(rows: Rows, scores: Float32s, k: int) -> tuple[Rows, Float32s]:
    """(rows, scores), each widened from (B, W <= k) to (B, k) with row -1 and score -inf."""
    missing = k - rows.shape[1]
    if not missing:
        return rows, scores
    return (
        np.pad(rows, ((0, 0), (0, missing)), constant_values=-1),
        np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf),
    )


def _sum_by_halving(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum (N,) of every line of (N, D), which is overwritten: its second half is added to its first until one is left."""
    width = products.shape[1]
    while width > 1:
        half = width // 2
        products[:, :half] += products[:, width - half : width]
        width -= half
    return products[:, 0]


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _refuse_shape(array: Float32s, name: str, shape: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"{name} must be a numpy array {shape} of float32: got {type(array).__name__}; use np.asarray")
    if array.ndim != 2 or array.dtype != np.float32:
        raise ShapeError(f"{name} must be {shape} float32: got {array.dtype} of shape {array.shape}; convert it first")
