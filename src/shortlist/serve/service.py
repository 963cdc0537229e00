"""Request -> slate, in process: the whole service without HTTP. app.py puts it on the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlist.serve.answering import Answering, Pinned
from shortlist.serve.events import EventStore
from shortlist.serve.ids import Id
from shortlist.serve.messages import Event, RecommendRequest, SimilarRequest, Slate
from shortlist.serve.settings import ServeSettings
from shortlist.serve.user_keys import open_user_keys
from shortlist.serve.version import open_version
from shortlist.store import current_version


class Service:
    """A store's live version, answering. Safe to call from several threads."""

    def __init__(self, store: Path, settings: ServeSettings, pinned: Pinned, events: EventStore) -> None:
        self._store, self._settings, self._pinned, self._events = store, settings, pinned, events
        self._answering = Answering(settings, events)

    @classmethod
    def open(cls, store: Path, settings: ServeSettings) -> Service:
        """The service over the live version of `store`. Raises BundleError where there is none, or where it is damaged."""
        version = open_version(current_version(store), predicate_cache_bytes=settings.predicate_cache_bytes)
        keys = open_user_keys(Path(settings.user_key) if settings.user_key else store / "user.key")
        events = EventStore(settings.events or f"sqlite:///{store / 'events.sqlite'}", keys, write_s=settings.events_write_s)
        return cls(store, settings, Pinned.of(version, version.empty_overlay()), events)

    def recommend(self, request: RecommendRequest) -> Slate:
        """The answer to one query. Raises BadRequestError for what the live version cannot mean."""
        return self._answering.recommend(self._pinned, request)

    def recommend_batch(self, requests: list[RecommendRequest]) -> list[Slate]:
        """The answers in order, all by one version, each as if it had been asked alone."""
        pinned = self._pinned
        return [self._answering.recommend(pinned, request) for request in requests]

    def similar(self, request: SimilarRequest) -> Slate:
        """Items like one item, that item left out. Raises NotFoundError for an unknown or withdrawn item, BadRequestError."""
        return self._answering.similar(self._pinned, request)

    def record_events(self, events: list[Event]) -> int:
        """How many of the events are new. They are on disk, and the next request of their users sees them.

        Raises BadRequestError for a time or an id that cannot be; UnavailableError where the database does not take them in time.
        """
        return self._events.record(events)

    def forget_user(self, user: Id) -> int:
        """How many events of the user were deleted; the published history does not count any more either. Raises UnavailableError."""
        return self._events.forget(user)

    def item(self, id: Id) -> dict[str, Any]:
        """The item's row of the items table, as published or last put. Raises NotFoundError for an unknown or withdrawn item."""
        pinned = self._pinned
        row = pinned.row_of(id)
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
        """Nothing comes back: threads and connections end."""
        self._answering.close()
        self._events.close()
