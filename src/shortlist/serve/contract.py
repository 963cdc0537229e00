"""What HTTP asks of a service, and nothing more: `service.py` is one, the tests bring another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shortlist.serve.messages import Accepted, Event, Id, RecommendRequest, Reloaded, SimilarRequest, Slate


class ServiceContract(Protocol):
    """Requests in, answers out; called from several threads at once.

    Raises BadRequestError for requests that cannot be meant, NotFoundError for what is not there, UnavailableError where
    a later try may succeed.
    """

    def recommend(self, request: RecommendRequest) -> Slate:
        """The best items for one query."""
        ...

    def recommend_batch(self, requests: list[RecommendRequest]) -> list[Slate]:
        """The same for several queries, by one version."""
        ...

    def similar(self, request: SimilarRequest) -> Slate:
        """The items most like one item."""
        ...

    def record_events(self, events: list[Event]) -> int:
        """How many events are on disk, repeated ones included."""
        ...

    def forget_user(self, user: Id) -> int:
        """How many events of the user were deleted."""
        ...

    def put_items(self, rows: list[dict[str, Any]]) -> Accepted:
        """New or changed items, on disk."""
        ...

    def delete_items(self, ids: list[Id]) -> Accepted:
        """Withdrawn items, on disk; an item that is not there is withdrawn already."""
        ...

    def item(self, item_id: Id) -> dict[str, Any]:
        """The columns of one item."""
        ...

    def reload(self) -> Reloaded:
        """Switches to the store's live version."""
        ...

    def rollback(self) -> Reloaded:
        """Switches back to the version before."""
        ...

    def yield_to(self, is_pressed: Callable[[], bool]) -> None:
        """From now on, work beside requests rests longer while `is_pressed`, safe to call from any thread, says that requests wait."""
        ...

    def facts(self) -> dict[str, Any]:
        """What is served, with `version`; numbers become metrics."""
        ...

    def close(self) -> None:
        """Gives up files and threads."""
        ...
