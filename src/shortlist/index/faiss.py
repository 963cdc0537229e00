"""Faiss behind the contract: partitions (IVF) and 4-bit product codes (PQ fast scan). Runs on every platform; needs `faiss-cpu`.

Only partitions and codes are the library's; re-scoring is `proposing`'s. Faiss learns partitions for inner products by direction
alone, which loses long vectors (faiss#1496). Here they are learned and assigned by distance, as in ScaNN, and only a query finds
them by inner product: the coarse quantiser is exchanged once the vectors are in.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import BundleError
from shortlist.index.contract import Float32s, Rows
from shortlist.index.engines import in_range, require, training_threads
from shortlist.index.proposing import Effort, ProposingIndex
from shortlist.sections import IndexSettings

BLOCK_DIMS = 2  # dimensions that share a 4-bit code
CODES = 16  # of 4 bits
LEARNED_FROM_EACH = 256  # vectors a partition that partitions are learned from
FILE = "faiss.index"
ADDED_AT_ONCE = 1 << 16

_thread = threading.local()  # OpenMP's number of threads is each thread's own


class FaissIndex(ProposingIndex):
    """Partitions and 4-bit product codes by Faiss."""

    kind = "faiss"
    folder = "faiss"
    library: Any
    _parts: tuple[Any, ...]  # Faiss keeps bare pointers to these

    def propose(self, query: Float32s, effort: Effort, searched: int) -> Rows:
        """At most `effort.handed` distinct rows (W,) int64, the likeliest first, from the `searched` likeliest partitions."""
        if not getattr(_thread, "is_single", False):
            require("faiss").omp_set_num_threads(1)
            _thread.is_single = True
        rows: Rows = self._asked(query[None], effort.handed, searched)[0]
        return rows if len(rows) and rows[-1] >= 0 else rows[rows >= 0]

    def propose_all(self, queries: Float32s, effort: Effort, *, threads: int) -> list[Rows]:
        """What `propose` says of each of the queries (N, D)."""
        require("faiss").omp_set_num_threads(threads)
        _thread.is_single = False
        return [rows[rows >= 0] for rows in self._asked(queries, effort.handed, effort.searched)]

    def _asked(self, queries: Float32s, count: int, searched: int) -> Rows:
        """(N, count) rows, -1 = none."""
        if self.dim % BLOCK_DIMS:
            queries = np.pad(queries, ((0, 0), (0, -self.dim % BLOCK_DIMS)))
        parameters = require("faiss").SearchParametersIVF(nprobe=searched)
        found: Rows = self.library.search(queries, count, params=parameters)[1]
        return found

    def _build_library(self, settings: IndexSettings) -> None:
        faiss = require("faiss")
        faiss.omp_set_num_threads(training_threads(settings))
        _thread.is_single = False
        vectors = in_range(self._vectors, self.exact.largest_norm)
        if self.dim % BLOCK_DIMS:
            vectors = np.pad(vectors, ((0, 0), (0, -self.dim % BLOCK_DIMS)))
        dim = vectors.shape[1]
        by_distance = faiss.IndexFlatL2(dim)
        library = faiss.IndexIVFPQFastScan(by_distance, dim, self.leaves, dim // BLOCK_DIMS, 4, faiss.METRIC_INNER_PRODUCT)
        library.by_residual = True
        for clustering in (library.cp, library.pq.cp):
            clustering.seed = settings.seed + 1
            clustering.min_points_per_centroid = 1  # small corpora are allowed; no warning
        library.cp.max_points_per_centroid = LEARNED_FROM_EACH
        library.cp.spherical = False
        random = np.random.default_rng((settings.seed, 6))
        sample = random.permutation(self.size)[: max(LEARNED_FROM_EACH * self.leaves, 1 << 14)]
        library.train(np.ascontiguousarray(vectors[np.sort(sample)]))
        for start in range(0, self.size, ADDED_AT_ONCE):
            library.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE]))
        by_product = faiss.IndexFlatIP(dim)
        by_product.add(by_distance.reconstruct_n(0, self.leaves))
        library.quantizer = by_product
        library.own_fields = False
        self.library, self._parts = library, (by_product,)

    def _save_library(self, folder: Path) -> None:
        require("faiss").write_index(self.library, str(folder / FILE))

    def _open_library(self, folder: Path) -> None:
        faiss = require("faiss")
        path = folder / FILE
        table = 4 * self.leaves * CODES * -(-self.dim // BLOCK_DIMS)  # bytes: products of centres and codes, which Faiss works out again
        faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, table + 4))  # no count in the file may ask for more
        try:
            library = faiss.read_index(str(path))
        except RuntimeError as error:
            raise BundleError(f"{path} must be an index that Faiss reads: {error}; publish again") from None
        if (library.ntotal, library.nlist) != (self.size, self.leaves):
            found = f"{library.ntotal} rows in {library.nlist} partitions"
            raise BundleError(f"{path} must hold {self.size} rows in {self.leaves} partitions: got {found}; publish again")
        self.library, self._parts = library, ()
