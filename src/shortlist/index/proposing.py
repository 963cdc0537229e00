"""What the approximate indexes share: a library proposes rows, our own vectors decide.

A library (`scann`, `faiss`) holds codes of the vectors, a sixteenth of their size, and names the rows that seem best. Some have
finer codes as well, a fourth of the size, by which most of those rows are ruled out. The rest are compared by their vectors, with the
canonical score: results have the bits that the exact index gives to the same rows. The library keeps no vectors, so memory and disk
hold them once.

How hard the library must look depends on how many rows are wanted: an `Effort` for each depth, found by `tuning`. A filter makes
the search deeper. Where no depth gives k rows, the exact index answers: never a short list while k rows are eligible.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from shortlist.errors import BundleError
from shortlist.index.contract import (
    Eligible,
    Float32s,
    Index,
    Rows,
    check_exclude,
    check_queries,
    check_query,
    known_rows,
)
from shortlist.index.exact import ExactIndex, gather
from shortlist.index.refining import Refiner
from shortlist.sections import IndexSettings

FACTS_LARGEST_BYTES = 1 << 16
SMALLEST_CORPUS = 64  # rows; quantisers want 16 points for their 16 codes, and less than this is compared in no time
GATHERED_SHARE = 1 / 4  # of the corpus: eligible rows up to which their vectors may be copied
GATHERED_LARGEST_BYTES = 56 << 20  # of such copies: the masks that a service remembers by default hold one of them
CODE_NS = 0.03  # a 4-bit code of a row in a partition that is looked into
PARTITION_NS = 100.0  # a partition that is looked into, however small
ORDERED_NS, ORDERED_DIM_NS = 45.0, 0.17  # a row that the library orders by its finer code; and each dimension of it
COMPARED_NS, COMPARED_DIM_NS = 10.0, 1.7  # a row that is handed over, fetched and compared by its vector; and each dimension of it
GATHERED_DIM_NS = 0.25  # a dimension of an eligible row whose vector lies beside the others' and is compared with them
SPARE = 1.3  # times as many ineligible rows are searched past as there are on average: they are never spread evenly


class Effort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How hard to look for the best `depth` rows.

    depth     results that this effort is good for
    searched  partitions that are looked into
    rescored  rows that the library names by its codes; at least `depth`
    compared  rows of these that it hands over, by its finer codes, to be compared by their vectors; None = all of them
    """

    depth: int
    searched: int
    rescored: int
    compared: int | None = None

    @property
    def handed(self) -> int:
        """How many rows the library hands over."""
        return self.rescored if self.compared is None else self.compared


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    size: int
    dim: int
    leaves: int
    efforts: tuple[Effort, ...]
    files: dict[str, str]  # name -> xxh3_128 of the content


