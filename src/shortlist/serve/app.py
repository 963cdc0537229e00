"""The service over HTTP: a plain ASGI application. `requests.py` reads what comes in, `routes.py` says what answers it.

Order of the checks: route (404, 405), key (401, 403), readiness (503), media type (415), size (413), JSON (400),
rules (422), room (429). Quick answers are computed on the event loop, slow ones and all that touches a disk in threads (placement.py).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import msgspec

from shortlist.errors import BadRequestError, NotFoundError, UnavailableError
from shortlist.serve.contract import ServiceContract
from shortlist.serve.gate import Gate
from shortlist.serve.keys import Keys, Role
from shortlist.serve.limits import Limits
from shortlist.serve.logs import Log
from shortlist.serve.messages import Slate, SlateBatch, State
from shortlist.serve.metrics import CONTENT_TYPE as METRICS_TYPE
from shortlist.serve.metrics import Metrics
from shortlist.serve.openapi import openapi_document
from shortlist.serve.placement import Placement
from shortlist.serve.refusals import NO_HEADERS, RETRY_AFTER, Headers, Refusal, problem_body
from shortlist.serve.requests import JSON_TYPE, ClientGone, Receive, Scope, decoded_body, decoded_id, find_route, received_body
from shortlist.serve.routes import ROUTES, Lane, Route

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ENTERED = "shortlist.entered"  # in the scope's state: the protocol has let this request in already
TOO_BUSY = "too much waits already: nothing was done; try again after a second"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class App:
    """The ASGI application over one service."""

    def __init__(
        self,
        open_service: Callable[[], ServiceContract],
        *,
        keys: Keys | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        log: Log | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self.log = log or Log()
        self.state = "starting"
        self.service: ServiceContract | None = None
        wait = self.limits.wait_longest_s
        self.gates = {
            Lane.ANSWERS: Gate(wait_longest_s=wait),
            Lane.READS: Gate(width=self.limits.threads, wait_longest_s=10 * wait),
            Lane.WRITES: Gate(width=self.limits.threads, wait_longest_s=10 * wait),
            Lane.ADMIN: Gate(wait_longest_s=60.0),
        }
        self._open_service = open_service
        self._keys = keys or Keys({})
        self._placement = Placement(self.limits.leave_loop_s)
        self._threads: dict[Lane, ThreadPoolExecutor] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            route.name: msgspec.json.Decoder(route.takes) for route in ROUTES if route.takes is not None
        }
        self._encoder = msgspec.json.Encoder()
        self._openapi = self._encoder.encode(openapi_document(self.limits))
        self._prefix, self._numbers = secrets.token_hex(4), count(1)

    @property
    def version(self) -> str | None:
        """The version that answers; None before there is one."""
        return self.service.facts().get("version") if self.service is not None else None

    async def open(self) -> None:
        """Comes back when the service answers; until then /ready says 503. Raises what opening it raises."""
        self._threads = {lane: ThreadPoolExecutor(self.limits.threads, lane.value) for lane in self.gates}  # a thread starts when needed
        try:
            self.service = await asyncio.get_running_loop().run_in_executor(self._threads[Lane.ADMIN], self._open_service)
        except BaseException:
            self.state = "failed"
            raise
        answers = self.gates[Lane.ANSWERS]
        self.service.yield_to(lambda: answers.is_pressed)
        if self.state == "starting":
            self.state = "ready"

    async def close(self) -> None:
        """Gives up the service, after the work in threads is done."""
        for pool in self._threads.values():
            await asyncio.to_thread(pool.shutdown, wait=True)
        if self.service is not None:
            await asyncio.to_thread(self.service.close)

    def drain(self) -> None:
        """From now on /ready says 503, and answers close their connections."""
        self.state = "draining"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the application."""
        if scope["type"] == "http":
            await self._respond(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends one answer, whatever happens, and counts it."""
        arrived = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = self.request_id(headers.get(b"x-request-id"))
        route: Route | None = None
        status, media_type, extra = 200, JSON_TYPE, NO_HEADERS
        entered = [self.gates[Lane.ANSWERS]] if scope.get("state", {}).pop(ENTERED, False) else []
        try:
            route, raw_id = find_route(scope)
            self._refuse_role(route.role, headers)
            if route.call is None:
                body, media_type = self._own_answer(route)
            else:
                self._refuse_unready(route, scope)
                request = await self._request(route, raw_id, receive, headers)
                if not entered:
                    entered.append(self._entered(route))
                body = await self._work(route, request)
        except Refusal as refusal:
            status, extra = refusal.status, refusal.headers
            body = problem_body(status, refusal.message, request_id)
        except ClientGone:
            return
        except Exception as error:
            status = 500
            body = problem_body(status, "the server failed at this request; its log says where", request_id)
            self.log.fault(error, request_id=request_id, route=route.path if route else "")
        finally:
            for gate in entered:
                gate.leave()
        start_headers = self._headers(len(body), media_type, request_id, extra)
        await send({"type": "http.response.start", "status": status, "headers": start_headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self.record(route, status, time.perf_counter() - arrived, request_id)

    def request_id(self, given: bytes | None) -> str:
        """The client's request id where it is a plain one, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._prefix}-{next(self._numbers):x}"

    @property
    def answers_unparsed(self) -> bool:
        """Whether a plain query may be answered as `answered_at_once` does: on the loop, and nobody needs a key for it."""
        return self.state == "ready" and self._placement.is_on_loop and not self._keys.needs_key(Role.READ)

    def answered_at_once(self, route: Route, body: bytes) -> bytes | None:
        """The encoded answer to a query; None where there is none, for whatever reason: the long way finds out which."""
        started = time.perf_counter()
        try:
            encoded, slates = self._called(route, self._decoders[route.name].decode(body))
        except Exception:
            return None
        self._placement.learn(slates[0].version, time.perf_counter() - started)
        self._count_slates(slates)
        return encoded

    def _refuse_role(self, role: Role, headers: dict[bytes, bytes]) -> None:
        if role is Role.ANYBODY:
            return
        if not self._keys.needs_key(role):
            if role > Role.READ and b"origin" in headers:  # open on loopback, but not to any page that a browser there shows
                raise Refusal(403, f"a browser's page needs a key to {role.name.lower()}: got none set for this server")
            return
        got = self._keys.role_of(headers.get(b"authorization"))
        if got is None:
            raise Refusal(
                401, f"a key for {role.name.lower()} is needed: send it as `Authorization: Bearer KEY`", ((b"www-authenticate", b"Bearer"),)
            )
        if got < role:
            raise Refusal(403, f"a key for {role.name.lower()} is needed: got one for {got.name.lower()}")

    def _refuse_unready(self, route: Route, scope: Scope) -> None:
        if self.service is None:
            raise Refusal(503, f"the server must be ready: it is {self.state}; try again later", RETRY_AFTER)
        if scope["query_string"]:
            raise Refusal(400, f"{route.path} takes no query parameters: got some; send fields in a JSON body")

    async def _request(self, route: Route, raw_id: bytes, receive: Receive, headers: dict[bytes, bytes]) -> Any:
        """The message in the body, or the id in the path. Raises Refusal, ClientGone."""
        if route.takes is None:
            return decoded_id(raw_id)
        body = await received_body(receive, headers, largest_bytes=self.limits.body_largest_bytes)
        return decoded_body(self._decoders[route.name], body)

    def _entered(self, route: Route) -> Gate:
        """The gate of a route's lane, entered."""
        gate = self.gates[route.lane]
        if not gate.enter():
            raise Refusal(429, TOO_BUSY, RETRY_AFTER)
        return gate

    async def _work(self, route: Route, request: Any) -> bytes:
        """The encoded answer of the service, when its turn has come. Raises Refusal."""
        gate, asked = self.gates[route.lane], time.perf_counter()
        if route.lane is Lane.ANSWERS:
            gate.width = 1 if self._placement.is_on_loop else self.limits.threads
        started = await gate.turn()
        try:
            if started - asked > self.limits.answer_latest_s and route.lane is not Lane.ADMIN:
                raise Refusal(429, TOO_BUSY, RETRY_AFTER)
            if route.lane is Lane.ANSWERS and self._placement.is_on_loop:
                body, slates = self._called(route, request)
                self._placement.learn(slates[0].version, time.perf_counter() - started)
            else:
                loop = asyncio.get_running_loop()
                body, slates = await loop.run_in_executor(self._threads[route.lane], self._called, route, request)
                self._placement.see(slates)
        except BadRequestError as error:
            raise Refusal(422, str(error)) from None
        except NotFoundError as error:
            raise Refusal(404, str(error)) from None
        except UnavailableError as error:
            raise Refusal(503, str(error), RETRY_AFTER) from None
        finally:
            gate.done(started)
        self._count_slates(slates)
        return body

    def _count_slates(self, slates: Sequence[Slate]) -> None:
        for slate in slates:
            if slate.degraded:
                self.metrics.add("degraded")
            if slate.unknown:
                self.metrics.add("unknown_ids", slate.unknown)

    def _called(self, route: Route, request: Any) -> tuple[bytes, Sequence[Slate]]:
        """(encoded answer, the slates in it). Runs on the loop, or in a thread."""
        assert self.service is not None and route.call is not None
        answer = route.call(self.service, request)
        slates = (answer,) if isinstance(answer, Slate) else answer.slates if isinstance(answer, SlateBatch) else ()
        return self._encoder.encode(answer), slates

    def _own_answer(self, route: Route) -> tuple[bytes, bytes]:
        """(body, media type) of what the app answers itself."""
        if route.name == "openapi":
            return self._openapi, JSON_TYPE
        if route.name == "health":  # whatever the service does
            return self._encoder.encode(State(state=self.state)), JSON_TYPE
        facts = self.service.facts() if self.service is not None else {}
        if route.name == "metrics":
            gate = self.gates[Lane.ANSWERS]
            gauges = {
                "inside": gate.inside,
                "room": gate.room,
                "width": gate.width,
                "pace_seconds": gate.pace_s,
                "ready": self.state == "ready",
            }
            return self.metrics.text({**facts, **gauges}), METRICS_TYPE
        if route.name == "ready" and self.state != "ready":
            raise Refusal(503, f"the server must be ready: it is {self.state}", RETRY_AFTER)
        problems = [name for name, what in facts.get("problems", {}).items() if what]
        return self._encoder.encode(State(state=self.state, version=facts.get("version"), problems=problems)), JSON_TYPE

    def _headers(self, length: int, media_type: bytes, request_id: str, extra: Headers) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", media_type),
            (b"content-length", str(length).encode()),
            (b"x-request-id", request_id.encode()),
            *extra,
        ]
        return [*headers, (b"connection", b"close")] if self.state == "draining" else headers

    def record(self, route: Route | None, status: int, seconds: float, request_id: str) -> None:
        """Counts an answer; logs one in many, and every fault of ours."""
        self.metrics.count(route, status, seconds)
        if status == 500 or self.log.is_sampled():
            method, path = (route.method, route.path) if route is not None else ("", "")
            self.log.say("request", request_id=request_id, method=method, route=path, status=status, ms=round(seconds * 1e3, 3))
