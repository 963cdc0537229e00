"""A service without a model, for the tests of HTTP: the signatures and errors of the real one, answers that are known beforehand.

23 items "i00" ... "i22"; item n has score -n. The next slate of a user begins with what the user chose last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from shortlist.errors import BadRequestError, NotFoundError, UnavailableError
from shortlist.serve.messages import Accepted, Event, Id, RecommendRequest, Reloaded, SimilarRequest, Slate

ITEMS = 23


class SmallService:
    """Answers at once, or after `seconds`; raises `fault` where one is set."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.fault: Exception | None = None
        self.rows: dict[Id, dict[str, Any]] = {f"i{row:02d}": {"item_id": f"i{row:02d}", "price": row / 2} for row in range(ITEMS)}
        self.events: list[Event] = []
        self.version, self.previous = "v000001", None
        self.threads: set[str] = set()  # where work was done
        self.closed = False
        self.is_pressed: Callable[[], bool] | None = None
        self._lock = threading.Lock()

    def recommend(self, request: RecommendRequest) -> Slate:
        self._work()
        if request.k == 13:
            raise BadRequestError("k must not be 13: got 13; this service is superstitious")
        chosen = [event.item for event in reversed(self.events) if event.user == request.user and request.user is not None]
        denied = {*request.filters.deny}
        items = [item for item in dict.fromkeys([*chosen, *self.rows]) if item not in denied][: request.k]
        unknown = sum(item not in self.rows for item in (request.history or []))
        return Slate(
            version=self.version,
            items=items,
            scores=[-float(place) for place in range(len(items))],
            sources=["learned"] * len(items),
            unknown=unknown,
        )

    def recommend_batch(self, requests: list[RecommendRequest]) -> list[Slate]:
        return [self.recommend(request) for request in requests]

    def similar(self, request: SimilarRequest) -> Slate:
        if request.item not in self.rows:
            raise NotFoundError("the item must be one of this version: got an unknown id")
        return self.recommend(RecommendRequest(k=request.k))

    def record_events(self, events: list[Event]) -> int:
        self._work()
        with self._lock:
            known = {event.id for event in self.events if event.id is not None}
            self.events += [event for event in events if event.id is None or event.id not in known]
        return len(events)

    def forget_user(self, user: Id) -> int:
        with self._lock:
            kept = [event for event in self.events if event.user != user]
            deleted, self.events = len(self.events) - len(kept), kept
        return deleted

    def put_items(self, rows: list[dict[str, Any]]) -> Accepted:
        self._work()
        for place, row in enumerate(rows):
            if not isinstance(row.get("item_id"), (str, int)):
                raise BadRequestError(f"items[{place}] must have an item_id: got none")
        self.rows |= {row["item_id"]: row for row in rows}
        return Accepted(accepted=len(rows), version=self.version)

    def delete_items(self, ids: list[Id]) -> Accepted:
        self._work()
        for item_id in ids:
            self.rows.pop(item_id, None)
        return Accepted(accepted=len(ids), version=self.version)

    def item(self, item_id: Id) -> dict[str, Any]:
        if item_id not in self.rows:
            raise NotFoundError("the item must be one of this version: got an unknown id")
        return self.rows[item_id]

    def reload(self) -> Reloaded:
        self._work()
        self.version, self.previous = "v000002", self.version
        return Reloaded(version=self.version, previous=self.previous, changed=True)

    def rollback(self) -> Reloaded:
        if self.previous is None:
            raise UnavailableError("there must be a version before this one: got none")
        self.version, self.previous = self.previous, self.version
        return Reloaded(version=self.version, previous=self.previous, changed=True)

    def yield_to(self, is_pressed: Callable[[], bool]) -> None:
        self.is_pressed = is_pressed

    def facts(self) -> dict[str, Any]:
        return {"version": self.version, "items": len(self.rows)}

    def close(self) -> None:
        self.closed = True

    def _work(self) -> None:
        self.threads.add(threading.current_thread().name.split("_")[0])
        if self.seconds:
            time.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault
