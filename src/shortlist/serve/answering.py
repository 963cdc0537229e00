"""Request -> slate over one pinned version: understand, retrieve from every source, merge, name. Knows no store and no swap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from shortlist.errors import NotFoundError
from shortlist.features.content_codes import unit_length
from shortlist.serve.admission import Admission, Admitted
from shortlist.serve.events import EventStore
from shortlist.serve.guard import Guard, SourceDown
from shortlist.serve.history import known_history
from shortlist.serve.ids import Id
from shortlist.serve.messages import RecommendRequest, SimilarRequest, Slate
from shortlist.serve.overlay import Floats, Overlay, Rows
from shortlist.serve.popular import most_popular
from shortlist.serve.query_path import NO_ROWS
from shortlist.serve.settings import ServeSettings
from shortlist.serve.version import LiveVersion, QueryVector


@dataclass(frozen=True, eq=False)
class Pinned:
    """What one request sees from its beginning to its end."""

    version: LiveVersion
    overlay: Overlay
    admission: Admission

    @classmethod
    def of(cls, version: LiveVersion, overlay: Overlay) -> Pinned:
        """The version with what changed since it was sealed."""
        return cls(version, overlay, Admission(overlay, version.bundle.index, version.masks, partial(version.rows_of, overlay)))

    def row_of(self, item_id: Id) -> int:
        """The row of an item that can be retrieved. Raises NotFoundError for an unknown or withdrawn one."""
        row = int(self.version.rows_of(self.overlay, [item_id])[0])
        if row < 0:
            raise NotFoundError(f"the item must be one of version {self.version.name}: it is unknown or was withdrawn")
        return row


class Query(NamedTuple):
    """What a request comes to in rows. Nothing in it can fail any more but the sources."""

    seed: Rows  # (0 or 1,) -1 = unknown
    looked_at: Rows  # (0 or 1,) the seed that the tower sees
    history: Rows  # oldest first
    user_row: int
    context: list[Floats]
    unknown: int


class Answering:
    """The sources and how they come together. Safe to use from several threads.

    learned   the query tower and the sealed index
    fresh     the overlay, by the same query vector
    popular   what most chose: stands in for learned
    events    what the user just did: not a list of items, but a part of the query that can be missing
    """

    def __init__(self, settings: ServeSettings, events: EventStore | None) -> None:
        guard = partial(Guard, failures=settings.breaker_failures, rest_s=settings.breaker_s)
        self.learned = guard("learned", settings.learned_deadline_s, is_trusted=not settings.isolate_sources)
        self.fresh = guard("fresh", settings.fresh_deadline_s, is_trusted=not settings.isolate_sources)
        self.events = guard("events", settings.events_deadline_s)
        self._store, self._events_read = events, settings.events_read

    def close(self) -> None:
        """Nothing comes back."""
        for guard in (self.learned, self.fresh, self.events):
            guard.close()

    def recommend(self, pinned: Pinned, request: RecommendRequest) -> Slate:
        """The answer to one query. Raises BadRequestError for what the version cannot mean."""
        degraded: list[str] = []
        query = self.understood(pinned, request, degraded)
        seen = np.concatenate([query.history, query.seed]) if request.filters.exclude_seen else NO_ROWS
        admitted = pinned.admission.of(request.filters, seen)
        asked = 2 + (request.history is None and request.user is not None and self._store is not None)
        found = self._retrieved(pinned, partial(encoded, pinned, query), admitted, request.k, degraded)
        return _slate(pinned, *found, degraded, asked, query.unknown)

    def similar(self, pinned: Pinned, request: SimilarRequest) -> Slate:
        """Items like one item, that item left out. Raises NotFoundError for an unknown or withdrawn item, BadRequestError."""
        degraded: list[str] = []
        row = pinned.row_of(request.item)
        admitted = pinned.admission.of(request.filters, np.array([row], np.int64))
        found = self._retrieved(pinned, partial(like, pinned, row), admitted, request.k, degraded)
        return _slate(pinned, *found, degraded, 2, 0)

    def understood(self, pinned: Pinned, request: RecommendRequest, degraded: list[str]) -> Query:
        """The request in rows; where its user's events cannot be had, `degraded` says so. Raises BadRequestError."""
        version, overlay, path = pinned.version, pinned.overlay, pinned.version.path
        context = path.read_context(request.context)
        user_row = -1 if request.user is None or version.user_ids is None else version.user_ids.row_of(request.user)
        seed = NO_ROWS if request.seed is None else version.rows_of(overlay, [request.seed])
        if request.history is not None:
            named = version.rows_of(overlay, request.history)
            history = named[named >= 0]
            unknown = len(named) - len(history)
        else:
            history, unknown = self._history(pinned, request, degraded), 0
        if request.seed is None:
            looked_at = history[-1:]  # as in training
        else:
            looked_at, unknown = seed[seed >= 0], unknown + int(seed[0] < 0)
        return Query(seed, looked_at, history, user_row, context, unknown)

    def _history(self, pinned: Pinned, request: RecommendRequest, degraded: list[str]) -> Rows:
        published, user = pinned.version.histories, request.user
        if published is not None and published.asked_by == "seed":  # what else was chosen by who looked at it; not what one user did
            return NO_ROWS if request.seed is None else known_history(pinned.version, pinned.overlay, request.seed, None)
        if user is None:
            return NO_ROWS
        if self._store is not None:
            try:
                return self.events.call(partial(self._history_with_events, self._store, pinned, user))
            except SourceDown as down:
                degraded.append(str(down))
        return known_history(pinned.version, pinned.overlay, user, None)

    def _history_with_events(self, store: EventStore, pinned: Pinned, user: Id) -> Rows:
        return known_history(pinned.version, pinned.overlay, user, store.newest(user, self._events_read))

    def _retrieved(
        self, pinned: Pinned, vector: partial[QueryVector], admitted: Admitted, k: int, degraded: list[str]
    ) -> tuple[Rows, Floats, str]:
        """(rows, scores, what the sealed rows came from); a source that does not answer is named in `degraded`."""
        overlay = pinned.overlay
        try:
            query, rows, scores = self.learned.call(partial(searched, pinned, vector, admitted, k))
        except SourceDown as down:
            degraded.append(str(down))
            return *most_popular(pinned.version.popular, pinned.version.popularity, overlay, admitted, k), "popular"
        if overlay.slots:
            least = float(scores[-1]) if len(rows) == k else -np.inf
            try:
                slots, fresh = self.fresh.call(partial(searched_overlay, overlay, query, admitted, k, least))
                rows, scores = merged(rows, scores, slots, fresh, overlay, k)
            except SourceDown as down:
                degraded.append(str(down))
        return rows, scores, "learned"


