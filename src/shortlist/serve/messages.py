"""What goes into the service and comes out: the one vocabulary of service.py, app.py and client.py.

Strict: unknown fields and wrong types are refused where they enter. Ids are strings or integers and come back as they came.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

LARGEST_K = 1_000
LONGEST_HISTORY = 200
LONGEST_LIST = 10_000  # of an allow or deny list
LARGEST_BATCH = 256
MOST_PREDICATES = 32
LONGEST_ID = 512

Id = Annotated[str, msgspec.Meta(max_length=LONGEST_ID)] | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
K = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_K)]
Ids = Annotated[list[Id], msgspec.Meta(max_length=LONGEST_LIST)]
Value = str | int | float | bool


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all messages share."""


class Predicate(Message, frozen=True):
    """A condition on one column of the items table. All fields that are named must hold; a missing value never does.

    For a list column, `any_of` asks for a common element.
    """

    column: Annotated[str, msgspec.Meta(max_length=LONGEST_ID)]
    any_of: Annotated[list[Value], msgspec.Meta(min_length=1, max_length=LONGEST_LIST)] | None = None
    none_of: Annotated[list[Value], msgspec.Meta(min_length=1, max_length=LONGEST_LIST)] | None = None
    at_least: float | None = None
    at_most: float | None = None


class Filters(Message, frozen=True):
    """Which items may be retrieved. k items come back whenever k are eligible."""

    allow: Ids | None = None  # only these
    deny: Ids = []
    exclude_seen: bool = False  # leave out the query's seed and history
    where: Annotated[list[Predicate], msgspec.Meta(max_length=MOST_PREDICATES)] = []


class RecommendRequest(Message, frozen=True):
    """One query: any part of it may be missing. Without a history, the user's own events are taken."""

    user: Id | None = None
    seed: Id | None = None
    history: Annotated[list[Id], msgspec.Meta(max_length=LONGEST_HISTORY)] | None = None  # oldest first
    context: dict[str, Value | list[Value] | None] = {}
    k: K = 100
    filters: Filters = Filters()


class RecommendBatch(Message, frozen=True):
    """Several queries, answered by one version."""

    requests: Annotated[list[RecommendRequest], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class SimilarRequest(Message, frozen=True):
    """Items like one item, by the inner product of item vectors without their popularity."""

    item: Id
    k: K = 100
    filters: Filters = Filters()


class Slate(Message, frozen=True, omit_defaults=False):
    """An answer: items best first, each with its score; and who answered.

    degraded   why parts of the answer are missing or come from a fallback; empty = all is well
    coverage   the share of the sources that answered
    """

    version: str
    items: list[Id]
    scores: list[float]
    sources: list[str]  # what each item came from: "learned", "fresh", "popular"
    degraded: list[str] = []
    coverage: float = 1.0
    unknown: int = 0  # ids of the request (seed, history) that this version does not know


class SlateBatch(Message, frozen=True, omit_defaults=False):
    """Answers in the order of the requests."""

    slates: list[Slate]


class Event(Message, frozen=True):
    """What a user just chose. `time` is in seconds since 1970 (absent: now); `id` makes a repeated send harmless."""

    user: Id
    item: Id
    time: float | None = None
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | None = None


class EventBatch(Message, frozen=True):
    """Events, oldest first."""

    events: Annotated[list[Event], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class ForgetRequest(Message, frozen=True):
    """Whose events are to be deleted."""

    user: Id


class Forgotten(Message, frozen=True, omit_defaults=False):
    """How many events of the user were deleted. What was published of the user does not count any more either."""

    events: int


class ItemBatch(Message, frozen=True):
    """New or changed items: rows of the items table, its id column included."""

    items: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class ItemIds(Message, frozen=True):
    """Items to withdraw."""

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class Accepted(Message, frozen=True, omit_defaults=False):
    """A write that is on disk: it survives a crash, and the next request sees it."""

    accepted: int
    version: str


class Reloaded(Message, frozen=True, omit_defaults=False):
    """What a reload or a rollback did."""

    version: str
    previous: str | None
    changed: bool


class State(Message, frozen=True, omit_defaults=False):
    """How the server is: "starting", "ready", "draining" or "failed"; and the version that answers.

    problems   what somebody should see to, though it answers: "refused" (a version), "journal", "recall" (the index's), "watcher", "canary"
    """

    state: str
    version: str | None = None
    problems: list[str] = []


class Problem(Message, frozen=True, omit_defaults=False):
    """An error, for people and machines."""

    error: str  # one word: "bad_request", "not_found", "unauthorized", "overloaded", ...
    message: str
    request_id: str