class ProposingIndex(Index):
    """An index whose library proposes rows. A subclass says how it is made, asked, written and read.

    exact            the exact index over the same vectors
    leaves           partitions of the corpus; 0 for a corpus below SMALLEST_CORPUS, which the exact index answers for
    efforts          by rising depth
    has_finer_codes  can the library tell by itself most of what need not be compared?
    """

    folder: ClassVar[str]  # of the library's own files, below the index's folder

    exact: ExactIndex
    leaves: int
    efforts: tuple[Effort, ...]
    has_finer_codes: bool = False
    _depths: list[int]  # of the efforts, none where the exact index answers
    _plan: list[tuple[Effort, tuple[int, ...]]]  # each effort, and how many partitions it looks into before the next one is tried

    def __init__(self, vectors: Float32s, *, leaves: int, efforts: Iterable[Effort]) -> None:
        self.exact = ExactIndex(vectors)
        self._vectors = self.exact.vectors
        self.size, self.dim = vectors.shape
        self.leaves = leaves
        if leaves:
            self._refiner = Refiner(self._vectors)
        self._set_efforts(efforts)

    @classmethod
    def build(cls, vectors: Float32s, settings: IndexSettings) -> Self:
        """An index over `vectors` (M, D) float32, its efforts as set or guessed from M; `tuning` finds better ones."""
        size = len(ExactIndex(vectors).vectors)
        leaves = 0 if size < SMALLEST_CORPUS else min(settings.leaves or default_leaves(size), size // 2)
        index = cls(vectors, leaves=leaves, efforts=[default_effort(size, leaves, settings)])
        if leaves:
            index._build_library(settings)
        return index

    @classmethod
    def open(cls, folder: Path, vectors: Float32s) -> Self:
        """The index that `save` wrote into `folder`. Raises BundleError naming the file that is damaged, missing or unfit."""
        path = folder / f"{cls.kind}.json"
        try:
            with path.open("rb") as file:
                facts = msgspec.json.decode(file.read(FACTS_LARGEST_BYTES), type=_Facts)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise BundleError(f"{path} must hold the facts of a {cls.kind} index: {error}; publish again") from None
        try:
            index = cls(vectors, leaves=facts.leaves, efforts=facts.efforts)
        except ValueError as error:
            raise BundleError(f"{path} must hold efforts that can be searched with: {error}; publish again") from None
        if (facts.kind, facts.size, facts.dim) != (cls.kind, index.size, index.dim):
            found = f"{facts.kind} of {facts.size} x {facts.dim}"
            raise BundleError(f"{path} must describe its vectors, {cls.kind} of {index.size} x {index.dim}: got {found}; publish again")
        if index.leaves:
            _refuse_other_files(folder / cls.folder, facts.files)
            index._open_library(folder / cls.folder)
        return index

    def save(self, folder: Path) -> None:
        """Nothing comes back. Writes the library's files and their hashes; the vectors are the caller's."""
        if self.leaves:
            (folder / self.folder).mkdir()
            self._save_library(folder / self.folder)
        facts = _Facts(self.kind, self.size, self.dim, self.leaves, self.efforts, _hashes(folder / self.folder) if self.leaves else {})
        (folder / f"{self.kind}.json").write_bytes(msgspec.json.encode(facts))

    def with_efforts(self, efforts: Iterable[Effort]) -> Self:
        """The same index, searched with other efforts."""
        other = copy(self)
        other._set_efforts(efforts)
        return other

    @property
    def is_exact(self) -> bool:  # type: ignore[override]  # of the class elsewhere, here of the efforts
        """Do the efforts look everywhere and compare everything?"""
        return not self.leaves or any(effort.searched == self.leaves and effort.handed == self.size for effort in self.efforts[:1])

    @property
    def is_compiled(self) -> bool:  # type: ignore[override]  # of the class elsewhere, here of the vectors
        """Are proposed rows compared by compiled code?"""
        return self.leaves > 0 and self._refiner.is_compiled

    def prepare(self, mask: NDArray[np.bool_]) -> Eligible:
        """The rows of `mask`, with copies of their vectors where comparing them all is cheaper than searching past the others."""
        return Eligible(self, mask, gather=lambda rows: gather(self._vectors, rows) if self._are_compared(len(rows)) else None)

    def search_ns(self, effort: Effort) -> float:
        """Nanoseconds that a search takes, about: counted, so that tuning chooses alike on any machine."""
        scanned = self.size * effort.searched / self.leaves
        codes = effort.searched * PARTITION_NS + scanned * self.dim / 2 * CODE_NS
        ordered = effort.rescored * (ORDERED_NS + ORDERED_DIM_NS * self.dim) if self.has_finer_codes else 0.0
        return codes + ordered + effort.handed * (COMPARED_NS + COMPARED_DIM_NS * self.dim)

    def search(
        self,
        queries: Float32s,
        k: int,
        *,
        exclude: Sequence[NDArray[Any]] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (B, k), as the contract says: each query is searched for alone, whatever its batch."""
        check_queries(queries, self.dim, k)
        allowed = self._prepared(eligible)
        check_exclude(exclude, len(queries), self.size)
        rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for number, query in enumerate(queries):
            out = None if exclude is None else exclude[number]
            rows[number], scores[number] = self.search_one(query, k, exclude=out, eligible=allowed)
        return rows, scores

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
        query = np.ascontiguousarray(query)
        allowed = self._prepared(eligible)
        if allowed is not None and (allowed.gathered is not None or not len(allowed)):
            return allowed.search_one(query, k, exclude=exclude)
        out = None if exclude is None else known_rows(exclude, self.size)
        found = self._found(query, norm, k, out, allowed)
        return self.exact.scan_one(query, norm, k, out, None if allowed is None else allowed.penalty) if found is None else found

    @abstractmethod
    def propose(self, query: Float32s, effort: Effort, searched: int) -> Rows:
        """At most `effort.handed` distinct rows (W,) int64, the likeliest first, from the `searched` likeliest partitions."""

    def propose_all(self, queries: Float32s, effort: Effort, *, threads: int) -> list[Rows]:
        """What `propose` says of each of the queries (N, D), but for the order of rows with equal codes; faster, for tuning."""
        return [self.propose(query, effort, effort.searched) for query in queries]

    @abstractmethod
    def _build_library(self, settings: IndexSettings) -> None:
        """Nothing comes back: the library holds the codes of all vectors."""

    @abstractmethod
    def _save_library(self, folder: Path) -> None:
        """Nothing comes back. Writes the library's files into the empty `folder`."""

    @abstractmethod
    def _open_library(self, folder: Path) -> None:
        """Nothing comes back: the library holds what `_save_library` wrote. Raises BundleError for files it cannot read."""

    def _found(self, query: Float32s, norm: float, k: int, out: Rows | None, allowed: Eligible | None) -> tuple[Rows, Float32s] | None:
        """(rows, scores), each (k,), from the least effort that finds so many, or that many partitions more; None where none does."""
        largest, wanted = norm * self.exact.largest_norm, k
        if out is not None:
            wanted += min(len(out), k)  # what is left out is often the very best; longer lists are mostly elsewhere
        if allowed is not None:
            wanted = self._depth_among(wanted, len(allowed))
        excluded = None if out is None or not len(out) else row_mask(out, self.size)
        for effort, searches in self._plan[bisect_left(self._depths, wanted) :]:
            for searched in searches:
                rows = self.propose(query, effort, searched)
                proposed, depth = len(rows), effort.depth
                if allowed is not None:
                    rows = rows[allowed.mask[rows]]
                    depth = depth * len(rows) // max(proposed, 1)  # beyond its depth an effort promises nothing, nor its share of it
                if excluded is not None and depth:
                    rows = self._refiner.leading(query, rows, depth, largest)
                    rows = rows[~excluded[rows]]
                if min(len(rows), depth) >= k:
                    return self._refiner.best(query, rows, k, largest)
                if proposed == effort.handed:
                    break  # more partitions would propose other rows, not more
        return None

    def _depth_among(self, k: int, eligible: int) -> int:
        """How deep to look for k rows where so many are eligible."""
        return math.ceil(k * (1 + SPARE * (self.size / eligible - 1)))

    def _are_compared(self, eligible: int) -> bool:
        """Are so many eligible rows compared one by one? The search that they are weighed against is for the results tuned for."""
        if eligible > GATHERED_SHARE * self.size or 4 * eligible * self.dim > GATHERED_LARGEST_BYTES:
            return False
        enough = self._plan[bisect_left(self._depths, self._depth_among(self.efforts[0].depth, eligible)) :]
        return not enough or eligible * self.dim * GATHERED_DIM_NS <= self.search_ns(enough[0][0])

    def _set_efforts(self, efforts: Iterable[Effort]) -> None:
        self.efforts = tuple(sorted(efforts, key=lambda effort: effort.depth))
        if not self.efforts:
            raise ValueError("an index must have at least one effort: got none")
        for effort in self.efforts:
            if not (1 <= effort.depth <= effort.handed <= effort.rescored <= self.size and 0 <= effort.searched <= self.leaves):
                raise ValueError(
                    f"an effort must have depth <= compared <= rescored <= {self.size} and searched <= {self.leaves}: got {effort}"
                )
        looking = self.efforts if self.leaves else ()
        # Where the likeliest partitions are small, a few more of them are enough; the next effort may look into fifty times as many.
        ends = [*(effort.searched for effort in looking[1:]), self.leaves]
        self._depths = [effort.depth for effort in looking]
        self._plan = [(effort, tuple(_doubling(effort.searched, end))) for effort, end in zip(looking, ends, strict=False)]


def default_leaves(size: int) -> int:
    """Partitions for `size` rows: twice their square root. Finer ones find more by looking at less, and take longer to learn."""
    return max(1, 2 * math.isqrt(size))


def default_effort(size: int, leaves: int, settings: IndexSettings) -> Effort:
    """The effort that is set, or a tenth of the partitions and three times `target_k` rows."""
    rescored = min(size, settings.rescored or max(3 * settings.target_k, 300))
    return Effort(
        depth=rescored if settings.rescored else min(rescored, settings.target_k),
        searched=min(leaves, settings.searched or math.ceil(leaves / 10)),
        rescored=rescored,
    )


def _doubling(first: int, end: int) -> Iterator[int]:
    """`first`, and its doubles below `end`."""
    yield first
    while first and (first := 2 * first) < end:
        yield first


def row_mask(rows: Rows, size: int) -> NDArray[np.bool_]:
    """(size,) true at `rows`."""
    mask = np.zeros(size, np.bool_)
    mask[rows] = True
    return mask


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in sorted(folder.iterdir())}


def _refuse_other_files(folder: Path, expected: dict[str, str]) -> None:
    """Raises BundleError unless `folder` holds just the files expected: libraries take damaged ones without a word."""
    try:
        names = sorted(path.name for path in folder.iterdir())
        for name in sorted({*names, *expected}):
            if name not in names:
                raise BundleError(f"{folder / name} is missing; publish again")
            if name not in expected:
                raise BundleError(f"{folder / name} must not be there: the index was saved without it; remove it or publish again")
            if xxhash.xxh3_128_hexdigest((folder / name).read_bytes()) != expected[name]:
                raise BundleError(f"{folder / name} must be as saved: its hash changed; publish again")
    except OSError as error:
        raise BundleError(f"{folder} must hold the files of its index: {error}; publish again") from None
