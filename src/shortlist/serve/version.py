"""A published version made ready for requests. Nothing in it changes; a request keeps the one it began with to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shortlist.array_files import give_back
from shortlist.bundle import Bundle, open_bundle
from shortlist.index.contract import Eligible
from shortlist.pace import step
from shortlist.serve.admission import Admitted
from shortlist.serve.ids import Id, IdTable, open_ids
from shortlist.serve.overlay import Floats, Overlay, Rows, empty_overlay
from shortlist.serve.popular import popular_order
from shortlist.serve.predicates import PredicateMasks
from shortlist.serve.query_path import PublishedHistories, QueryPath, plain, published_histories


class QueryVector(NamedTuple):
    """A vector and the version whose query tower made it: it means nothing in another."""

    version: LiveVersion
    values: Floats  # (1, S)


@dataclass(frozen=True, eq=False)
class LiveVersion:
    """One version: towers, item vectors, index, ids, histories and masks that were made together."""

    name: str
    bundle: Bundle
    item_ids: IdTable
    user_ids: IdTable | None
    histories: PublishedHistories | None
    path: QueryPath
    masks: PredicateMasks[Eligible]
    popular: Rows  # (M,) sealed rows, most chosen first
    popularity: Floats  # (M,) choices of each
    trained_until: float | None  # the last event that training saw, in seconds since 1970
    embeddings: Floats  # (M, D or D + m + 1), as the bundle's
    vectors: Floats  # (M, S)

    def rows_of(self, overlay: Overlay, ids: Sequence[Id]) -> Rows:
        """(n,) rows of ids in sealed index or overlay, -1 = unknown or withdrawn; a changed item is where it was changed to.

        Raises BadRequestError for ids of another type than the version's.
        """
        rows = self.item_ids.rows_of(ids)
        if len(overlay.hidden):
            rows[~overlay.alive[rows]] = -1  # row -1 reads the last entry, and stays -1
        if overlay.slots:
            for place, item_id in enumerate(ids):
                slot = overlay.slots.get(item_id)
                if slot is not None:
                    rows[place] = overlay.sealed + slot
        return rows

    def rows_now(self, overlay: Overlay, sealed_rows: Rows) -> Rows:
        """The rows where these sealed items are now: a changed one in the overlay, a withdrawn one left out."""
        if not len(overlay.hidden) or overlay.alive[sealed_rows].all():
            return sealed_rows
        rows = self.rows_of(overlay, self.item_ids.ids_of(sealed_rows))
        return rows[rows >= 0]

    def embeddings_of(self, overlay: Overlay, rows: Rows) -> Floats:
        """(n, D or D + m + 1) what queries see of the items at `rows`, none of them -1."""
        if not len(overlay.ids):
            return self.embeddings.take(rows, axis=0)
        is_slot = rows >= overlay.sealed
        found = self.embeddings[np.where(is_slot, 0, rows)]
        found[is_slot] = overlay.embeddings[rows[is_slot] - overlay.sealed]
        return found

    def search(self, query: QueryVector, k: int, admitted: Admitted) -> tuple[Rows, Floats]:
        """(rows, scores) of the best k admitted sealed rows, fewer where fewer are admitted; best first, ties by row.

        The query must have been made by this version.
        """
        assert query.version is self, "a query vector must be searched in the version that made it"
        index = self.bundle.index
        excluded = admitted.excluded if len(admitted.excluded) else None
        rows, scores = index.search_one(query.values[0], min(k, index.size), exclude=excluded, eligible=admitted.sealed)
        if rows[-1] >= 0:
            return rows, scores
        found = int(np.count_nonzero(rows >= 0))  # what is missing stands at the end
        return rows[:found], scores[:found]

    def empty_overlay(self) -> Overlay:
        """Nothing changed yet."""
        return empty_overlay(self.bundle.items.frame, self.embeddings.shape[1], self.vectors.shape[1])


def open_version(folder: Path, *, predicate_cache_bytes: int) -> LiveVersion:
    """The version in `folder`, every file verified. Raises BundleError naming the file that does not fit."""
    bundle = open_bundle(folder)
    step()
    popularity, popular = popular_order(bundle)
    if bundle.popularity is not None:
        give_back(bundle.popularity)
    step()
    return LiveVersion(
        name=bundle.name,
        bundle=bundle,
        item_ids=open_ids(bundle.items.ids, "item"),
        user_ids=None if bundle.users is None else open_ids(bundle.users.ids, "user"),
        histories=published_histories(bundle),
        path=QueryPath(bundle),
        masks=PredicateMasks(bundle.items.frame, predicate_cache_bytes, make=bundle.index.prepare, size_bytes=_size_bytes),
        popular=popular,
        popularity=popularity,
        trained_until=_seconds_of(bundle.facts.get("trained_on", {}).get("last_time")),
        embeddings=plain(bundle.embeddings),
        vectors=plain(bundle.vectors),
    )


def _seconds_of(text: Any) -> float | None:
    """An instant as ISO 8601 text in seconds since 1970; None for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _size_bytes(eligible: Eligible) -> int:
    gathered = 0 if eligible.gathered is None else len(eligible) * eligible.index.dim * 4
    penalty = 0 if eligible.penalty is None else eligible.penalty.nbytes
    return eligible.mask.nbytes + eligible.rows.nbytes + penalty + gathered
