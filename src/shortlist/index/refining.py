"""What is made of rows that a library proposes, or first scores leave possible: their canonical scores, the best first, with as few
operations as can be.

A library's search leaves the caches cold, so each numpy call costs a microsecond or two and each row a trip to memory. Where there is a
compiler, refining.c visits each row once; where there is none, numpy does the same in twice the time. Not a search: `proposing`
asks for it. The results have the bits of `contract.score_rows` and the order of `contract.best_of_one`, by tests of both ways.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from pathlib import Path

import numpy as np

from shortlist.index.contract import Float32s, Rows, best_of_one, dot_products, score_pairs, summation_error
from shortlist.index.exact import groups_of, largest_error
from shortlist.native import NotCompiled, compiled_from

CUT_FROM = 2  # times as many rows as wanted, from which a first cut by float32 products costs less than exact ones of all
ZERO = np.float32(0)
_MOST_ROWS, _MOST_DIMS = 4096, 4096  # that refining.c takes: more of them are numpy's
_SOURCE = Path(__file__).with_name("refining.c")
_FLAGS = ("-O3", "-march=native", f"-DMOST_ROWS={_MOST_ROWS}", f"-DMOST_DIMS={_MOST_DIMS}")


class Refiner:
    """Compares rows of one corpus by their vectors."""

    def __init__(self, vectors: Float32s) -> None:
        """vectors  (M, D) float32"""
        self._vectors = vectors
        built = _compiled() if vectors.flags.c_contiguous and vectors.shape[1] <= _MOST_DIMS else None
        self._compiled = None if built is None else built.best_of_rows
        self._in_reach = None if built is None else built.rows_in_reach
        self._address = ctypes.c_void_p(vectors.ctypes.data)
        self._desks = threading.local()

    def __reduce__(self) -> tuple[type[Refiner], tuple[Float32s]]:
        """What an index that is pickled or copied keeps: neither addresses nor threads."""
        return Refiner, (self._vectors,)

    @property
    def is_compiled(self) -> bool:
        """Does refining.c do it? If not, it could not be compiled, or the vectors have gaps or too many dimensions."""
        return self._compiled is not None

    def best(self, query: Float32s, rows: Rows, k: int, largest: float) -> tuple[Rows, Float32s]:
        """(rows, scores), each (k,): the best of distinct `rows` (W >= k,) by canonical score, best first, ties by lower row.

        largest  at least |query| times the norm of any row
        Raises   IndexError for a row that is not there; ValueError for fewer rows than k
        """
        count = len(rows)
        if not 1 <= k <= count:
            raise ValueError(f"k must be one of 1..{count}, the rows proposed: got {k}")
        if self._compiled is None or count > _MOST_ROWS:
            return best_of_rows(query, self._vectors, rows, k, largest)
        desk = getattr(self._desks, "desk", None)
        if desk is None:
            desk = self._desks.desk = _Desk(self._vectors.shape[1])
        desk.rows[:count], desk.query[:] = rows, query
        error = summation_error(largest, len(query))
        asked, given, best, scores = desk.at
        if self._compiled(self._address, len(self._vectors), len(query), asked, count, given, error, k, best, scores):
            raise IndexError(f"proposed rows must be of 0..{len(self._vectors) - 1}: got {rows.min()} to {rows.max()}")
        return desk.best_rows[:k].copy(), desk.best_scores[:k].copy()

    def in_reach(self, scaled: Float32s, norms: Float32s, t: float, share: float, least: float, k: int) -> Rows | None:
        """The rows (W,), rising, that may be among the best k of all M; None where that is numpy's to say: more than few, or no compiler.

        scaled   (M,) of each row the first score before it is scaled by t; -inf = left out
        norms    (M,): a score is off by norm * share + least at most
        """
        if self._in_reach is None or not (scaled.flags.c_contiguous and norms.flags.c_contiguous):
            return None
        count = len(scaled)
        maxima, rows = np.empty(groups_of(count, k), np.float32), np.empty(_MOST_ROWS, np.int64)
        places = [array.ctypes.data for array in (scaled, norms, maxima, rows)]
        found = self._in_reach(*places[:2], count, t, share, least, k, places[2], len(maxima), places[3], _MOST_ROWS)
        return None if found < 0 else rows[:found]

    def leading(self, query: Float32s, rows: Rows, count: int, largest: float) -> Rows:
        """Those of `rows` (W,) that may be among their best `count`: all of these, and few more.

        largest  at least |query| times the norm of any row
        """
        if len(rows) <= count:
            return rows
        return rows[_reaching(dot_products(self._vectors.take(rows, axis=0), query), count, 2 * largest_error(largest, len(query)))]


class _Desk:
    """What one thread lays before refining.c and takes from it: to ask numpy where an array lies costs more than to copy it."""

    def __init__(self, dim: int) -> None:
        self.rows, self.best_rows = np.empty(_MOST_ROWS, np.int64), np.empty(_MOST_ROWS, np.int64)
        self.query, self.best_scores = np.empty(dim, np.float32), np.empty(_MOST_ROWS, np.float32)
        self.at = [ctypes.c_void_p(array.ctypes.data) for array in (self.rows, self.query, self.best_rows, self.best_scores)]


def best_of_rows(query: Float32s, vectors: Float32s, rows: Rows, k: int, largest: float) -> tuple[Rows, Float32s]:
    """What `Refiner.best` returns, by numpy."""
    if rows.min() < 0:  # what is too large `take` refuses
        raise IndexError(f"proposed rows must be of 0..{len(vectors) - 1}: got {rows.min()}")
    near = vectors.take(rows, axis=0)  # (W, D)
    if len(rows) > CUT_FROM * k:
        kept = _reaching(dot_products(near, query), k, 2 * largest_error(largest, len(query)))
        rows, near = rows.take(kept), near.take(kept, axis=0)
    sums = dot_products(near.astype(np.float64), query.astype(np.float64))
    error = summation_error(largest, len(query))
    falling, below = np.subtract(-error, sums).astype(np.float32), np.subtract(error, sums).astype(np.float32)  # minus the scores
    if (falling != below).any():
        unsure = np.flatnonzero(falling != below)
        falling[unsure] = -score_pairs(query[None], near, np.zeros(len(unsure), np.int64), unsure)
    falling += ZERO  # no -0
    order = falling.argsort()
    sorted_scores = falling.take(order[: k + 1])
    if (sorted_scores[1:] == sorted_scores[:-1]).any():
        return best_of_one(rows, ZERO - falling, k)
    return rows.take(order[:k]), ZERO - sorted_scores[:k]


def _reaching(products: Float32s, count: int, error: float) -> Rows:
    """Where `products` (W,) come within `error` of the count-th largest: float32 ones are off by half of it at most, so nothing else
    can belong to the best `count`."""
    least = np.partition(products, len(products) - count)[len(products) - count] - np.float32(error)
    return np.flatnonzero(products >= least)


@cache
def _compiled() -> ctypes.PyDLL | None:
    """refining.c's functions, None without a compiler. They keep the interpreter's lock: to let it go for some microseconds may cost
    as many milliseconds until it comes back."""
    try:
        library = compiled_from(_SOURCE, _FLAGS, ctypes.PyDLL)
    except NotCompiled:
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    library.best_of_rows.argtypes = [address, number, number, address, number, address, ctypes.c_double, number, address, address]
    real = ctypes.c_float
    library.rows_in_reach.argtypes = [address, address, number, real, real, real, number, address, number, address, number]
    library.rows_in_reach.restype = number
    return library
