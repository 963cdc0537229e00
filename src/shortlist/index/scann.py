"""ScaNN behind the contract: partitions, 4-bit codes made for inner products (anisotropic), and 8-bit ones. Needs `scann-core` or `scann`.

It names rows by the small codes and orders them by the larger; their comparison is `proposing`'s, from the vectors that are there
anyway. ScaNN's own document ids are never used: they are a pickle.

Guo et al., Accelerating Large-Scale Inference with Anisotropic Vector Quantization, ICML 2020.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import BundleError
from shortlist.index.contract import Float32s, Rows
from shortlist.index.engines import in_range, require, training_threads, unheard
from shortlist.index.proposing import Effort, ProposingIndex
from shortlist.sections import IndexSettings

BLOCK_DIMS = 2  # dimensions that share a 4-bit code
PARALLEL_ERROR = 3.0  # how much more an error along the vector counts than one across it, about: r of `_threshold`
AVQ = 2.5  # partitions for inner products, not distances
LEARNED_FROM = 100_000  # vectors that codes, and partitions at least, are learned from
LEARNED_FROM_EACH = 48  # vectors a partition
ASSETS, PICKLE, EIGHT_BITS = "scann_assets.pbtxt", "scann_docids.pkl", "int8_dataset.npy"


class ScannIndex(ProposingIndex):
    """Partition tree, 4-bit codes and, unless efforts are set by hand, 8-bit codes by ScaNN."""

    kind = "scann"
    folder = "scann"
    library: Any

    def propose(self, query: Float32s, effort: Effort, searched: int) -> Rows:
        """At most `effort.handed` distinct rows (W,) int64, the likeliest first, from the `searched` likeliest partitions."""
        found, scores = self.library.search(query, effort.handed, effort.rescored, searched)
        rows: Rows = found.astype(np.int64)
        return rows if not len(scores) or scores[-1] == scores[-1] else rows[~np.isnan(scores)]  # short answers are padded with NaN

    def propose_all(self, queries: Float32s, effort: Effort, *, threads: int) -> list[Rows]:
        """What `propose` says of each of the queries (N, D), but for the order of rows with equal codes."""
        self.library.set_num_threads(threads)
        try:
            found, scores = self.library.search_batched_parallel(queries, effort.handed, effort.rescored, effort.searched)
        finally:
            self.library.set_num_threads(1)
        return [line[~np.isnan(known)].astype(np.int64) for line, known in zip(found, scores, strict=True)]

    def _build_library(self, settings: IndexSettings) -> None:
        vectors = in_range(self._vectors, self.exact.largest_norm)
        builder = tree_and_codes(vectors, self.leaves, threads=training_threads(settings))
        self.has_finer_codes = settings.rescored is None  # rows whose number is set are all compared
        if self.has_finer_codes:
            builder.reorder(self.efforts[0].rescored, quantize=True)  # every search says of how many rows
        with unheard():
            self.library = builder.build()
        self.library.set_num_threads(1)

    def _save_library(self, folder: Path) -> None:
        self.library.serialize(str(folder), relative_path=True)

    def _open_library(self, folder: Path) -> None:
        scann = require("scann")
        if (folder / PICKLE).exists() or not (folder / ASSETS).exists():
            raise BundleError(f"{folder} must hold {ASSETS} and no {PICKLE}; publish again")
        try:
            self.library = scann.scann_ops_pybind.load_searcher(str(folder), assets_backcompat_shim=False)
        except (ValueError, RuntimeError, OSError) as error:
            raise BundleError(f"{folder} must hold an index that ScaNN reads: {error}; publish again") from None
        self.library.set_num_threads(1)
        self.has_finer_codes = (folder / EIGHT_BITS).exists()  # versions published before had none


def tree_and_codes(vectors: Float32s, leaves: int, *, threads: int) -> Any:
    """ScaNN's builder, set up to partition `vectors` and to code them."""
    scann = require("scann")
    tree: dict[str, Any] = {"random_init": False}  # random starts differ from build to build
    sample = min(len(vectors), max(LEARNED_FROM, LEARNED_FROM_EACH * leaves))
    return (
        scann.scann_ops_pybind.builder(vectors, 1, "dot_product")
        .set_n_training_threads(threads)
        .tree(leaves, leaves, training_sample_size=sample, min_partition_size=1, avq=AVQ, **tree)
        .score_ah(
            min(BLOCK_DIMS, vectors.shape[1]),
            anisotropic_quantization_threshold=_threshold(vectors),
            training_sample_size=min(len(vectors), LEARNED_FROM),
        )
    )


def _threshold(vectors: Float32s) -> float:
    """From which inner product on errors along a vector count more: T = |x| sqrt(r / (D - 1 + r)), for the shorter vectors.

    NaN, which turns it off, where there is nothing to tell apart. Source: scann-core's docs/tuning.md; T grows with the norms.
    """
    dim = vectors.shape[1]
    norms = np.linalg.norm(vectors[: 4 * LEARNED_FROM : 4] if len(vectors) > LEARNED_FROM else vectors, axis=1)
    length = float(np.quantile(norms, 0.05))
    return length * math.sqrt(PARALLEL_ERROR / (dim - 1 + PARALLEL_ERROR)) if dim > 1 and length > 0 else math.nan
