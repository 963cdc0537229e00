"""All kinds of index by name: chosen, built and proved when publishing, opened by what was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from shortlist.errors import BundleError
from shortlist.index.contract import Float32s, Index, check_vectors
from shortlist.index.engines import is_installed
from shortlist.index.exact import ExactIndex
from shortlist.index.faiss import FaissIndex
from shortlist.index.int8 import Int8Index
from shortlist.index.proposing import ProposingIndex
from shortlist.index.scann import ScannIndex
from shortlist.index.tuning import FEWEST_QUERIES, tuned
from shortlist.sections import IndexSettings

KINDS: dict[str, type[Index]] = {kind.kind: kind for kind in (ExactIndex, Int8Index, ScannIndex, FaissIndex)}
COMPARED_ENTRIES = 1 << 20  # M x D up to which exact search is as quick as any (about 100 us)
SEARCHED_ENTRIES = 1 << 23  # M x D from which an approximate search is worth its proof; below, int8 answers in less than 1 ms


def build_index(vectors: Float32s, settings: IndexSettings, queries: Float32s) -> tuple[Index, dict[str, Any]]:
    """(an index over `vectors` (M, D) of the kind that `settings` name or `auto` chooses, the facts for the manifest).

    queries  (N, D) float32, held out, as the query tower makes them: an approximate index is tuned to them and proved on them
    Raises   BundleError where the library is missing, the queries are too few, or recall falls short; ShapeError, ValueError as
             `check_vectors` does
    """
    check_vectors(vectors)
    kind = chosen_kind(len(vectors), vectors.shape[1], len(queries)) if settings.kind == "auto" else settings.kind
    index = KINDS[kind].build(vectors, msgspec.structs.replace(settings, kind=kind))
    facts: dict[str, Any] = {"kind": kind, "chosen": settings.kind == "auto", "exact": index.is_exact}
    if isinstance(index, ProposingIndex) and index.leaves:
        index, proof = tuned(index, queries, settings)
        efforts = [msgspec.to_builtins(effort) for effort in index.efforts]
        target = {"target_recall": settings.target_recall, "target_k": settings.target_k}
        facts |= {"exact": index.is_exact, "leaves": index.leaves, "efforts": efforts, **target, **msgspec.to_builtins(proof)}
    return index, facts


def chosen_kind(size: int, dim: int, queries: int) -> str:
    """What `auto` means for a corpus (M, D) and N held-out queries, here: by size, and by what is installed.

    Without the queries to prove an approximate index it is int8, which is exact; without onnx, which writes its file, exact.
    """
    if size * dim <= COMPARED_ENTRIES:
        return "exact"
    if size * dim > SEARCHED_ENTRIES and queries >= FEWEST_QUERIES:
        for engine in ("scann", "faiss"):
            if is_installed(engine):
                return engine
    return "int8" if is_installed("onnx") else "exact"


def open_index(kind: str, folder: Path, vectors: Float32s) -> Index:
    """The index of `kind` that was saved into `folder`. Raises BundleError for an unknown kind, a missing library, a damaged file."""
    if kind not in KINDS:
        raise BundleError(f"{folder} must hold an index of a kind known here ({', '.join(KINDS)}): got {kind!r}; upgrade shortlist")
    return KINDS[kind].open(folder, vectors)
