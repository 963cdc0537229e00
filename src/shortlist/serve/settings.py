"""How a service runs: where its events are, how long it waits for what, how much it holds. Frozen, strict, with defaults that work."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of `Service.open`. Times are in seconds."""

    events: str | None = None  # database URL, e.g. postgresql+psycopg://host/name; absent: STORE/events.sqlite
    events_read: Count = 200  # newest events of a user that a query may see
    events_deadline_s: Seconds = 0.02  # reading them; later the query goes on without, and says so
    events_write_s: Seconds = 5.0  # storing events; later they are refused
    user_key: str | None = None  # file with the secret under which user ids are stored; absent: STORE/user.key, made when missing

    learned_deadline_s: Seconds = 0.05  # query tower and index
    fresh_deadline_s: Seconds = 0.02  # the overlay of new items
    isolate_sources: bool = False  # learned and fresh on threads of their own from the first request: even a first hang is cut
    breaker_failures: Count = 5  # so many failures in a row switch a source off
    breaker_s: Seconds = 5.0  # until it is tried again

    overlay_items: Count = 10_000  # new and changed items that wait for compaction; more are refused
    journal_bytes: Count = 256 << 20  # of writes that wait for compaction; more are refused
    predicate_cache_bytes: Count = 64 << 20  # masks of attribute predicates

    canary_recall: Share | None = None  # of a version's index against exact search, below which it is refused; absent: its own target - .02
    canary_queries: Count = 200  # at least, where there are as many
    canary_k: Count = 100
    canary_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0  # how often the live index is judged by the queries of late; 0: never
    canary_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05  # of one core, that judging takes
    warm_queries: Count = 256  # recent requests that a new version is warmed with
    load_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2  # of one core, that loading a version beside the live one takes
    watch_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # how often CURRENT is looked at; 0: only `reload` switches
    keep_versions: Count = 3  # that compaction leaves in the store, for rolling back
