"""What changed since a version was sealed: new and changed items in a small exact overlay, and the sealed rows that no longer count.

A row space of its own: rows below M are the sealed index's, row M + s is slot s of the overlay. An overlay never changes; a
write makes the next one, and a request keeps the one it began with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.index.contract import dot_products, score_pairs
from shortlist.serve.ids import Id, IdTable
from shortlist.serve.predicates import PredicateMasks

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
MANY_CHUNKS = 64  # of the frame, after which it is made one piece again
_MASK_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Overlay:
    """n slots over a sealed corpus of M items; a slot that is not live was changed again or withdrawn."""

    sealed: int  # M
    slots: dict[Id, int]  # of the live ones
    ids: list[Id]  # (n,)
    frame: pl.DataFrame  # (n,) rows of the items table
    embeddings: Floats  # (n, D or D + m + 1), as a bundle's
    vectors: Floats  # (n, S)
    places: Rows  # (n,) how many sealed ids come before each: ties go by id
    live: Mask  # (n,)
    hidden: Rows  # sealed rows that are withdrawn or replaced, ascending

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def alive(self) -> Mask:
        """(M,) the sealed rows that still count."""
        alive = np.ones(self.sealed, bool)
        alive[self.hidden] = False
        alive.flags.writeable = False
        return alive

    @cached_property
    def masks(self) -> PredicateMasks[Mask]:
        """Masks of predicates over the n slots."""
        return PredicateMasks(self.frame, _MASK_BYTES, make=lambda mask: mask, size_bytes=lambda mask: mask.nbytes)

    @cached_property
    def largest_norm(self) -> float:
        """The largest norm of any vector; 0 where there is none."""
        return float(np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors, dtype=np.float64).max(initial=0.0)))

    def search(self, query: Floats, k: int, eligible: Mask, least: float) -> tuple[Rows, Floats]:
        """(slots, scores) of at most k eligible slots that reach the score `least`, best first, ties by id.

        Scores are the canonical ones of the index contract; the matrix product only proposes, as in index/exact.py.
        """
        products = dot_products(self.vectors, query[0])  # (n,)
        norm = float(np.linalg.norm(query.astype(np.float64)))
        slack = 2 * (query.shape[1] + 1) * 2.0**-24 * norm * self.largest_norm + query.shape[1] * 1e-37
        candidates = np.flatnonzero(eligible & (products >= least - slack))
        if len(candidates) > k:
            reached = np.partition(products[candidates], len(candidates) - k)[len(candidates) - k]
            candidates = candidates[products[candidates] >= reached - 2 * slack]
        scores = score_pairs(query, self.vectors, np.zeros(len(candidates), np.int64), candidates)
        kept = scores >= least
        candidates, scores = candidates[kept], scores[kept]
        order = sorted(range(len(candidates)), key=lambda i: (-scores[i], self.ids[candidates[i]]))[:k]
        return candidates[order], scores[order]

    def with_items(self, ids: list[Id], frame: pl.DataFrame, embeddings: Floats, vectors: Floats, sealed_ids: IdTable) -> Overlay:
        """The overlay after `ids`, none twice, were added or replaced."""
        start = len(self.ids)
        live = np.concatenate([self.live, np.ones(len(ids), bool)])
        live[[slot for item_id in ids if (slot := self.slots.get(item_id)) is not None]] = False
        rows = sealed_ids.rows_of(ids)
        joined = self.frame.vstack(frame)
        return replace(
            self,
            slots={**self.slots, **{item_id: start + offset for offset, item_id in enumerate(ids)}},
            ids=[*self.ids, *ids],
            frame=joined.rechunk() if joined.n_chunks() > MANY_CHUNKS else joined,
            embeddings=np.concatenate([self.embeddings, embeddings]),
            vectors=np.concatenate([self.vectors, vectors]),
            places=np.concatenate([self.places, np.array([sealed_ids.place_of(item_id) for item_id in ids], np.int64)]),
            live=live,
            hidden=np.union1d(self.hidden, rows[rows >= 0]),
        )._tidied()

    def without(self, ids: list[Id], sealed_ids: IdTable) -> Overlay:
        """The overlay after `ids` were withdrawn, wherever they are; unknown ones are no matter."""
        gone = {item_id: slot for item_id in ids if (slot := self.slots.get(item_id)) is not None}
        live = self.live.copy()
        live[list(gone.values())] = False
        rows = sealed_ids.rows_of(ids)
        slots = {item_id: slot for item_id, slot in self.slots.items() if item_id not in gone}
        return replace(self, slots=slots, live=live, hidden=np.union1d(self.hidden, rows[rows >= 0]))._tidied()

    def _tidied(self) -> Overlay:
        """The same without its dead slots, once they are more than the living."""
        if len(self.ids) <= 2 * len(self.slots) + MANY_CHUNKS:
            return self
        kept = np.flatnonzero(self.live)
        ids = [self.ids[slot] for slot in kept]
        return replace(
            self,
            slots={item_id: slot for slot, item_id in enumerate(ids)},
            ids=ids,
            frame=self.frame[kept],
            embeddings=self.embeddings[kept],
            vectors=self.vectors[kept],
            places=self.places[kept],
            live=np.ones(len(kept), bool),
        )


def empty_overlay(frame: pl.DataFrame, dim: int, width: int) -> Overlay:
    """Nothing changed since the version of `frame` (M rows), embeddings (M, dim) and vectors (M, width) was sealed."""
    return Overlay(
        sealed=frame.height,
        slots={},
        ids=[],
        frame=frame.clear(),
        embeddings=np.zeros((0, dim), np.float32),
        vectors=np.zeros((0, width), np.float32),
        places=np.zeros(0, np.int64),
        live=np.zeros(0, bool),
        hidden=np.zeros(0, np.int64),
    )
