"""The application called in process: one function a request, no sockets."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from small_service import SmallService

from shortlist.serve.app import App
from shortlist.serve.keys import Keys
from shortlist.serve.limits import Limits
from shortlist.serve.logs import Log


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def small_app(
    service: SmallService | None = None, *, keys: Keys | None = None, limits: Limits | None = None, log: Log | None = None
) -> App:
    """An application over a small service; `opened` makes it ready."""
    service = service or SmallService()
    return App(lambda: service, keys=keys, limits=limits, log=log or Log(io.StringIO()))


async def ask(
    app: App,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    chunks: Iterable[bytes] | None = None,
    query: bytes = b"",
) -> Reply:
    """The answer to one request. `body`: bytes as they are, anything else as JSON; `chunks`: the body in several messages."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = {"content-type": "application/json"} if body is not None or chunks is not None else {}
    named |= {name.lower(): value for name, value in (headers or {}).items()}
    pieces = list(chunks) if chunks is not None else [raw]
    messages = [{"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1} for place, piece in enumerate(pieces)] + [
        {"type": "http.disconnect"}
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    await app(scope, receive, send)
    start, *rest = sent
    return Reply(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message["body"] for message in rest),
    )


def asked(app: App, method: str, path: str, body: Any = None, **rest: Any) -> Reply:
    """The same from outside an event loop, by an application that is opened first."""

    async def once() -> Reply:
        if app.state == "starting":
            await app.open()
        return await ask(app, method, path, body, **rest)

    return asyncio.run(once())
