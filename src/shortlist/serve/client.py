"""A client of the service: typed messages in and out, one kept connection, patience where the server asks for it.

    with Client("http://127.0.0.1:8000") as client:
        slate = client.recommend(user=17, k=50)

What the server refused for now (429, 503) and what a broken connection left open is sent again, until `patience_s` is over.
That is safe for every route: queries change nothing, items are put and withdrawn by id, and each event gets an id here, so
that a second arrival counts once. Not for several threads at once: give each its own client.
"""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from shortlist.errors import BadRequestError, ConfigError, NotFoundError, ShortlistError, UnavailableError
from shortlist.serve.messages import (
    Accepted,
    Event,
    EventBatch,
    ForgetRequest,
    Forgotten,
    Id,
    ItemBatch,
    ItemIds,
    Problem,
    RecommendBatch,
    RecommendRequest,
    Reloaded,
    SimilarRequest,
    Slate,
    SlateBatch,
    State,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
_AGAIN = (429, 503)
_ERRORS: dict[int, type[ShortlistError]] = {404: NotFoundError, 429: UnavailableError, 503: UnavailableError}
Answer = TypeVar("Answer")


class RefusedError(BadRequestError):
    """The server refused a request; another try would be refused too. `status` and `problem` say why."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{problem.message} ({status} {problem.error}, request {problem.request_id})")
        self.status = status
        self.problem = problem


class Client:
    """One connection to a server.

    url         http://host:port
    key         of the role that the calls need, where the server has keys
    timeout_s   for one try
    patience_s  for all tries of one call
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 10.0, patience_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(f"a server's address must be like http://127.0.0.1:8000: got {url!r}")
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key is not None else {})}
        self._patience_s = patience_s

    def recommend(self, request: RecommendRequest | None = None, **fields: Any) -> Slate:
        """The best items for one query: a message, or its fields."""
        return self._ask("POST", "/recommend", _message(RecommendRequest, request, fields), Slate)

    def recommend_batch(self, requests: Iterable[RecommendRequest]) -> list[Slate]:
        """The best items for each of several queries, by one version."""
        return self._ask("POST", "/recommend/batch", RecommendBatch(requests=list(requests)), SlateBatch).slates

    def similar(self, request: SimilarRequest | None = None, **fields: Any) -> Slate:
        """The items most like one item: a message, or its fields. Raises NotFoundError."""
        return self._ask("POST", "/similar", _message(SimilarRequest, request, fields), Slate)

    def record_events(self, events: Iterable[Event]) -> Accepted:
        """Tells what users chose. On disk when this comes back; an event without an id gets one."""
        named = [event if event.id is not None else msgspec.structs.replace(event, id=uuid.uuid4().hex) for event in events]
        return self._ask("POST", "/events", EventBatch(events=named), Accepted)

    def forget_user(self, user: Id) -> int:
        """How many events of the user were deleted."""
        return self._ask("DELETE", "/users", ForgetRequest(user=user), Forgotten).events

    def put_items(self, rows: Iterable[Mapping[str, Any]]) -> Accepted:
        """New or changed items, as rows of the items table. On disk when this comes back."""
        return self._ask("PUT", "/items", ItemBatch(items=[dict(row) for row in rows]), Accepted)

    def delete_items(self, ids: Iterable[Id]) -> Accepted:
        """Withdraws items. On disk when this comes back."""
        return self._ask("DELETE", "/items", ItemIds(ids=list(ids)), Accepted)

    def item(self, item_id: Id) -> dict[str, Any]:
        """The columns of one item. Raises NotFoundError."""
        return self._ask("GET", f"/items/{quote(str(item_id), safe='')}", None, dict[str, Any])

    def reload(self) -> Reloaded:
        """Switches to the store's live version. Needs the admin key."""
        return self._ask("POST", "/admin/reload", None, Reloaded)

    def rollback(self) -> Reloaded:
        """Switches back to the version before. Needs the admin key."""
        return self._ask("POST", "/admin/rollback", None, Reloaded)

    def health(self) -> State:
        """How the server is."""
        return self._ask("GET", "/health", None, State)

    def close(self) -> None:
        """Gives up the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, path: str, message: Any, answer: type[Answer]) -> Answer:
        """The answer as a message. Raises NotFoundError, UnavailableError when patience ends, RefusedError for anything else."""
        body = None if message is None else msgspec.json.encode(message)
        until, pause_s = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            asked_pause_s, fault = 0.0, ""
            try:
                status, raw, asked_pause_s = self._once(method, path, body)
                if status == 200:
                    return msgspec.json.decode(raw, type=answer)
                problem = _problem(raw)
                if status not in _AGAIN:
                    raise _ERRORS[status](problem.message) if status in _ERRORS else RefusedError(status, problem)
                fault = problem.message
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                fault = f"the server must be reachable: {error or type(error).__name__}"
            wait_s = max(asked_pause_s, pause_s)
            if time.monotonic() + wait_s > until:
                raise UnavailableError(f"{fault} (given up after {self._patience_s:g} s of tries)")
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes, float]:
        """(status, body, seconds that the server asks to wait) of one try."""
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        asked = answer.getheader("Retry-After", "")
        return answer.status, raw, float(asked) if asked.isdigit() else 0.0


def _message(kind: type[Answer], given: Answer | None, fields: dict[str, Any]) -> Answer:
    """The message as given, or made of its fields. Raises BadRequestError naming the field that breaks a rule."""
    if given is not None and fields:
        raise BadRequestError(f"give a {kind.__name__} or its fields: got both")
    try:
        return given if given is not None else msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{error} of {kind.__name__}") from None


def _problem(raw: bytes) -> Problem:
    """The Problem in a body; one made up where a proxy answered."""
    try:
        return msgspec.json.decode(raw, type=Problem)
    except msgspec.DecodeError:
        return Problem(error="unknown", message=f"the answer must be a Problem: got {raw[:100]!r}; a proxy's?", request_id="")