def encoded(pinned: Pinned, query: Query) -> QueryVector:
    """The query's vector."""
    version, overlay, path = pinned.version, pinned.overlay, pinned.version.path
    seed = version.embeddings_of(overlay, query.looked_at)[0] if path.has_seed and len(query.looked_at) else None
    newest = query.history[::-1][: path.history_last]
    return QueryVector(version, path.vector(seed, version.embeddings_of(overlay, newest), query.user_row, query.context))


def like(pinned: Pinned, row: int) -> QueryVector:
    """The vector of an item as a query, its popularity left out; by words it matches as what a query shows does."""
    version, overlay, dim = pinned.version, pinned.overlay, pinned.version.bundle.dim
    vectors, place = (version.vectors, row) if row < overlay.sealed else (overlay.vectors, row - overlay.sealed)
    vector = vectors[place : place + 1].copy()
    vector[0, dim:] = 0  # the bias, where there is one, and the content code as an item has it
    seen = version.embeddings_of(overlay, np.array([row]))
    if seen.shape[1] > dim:
        vector[0, dim + 1 :] = unit_length(seen[:, dim:-1])[0]
    return QueryVector(version, vector)


def searched(pinned: Pinned, vector: partial[QueryVector], admitted: Admitted, k: int) -> tuple[QueryVector, Rows, Floats]:
    """(the query's vector, sealed rows, their scores). Raises ValueError for an answer that cannot be."""
    query = vector()
    rows, scores = pinned.version.search(query, k, admitted)
    _check(rows, scores, k, pinned.overlay.sealed)
    return query, rows, scores


def searched_overlay(overlay: Overlay, query: QueryVector, admitted: Admitted, k: int, least: float) -> tuple[Rows, Floats]:
    """(slots, their scores) that reach the score `least`. Raises ValueError for an answer that cannot be."""
    slots, scores = overlay.search(query.values, k, admitted.slots, least)
    _check(slots, scores, k, len(overlay.ids))
    return slots, scores


def _check(rows: Rows, scores: Floats, k: int, size: int) -> None:
    """Raises ValueError unless these are at most k of `size` rows with finite scores."""
    if len(rows) > k or len(rows) != len(scores) or not math.isfinite(np.add.reduce(scores, dtype=np.float64)):  # finite if all are
        raise ValueError("a source must answer with at most k rows and as many finite scores")
    if len(rows) and rows.view(np.uint64).max() >= size:  # as such, rows below 0 are beyond any size
        raise ValueError("a source must answer with rows that are there")


def merged(rows: Rows, scores: Floats, slots: Rows, fresh: Floats, overlay: Overlay, k: int) -> tuple[Rows, Floats]:
    """(rows, scores) of the best k of both lists, each best first; ties by id, as in an index that holds both."""
    if not len(slots):
        return rows, scores
    both = np.concatenate([slots + overlay.sealed, rows])  # slots first: a stable sort leaves equal places in their order, by id
    found = np.concatenate([fresh, scores])
    places = np.concatenate([2 * overlay.places[slots], 2 * rows + 1])
    order = np.lexsort((places, -found))[:k]
    return both[order], found[order]


def _slate(pinned: Pinned, rows: Rows, scores: Floats, source: str, degraded: list[str], asked: int, unknown: int) -> Slate:
    version, overlay = pinned.version, pinned.overlay
    sources = [source] * len(rows)
    if not len(overlay.ids) or not (is_slot := rows >= overlay.sealed).any():
        items = version.item_ids.ids_of(rows)
    else:
        items = version.item_ids.ids_of(np.where(is_slot, 0, rows))
        for place in np.flatnonzero(is_slot):
            items[place] = overlay.ids[rows[place] - overlay.sealed]
            sources[place] = "fresh"
    return Slate(
        version=version.name,
        items=items,
        scores=scores.tolist(),
        sources=sources,
        degraded=degraded,
        coverage=1 - len(degraded) / asked,
        unknown=unknown,
    )
