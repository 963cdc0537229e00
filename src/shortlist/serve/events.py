"""What users just chose, in a database: SQLite beside the store, or PostgreSQL by URL. Durable when `record` returns.

Users go by their keyed hash. The newest events of a user are read by one index range. Statements are compiled once and run on
the driver's own cursor: a read takes tens of microseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shortlist.errors import BadRequestError, ConfigError, UnavailableError
from shortlist.serve.ids import Id
from shortlist.serve.messages import Event
from shortlist.serve.user_keys import UserKeys

LATEST_S = 86_400.0  # how far ahead a clock may be
FORGOTTEN = ""  # the item of the mark that a forgotten user leaves: what was published of them does not count either
_FOREVER = 1e300  # the mark's time: always among the newest

_METADATA = sa.MetaData()
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("user_key", sa.LargeBinary(32), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("item", sa.Text, nullable=False),  # "i" and an integer, or "s" and a string
    sa.Column("event_id", sa.Text),
    sa.UniqueConstraint("user_key", "event_id"),
    sa.Index("newest", "user_key", sa.desc("time"), sa.desc("seq")),
)


@dataclass(frozen=True)
class Recent:
    """The newest events of one user, oldest first."""

    items: list[Id]
    times: list[float]  # seconds since 1970
    forgotten: bool = False  # nothing from before counts, published histories included


class EventStore:
    """The table of events in one database. Safe to call from several threads; each that reads keeps a connection of its own."""

    def __init__(self, url: str, keys: UserKeys, *, write_s: float) -> None:
        """Makes the table where there is none; a database that is away is tried again by each call. ConfigError for another kind of URL."""
        self._keys = keys
        self._engine = _engine(url, write_s)
        self._insert = _insert_of(self._engine.dialect.name)
        newest = (
            sa.select(_EVENTS.c.item, _EVENTS.c.time)
            .where(_EVENTS.c.user_key == sa.bindparam("user_key"))
            .order_by(_EVENTS.c.time.desc(), _EVENTS.c.seq.desc())
            .limit(sa.bindparam("last"))
        )
        self._newest = newest.compile(self._engine)
        self._reading = threading.local()
        self._is_ready = False
        with suppress(UnavailableError):
            self._make_ready()

    def record(self, events: Sequence[Event]) -> int:
        """How many of the events are new; one whose id its user already has is not. All are stored or none.

        Raises BadRequestError for a time or an id that cannot be; UnavailableError where the database does not take them in time.
        """
        now = time.time()
        rows = [self._row(event, now) for event in events]
        self._make_ready()
        with _errors("events could not be stored"), self._engine.begin() as connection:
            return sum(connection.execute(self._insert, row).rowcount for row in rows)

    def newest(self, user: Id, last: int) -> Recent:
        """The newest `last` events of a user, oldest first; those of one time in the order in which they came."""
        given = {**self._newest.params, "user_key": self._keys.of(user), "last": last + 1}  # one may be the mark
        positional = self._newest.positiontup
        values: Any = given if positional is None else [given[name] for name in positional]
        self._make_ready()
        with _errors("events could not be read"):
            try:
                cursor = self._cursor()
                cursor.execute(self._newest.string, values)
                found = cursor.fetchall()
            except Exception:
                self._reading.__dict__.clear()  # the next read connects anew
                raise
        forgotten = bool(found) and found[0][0] == FORGOTTEN
        found = found[1:] if forgotten else found[:last]
        items = [int(item[1:]) if item[0] == "i" else item[1:] for item, _ in reversed(found)]
        return Recent(items, [moment for _, moment in reversed(found)], forgotten)

    def forget(self, user: Id) -> int:
        """How many events of the user were deleted. A mark stays, so that what was published of the user does not count either."""
        key = self._keys.of(user)
        mark = {"user_key": key, "time": _FOREVER, "item": FORGOTTEN, "event_id": FORGOTTEN}
        self._make_ready()
        with _errors("events could not be deleted"), self._engine.begin() as connection:
            deleted = connection.execute(sa.delete(_EVENTS).where(_EVENTS.c.user_key == key, _EVENTS.c.item != FORGOTTEN)).rowcount
            connection.execute(self._insert, mark)
        return deleted

    def close(self) -> None:
        """Nothing comes back."""
        self._reading = threading.local()
        self._engine.dispose()

    def _row(self, event: Event, now: float) -> dict[str, Any]:
        moment = now if event.time is None else event.time
        if not 0 <= moment <= now + LATEST_S:
            raise BadRequestError(
                f"an event's time must be in seconds since 1970, at most a day ahead: got {moment!r}; leave it out for now"
            )
        for name, value in (("item", event.item), ("id", event.id)):
            if isinstance(value, str) and not _is_storable(value):
                raise BadRequestError(f"an event's {name} must be text without zero characters and lone surrogates; correct it")
        kind = "i" if isinstance(event.item, int) else "s"
        return {"user_key": self._keys.of(event.user), "time": moment, "item": f"{kind}{event.item}", "event_id": event.id}

    def _cursor(self) -> Any:
        """A driver's cursor on this thread's own connection, in which every statement is its own transaction."""
        if not hasattr(self._reading, "cursor"):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._reading.connection = connection
            self._reading.cursor = connection.connection.cursor()
        return self._reading.cursor

    def _make_ready(self) -> None:
        """Nothing comes back: the table is there. Processes that start together may both make it; the second is told, and looks again."""
        if self._is_ready:
            return
        try:
            _METADATA.create_all(self._engine)
        except sa.exc.SQLAlchemyError:
            with _errors("the events' database could not be opened"):
                _METADATA.create_all(self._engine)
        self._is_ready = True


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file, whatever its path is made of."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def _engine(url: str, write_s: float) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        name = parsed.get_backend_name()
    except sa.exc.ArgumentError:
        raise ConfigError("events must be a database URL, e.g. sqlite:///events.sqlite or postgresql+psycopg://host/name") from None
    if name == "sqlite":
        engine = sa.create_engine(parsed, hide_parameters=True, connect_args={"timeout": write_s})
        sa.event.listen(engine, "connect", _write_ahead)
        return engine
    if name == "postgresql":
        limits = {"connect_timeout": max(1, round(write_s)), "options": f"-c statement_timeout={round(write_s * 1000)}"}
        return sa.create_engine(parsed, hide_parameters=True, connect_args=limits, pool_pre_ping=True)
    raise ConfigError(f"events must be in SQLite or PostgreSQL: got {name!r}; use sqlite:/// or postgresql+psycopg://")


def _write_ahead(connection: Any, _record: Any) -> None:
    """Readers never wait for writers, and what was acknowledged survives a power cut."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _insert_of(dialect: str) -> Any:
    """An insert that leaves an event alone whose id is there already."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(_EVENTS).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _reason(error: BaseException) -> str:
    """The kind of a database error. Its text may hold what was asked."""
    return type(getattr(error, "orig", None) or error).__name__


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except BadRequestError:
        raise
    except Exception as error:  # SQLAlchemy's, or the driver's own from its cursor
        raise UnavailableError(f"{what}: {_reason(error)}; see to the database, then try again") from error
