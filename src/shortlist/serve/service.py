"""Request -> slate, in process: the whole service without HTTP. app.py puts it on the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import NotFoundError
from shortlist.serve.eligibility import Eligible, eligible
from shortlist.serve.ids import Id
from shortlist.serve.messages import RecommendRequest, SimilarRequest, Slate
from shortlist.serve.overlay import Floats, Overlay, Rows
from shortlist.serve.query_path import NO_ROWS
from shortlist.serve.settings import ServeSettings
from shortlist.serve.version import LiveVersion, QueryVector, open_version
from shortlist.store import current_version


@dataclass(frozen=True, eq=False)
class Pinned:
    """What one request sees from its beginning to its end."""

    version: LiveVersion
    overlay: Overlay


@dataclass(frozen=True, eq=False)
class Asked:
    """A request in rows: what `_understood` made of it."""

    vector: QueryVector
    seen: Rows
    unknown: int


class Service:
    """A store's live version, answering. Safe to call from several threads."""

    def __init__(self, store: Path, settings: ServeSettings, version: LiveVersion) -> None:
        self._store, self._settings = store, settings
        self._pinned = Pinned(version, version.empty_overlay())

    @classmethod
    def open(cls, store: Path, settings: ServeSettings) -> Service:
        """The service over the live version of `store`. Raises BundleError where there is none, or where it is damaged."""
        version = open_version(current_version(store), predicate_cache_bytes=settings.predicate_cache_bytes)
        return cls(store, settings, version)

    def recommend(self, request: RecommendRequest) -> Slate:
        """The answer to one query. Raises BadRequestError for what the live version cannot mean."""
        return self._recommend(self._pinned, request)

    def recommend_batch(self, requests: list[RecommendRequest]) -> list[Slate]:
        """The answers in order, all by one version, each as if it had been asked alone."""
        pinned = self._pinned
        return [self._recommend(pinned, request) for request in requests]

    def similar(self, request: SimilarRequest) -> Slate:
        """Items like one item, that item left out. Raises NotFoundError for an unknown or withdrawn item."""
        pinned = self._pinned
        version, overlay = pinned.version, pinned.overlay
        row = self._row_of(pinned, request.item)
        vector = version.vectors[row : row + 1].copy() if row < overlay.sealed else overlay.vectors[row - overlay.sealed][None].copy()
        if version.bundle.config.model.item_bias:
            vector[0, -1] = 0  # the last coordinate is the item's popularity
        fits = eligible(overlay, version.masks, lambda ids: version.rows_of(overlay, ids), request.filters, np.array([row], np.int64))
        return self._slate(pinned, QueryVector(version, vector), fits, request.k, unknown=0)

    def item(self, id: Id) -> dict[str, Any]:
        """The item's row of the items table, as it was published or last put. Raises NotFoundError for an unknown or withdrawn item."""
        pinned = self._pinned
        row = self._row_of(pinned, id)
        if row >= pinned.overlay.sealed:
            return pinned.overlay.frame.row(row - pinned.overlay.sealed, named=True)
        return pinned.version.bundle.items.frame.row(row, named=True)

    def facts(self) -> dict[str, Any]:
        """Gauges: what is live, and how full it is."""
        pinned = self._pinned
        return {
            "version": pinned.version.name,
            "items": pinned.version.vectors.shape[0],
            "overlay_items": len(pinned.overlay),
            "tombstones": len(pinned.overlay.hidden),
        }

    def close(self) -> None:
        """Nothing comes back."""

    def _recommend(self, pinned: Pinned, request: RecommendRequest) -> Slate:
        version, overlay = pinned.version, pinned.overlay
        asked = self._understood(pinned, request)
        seen = asked.seen if request.filters.exclude_seen else NO_ROWS
        fits = eligible(overlay, version.masks, lambda ids: version.rows_of(overlay, ids), request.filters, seen)
        return self._slate(pinned, asked.vector, fits, request.k, unknown=asked.unknown)

    def _understood(self, pinned: Pinned, request: RecommendRequest) -> Asked:
        version, overlay, path = pinned.version, pinned.overlay, pinned.version.path
        seed_row = NO_ROWS if request.seed is None else version.rows_of(overlay, [request.seed])
        if request.history is not None:
            named = version.rows_of(overlay, request.history)
            history = named[named >= 0]
        else:
            named = NO_ROWS
            history = self._history_of(pinned, request.user)
        user_row = -1 if request.user is None or version.user_ids is None else version.user_ids.row_of(request.user)
        looked_at = seed_row if request.seed is not None else history[-1:]  # as in training
        seed = None
        if path.has_seed and len(looked_at) and looked_at[0] >= 0:
            seed = version.embeddings_of(overlay, looked_at)[0]
        newest = history[::-1][: path.history_last]
        vector = path.vector(seed, version.embeddings_of(overlay, newest), user_row, path.read_context(request.context))
        unknown = len(named) - len(history) if request.history is not None else 0
        return Asked(QueryVector(version, vector), np.concatenate([history, seed_row]), unknown + int((seed_row < 0).sum()))

    def _history_of(self, pinned: Pinned, user: Id | None) -> Rows:
        histories = pinned.version.histories
        return NO_ROWS if user is None or histories is None else histories.of(user)

    def _slate(self, pinned: Pinned, query: QueryVector, fits: Eligible, k: int, *, unknown: int) -> Slate:
        version, overlay = pinned.version, pinned.overlay
        rows, scores = version.search(query, k, fits)
        if len(overlay):
            least = float(scores[-1]) if len(rows) == k else -np.inf
            slots, fresh = overlay.search(query.values, k, fits.slots, least)
            rows, scores = merged(rows, scores, slots, fresh, overlay, k)
        items, sources = _named(version, overlay, rows)
        return Slate(version=version.name, items=items, scores=scores.tolist(), sources=sources, unknown=unknown)

    def _row_of(self, pinned: Pinned, item_id: Id) -> int:
        row = int(pinned.version.rows_of(pinned.overlay, [item_id])[0])
        hidden = pinned.overlay.hidden
        if row < 0 or (len(hidden) and bool(np.isin(row, hidden))):
            raise NotFoundError(f"the item must be one of version {pinned.version.name}: it is unknown or was withdrawn")
        return row


def merged(rows: Rows, scores: Floats, slots: Rows, fresh: Floats, overlay: Overlay, k: int) -> tuple[Rows, Floats]:
    """(rows, scores) of the best k of both lists, each best first; ties by id, as in an index that holds both."""
    if not len(slots):
        return rows, scores
    both = np.concatenate([slots + overlay.sealed, rows])  # slots first: a stable sort leaves equal places in their order, by id
    found = np.concatenate([fresh, scores])
    places = np.concatenate([2 * overlay.places[slots], 2 * rows + 1])
    order = np.lexsort((places, -found))[:k]
    return both[order], found[order]


def _named(version: LiveVersion, overlay: Overlay, rows: Rows) -> tuple[list[Id], list[str]]:
    if not len(overlay) or not (is_slot := rows >= overlay.sealed).any():
        return version.item_ids.ids_of(rows), ["learned"] * len(rows)
    ids = version.item_ids.ids_of(np.where(is_slot, 0, rows))
    sources = ["learned"] * len(rows)
    for place in np.flatnonzero(is_slot):
        ids[place], sources[place] = overlay.ids[rows[place] - overlay.sealed], "fresh"
    return ids, sources
