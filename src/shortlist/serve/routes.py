"""The routes in one table: app, metrics and the OpenAPI document read it, none keeps a copy.

An id in a path is text, percent-encoded UTF-8. Where the store's ids are integers, a whole number written in the usual way
(`17`, `-3`) is one; every other text is a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shortlist.errors import BadRequestError, NotFoundError
from shortlist.serve.contract import ServiceContract
from shortlist.serve.keys import Role
from shortlist.serve.messages import (
    Accepted,
    EventBatch,
    ForgetRequest,
    Forgotten,
    Id,
    ItemBatch,
    ItemIds,
    RecommendBatch,
    RecommendRequest,
    Reloaded,
    SimilarRequest,
    Slate,
    SlateBatch,
    State,
)

ITEM_PATH = "/items/"
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class Lane(Enum):
    """Where a route's work is done. Lanes wait for themselves only: a slow write delays no answer."""

    HERE = "here"  # at once, by the app itself
    ANSWERS = "answers"  # on the event loop, one at a time; in threads where answers are slow
    READS = "reads"  # in threads: what may take long
    WRITES = "writes"  # in threads: a write returns when it is on disk
    ADMIN = "admin"  # in a thread


@dataclass(frozen=True, eq=False)  # there is one of each: itself is its key, found in a tenth of the time that its fields take
class Route:
    """One operation: what it takes, what it gives, who may ask, and the call that answers."""

    method: str
    path: str
    name: str
    summary: str
    role: Role
    lane: Lane
    takes: type | None = None
    gives: type | None = None  # None: not a message
    call: Callable[[ServiceContract, Any], Any] | None = None

    @property
    def has_id(self) -> bool:
        """Whether the path ends with an item's id."""
        return self.path.endswith("{id}")

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status this route can answer with, least first."""
        found = {200, 400, 408, 431}
        if self.role is not Role.ANYBODY:
            found |= {401, 403}
        if self.takes is not None:
            found |= {413, 415, 422}
        if self.call is not None:
            found |= {404, 422, 429, 500, 503}
        if self.name == "ready":
            found |= {503}
        return tuple(sorted(found))


def _recorded(service: ServiceContract, batch: EventBatch) -> Accepted:
    return Accepted(accepted=service.record_events(batch.events), version=service.facts()["version"])


def _item(service: ServiceContract, text: str) -> dict[str, Any]:
    return service.item(_id_of(service, text))


def _withdrawn(service: ServiceContract, text: str) -> Accepted:
    return service.delete_items([_id_of(service, text)])


def _id_of(service: ServiceContract, text: str) -> Id:
    """The id that a path names: the integer where the text is a whole number and the store knows that one, else the string."""
    if _WHOLE_NUMBER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        try:
            service.item(int(text))
        except (NotFoundError, BadRequestError):
            return text
        return int(text)
    return text


ROUTES = (
    Route(
        "POST",
        "/recommend",
        "recommend",
        "The best items for one query",
        Role.READ,
        Lane.ANSWERS,
        RecommendRequest,
        Slate,
        lambda service, request: service.recommend(request),
    ),
    Route(
        "POST",
        "/recommend/batch",
        "recommend_batch",
        "The best items for each of several queries, by one version",
        Role.READ,
        Lane.READS,
        RecommendBatch,
        SlateBatch,
        lambda service, batch: SlateBatch(slates=service.recommend_batch(batch.requests)),
    ),
    Route(
        "POST",
        "/similar",
        "similar",
        "The items most like one item",
        Role.READ,
        Lane.ANSWERS,
        SimilarRequest,
        Slate,
        lambda service, request: service.similar(request),
    ),
    Route(
        "POST",
        "/events",
        "record_events",
        "What users just chose; on disk when this answers, in the history from the next request on",
        Role.WRITE,
        Lane.WRITES,
        EventBatch,
        Accepted,
        _recorded,
    ),
    Route(
        "DELETE",
        "/users",
        "forget_user",
        "Deletes what a user chose",
        Role.WRITE,
        Lane.WRITES,
        ForgetRequest,
        Forgotten,
        lambda service, request: Forgotten(events=service.forget_user(request.user)),
    ),
    Route(
        "PUT",
        "/items",
        "put_items",
        "New or changed items; on disk when this answers, retrievable from the next request on",
        Role.WRITE,
        Lane.WRITES,
        ItemBatch,
        Accepted,
        lambda service, batch: service.put_items(batch.items),
    ),
    Route(
        "DELETE",
        "/items",
        "delete_items",
        "Withdraws items; no later answer holds one",
        Role.WRITE,
        Lane.WRITES,
        ItemIds,
        Accepted,
        lambda service, batch: service.delete_items(batch.ids),
    ),
    Route("GET", "/items/{id}", "item", "The columns of one item", Role.READ, Lane.READS, call=_item),
    Route("DELETE", "/items/{id}", "delete_item", "Withdraws one item", Role.WRITE, Lane.WRITES, gives=Accepted, call=_withdrawn),
    Route(
        "POST",
        "/admin/reload",
        "reload",
        "Switches to the store's live version",
        Role.ADMIN,
        Lane.ADMIN,
        gives=Reloaded,
        call=lambda service, _: service.reload(),
    ),
    Route(
        "POST",
        "/admin/rollback",
        "rollback",
        "Switches back to the version before",
        Role.ADMIN,
        Lane.ADMIN,
        gives=Reloaded,
        call=lambda service, _: service.rollback(),
    ),
    Route("GET", "/health", "health", "Whether the process lives", Role.ANYBODY, Lane.HERE, gives=State),
    Route("GET", "/ready", "ready", "Whether requests should be sent here", Role.ANYBODY, Lane.HERE, gives=State),
    Route("GET", "/metrics", "metrics", "Metrics in Prometheus's text format", Role.READ, Lane.HERE),
    Route("GET", "/openapi.json", "openapi", "This document", Role.ANYBODY, Lane.HERE),
)
# The routes whose room is asked for before anything else is done: they are many, and a refusal must cost little.
GATED = {(route.method, route.path.encode()): route for route in ROUTES if route.lane is Lane.ANSWERS}
