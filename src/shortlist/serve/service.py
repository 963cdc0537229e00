"""Request -> slate, in process: the whole service without HTTP. app.py puts it on the network."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlist.errors import ShortlistError
from shortlist.serve.answering import Answering
from shortlist.serve.events import EventStore, sqlite_url
from shortlist.serve.ids import Id
from shortlist.serve.journal import Journal
from shortlist.serve.live import Live
from shortlist.serve.messages import Accepted, Event, RecommendRequest, Reloaded, SimilarRequest, Slate
from shortlist.serve.settings import ServeSettings
from shortlist.serve.user_keys import open_user_keys

JOURNAL, EVENTS, USER_KEY = "journal", "events.sqlite", "user.key"


class Service:
    """A store's live version, answering. Safe to call from several threads."""

    def __init__(self, store: Path, settings: ServeSettings) -> None:
        """Raises BundleError where no version is live or it is refused; ConfigError for settings that cannot be."""
        self._settings = settings
        self._recent: deque[RecommendRequest] = deque(maxlen=settings.warm_queries)
        keys = open_user_keys(Path(settings.user_key) if settings.user_key else store / USER_KEY)
        self._live = Live(store, settings, _journal(store / JOURNAL), lambda: list(self._recent))
        self._events = EventStore(settings.events or sqlite_url(store / EVENTS), keys, write_s=settings.events_write_s)
        self._answering = Answering(settings, self._events)
        self._closing = threading.Event()
        self._faults: dict[str, str | None] = {"watcher": None, "canary": None}
        self._threads = [
            threading.Thread(target=self._repeat, args=(name, every_s, work), name=name, daemon=True)
            for name, every_s, work in (
                ("watcher", settings.watch_s, self._live.watch_once),
                ("canary", settings.canary_s, self._live.judge),
            )
            if every_s
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, store: Path, settings: ServeSettings) -> Service:
        """The service over the live version of `store`. Raises as the constructor."""
        return cls(store, settings)

    def recommend(self, request: RecommendRequest) -> Slate:
        """The answer to one query. Raises BadRequestError for what the live version cannot mean."""
        self._recent.append(request)
        return self._answering.recommend(self._live.pinned, request)

    def recommend_batch(self, requests: list[RecommendRequest]) -> list[Slate]:
        """The answers in order, all by one version, each as if it had been asked alone."""
        pinned = self._live.pinned
        return [self._answering.recommend(pinned, request) for request in requests]

    def similar(self, request: SimilarRequest) -> Slate:
        """Items like one item, that item left out. Raises NotFoundError for an unknown or withdrawn item, BadRequestError."""
        return self._answering.similar(self._live.pinned, request)

    def record_events(self, events: list[Event]) -> int:
        """How many events are on disk: all, repeated ones once. The next request of their users sees them.

        Raises BadRequestError for a time or an id that cannot be; UnavailableError where the database does not take them in time.
        """
        self._events.record(events)
        return len(events)

    def forget_user(self, user: Id) -> int:
        """How many events of the user were deleted; the published history does not count any more either. Raises UnavailableError."""
        return self._events.forget(user)

    def put_items(self, rows: list[dict[str, Any]]) -> Accepted:
        """The items, new or changed, can be retrieved by the next request, and survive a crash.

        rows     whole rows of the items table; a column that is not named is missing
        Raises   BadRequestError for rows that do not fit; UnavailableError where no more can be held before compaction
        """
        return self._live.put(rows)

    def delete_items(self, ids: list[Id]) -> Accepted:
        """No source retrieves the items any more, from the next request on, and after a crash. Unknown ids are no matter."""
        return self._live.delete(ids)

    def item(self, id: Id) -> dict[str, Any]:
        """The item's row of the items table, as published or last put. Raises NotFoundError for an unknown or withdrawn item."""
        pinned = self._live.pinned
        row = pinned.row_of(id)
        if row >= pinned.overlay.sealed:
            return pinned.overlay.frame.row(row - pinned.overlay.sealed, named=True)
        return pinned.version.bundle.items.frame.row(row, named=True)

    def reload(self) -> Reloaded:
        """The store's CURRENT is live, loaded and judged beside the old one. Raises UnavailableError where it is refused."""
        return self._live.reload()

    def rollback(self) -> Reloaded:
        """The version before the live one is live again, and CURRENT. Raises NotFoundError where there is none; UnavailableError."""
        return self._live.roll_back()

    def compact(self) -> Reloaded:
        """A new version holds what was put and withdrawn, and is live. Raises UnavailableError."""
        return self._live.compact()

    def yield_to(self, is_pressed: Callable[[], bool]) -> None:
        """Loading and judging versions rests longer while `is_pressed` says that requests wait."""
        self._live.is_pressed = is_pressed

    def facts(self) -> dict[str, Any]:
        """Gauges: what is live, how full it is, and of each of the `sources` its numbers; and `problems`, in words."""
        live, pinned = self._live, self._live.pinned
        overlay = pinned.overlay
        facts: dict[str, Any] = {
            "version": pinned.version.name,
            "index_kind": pinned.version.bundle.index.kind,
            "index_compiled": pinned.version.bundle.index.is_compiled,
            "index_recall": live.recall,
            "index_recall_low": live.is_recall_low,
            "items": overlay.sealed - len(overlay.hidden) + len(overlay),
            "overlay_items": len(overlay),
            "overlay_limit": self._settings.overlay_items,
            "tombstones": len(overlay.hidden),
            "journal_bytes": live.journal_bytes,
            "journal_faulty": live.fault is not None,
            "left_out_items": live.left_out,
            "switches": live.switches,
            "refusals": live.refusals,
        }
        facts["sources"] = {
            guard.name: {"calls": guard.calls, "failed": guard.failed, "late": guard.late, "resting": guard.is_resting}
            for guard in (self._answering.learned, self._answering.fresh, self._answering.events)
        }
        low = f"recall@{self._settings.canary_k} of the index is {live.recall:.4f}" if live.is_recall_low else None
        return {**facts, "problems": {"refused": live.refused, "journal": live.fault, "recall": low, **self._faults}}

    def close(self) -> None:
        """Nothing comes back: threads and connections end."""
        self._closing.set()
        self._live.hurry()
        for thread in self._threads:
            thread.join()
        self._answering.close()
        self._events.close()
        self._live.close()

    def _repeat(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        while not self._closing.wait(every_s):
            try:
                work()
                self._faults[name] = None
            except ShortlistError as error:  # a refusal, or a store that cannot be read now
                self._faults[name] = str(error)
            except Exception as error:  # the thread must outlive what nobody thought of
                self._faults[name] = f"{type(error).__name__}: {error}"


def _journal(path: Path) -> Journal | None:
    """The journal; None where the store cannot be written to. Raises BundleError for a damaged one."""
    try:
        return Journal(path)
    except PermissionError:
        return None
    except OSError as error:
        if error.errno == errno.EROFS:
            return None
        raise
