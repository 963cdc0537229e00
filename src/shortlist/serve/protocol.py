"""One connection: uvicorn's protocol, made robust against clients. It adds what uvicorn lacks.

- A deadline for receiving: a request, or a new connection's first one, must be whole in time, or the connection ends (408).
- A cap on request line and headers (431). The rest of a refused body is read and thrown away for a moment, so that its
  sender sees why. Who does not read answers is cut.
- A request reaches the application when it is whole: slow clients hold a connection, and nothing else. Of requests that come all at
  once on one connection a few are taken at a time, and what a connection held is free when it ends, without the garbage collector.
- A query that came in one packet, with nothing unusual about it, is answered without parser, scope, cycle and task. Where it turns
  out to be wrong it goes the long way, which says why.
- Under overload a query is refused here, before a task or a decoder was paid for, and mostly before it is parsed
  (whole_query.py): what a refusal costs is taken from the answers of others.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios
import time
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shortlist.serve.app import ENTERED, App
from shortlist.serve.raw_answers import good_answer, last_word, too_busy
from shortlist.serve.refusals import RETRY_AFTER, Headers
from shortlist.serve.routes import GATED, Lane, Route
from shortlist.serve.whole_query import WholeQuery, whole_query

_RESET = struct.pack("ii", 1, 0)  # close without keeping what was not read
PIPELINED_MOST = 16  # requests that wait behind another on one connection, and a packet's worth more; the client is read again after that
_PARSED_AT_ONCE = 1024  # bytes: at most 57 requests


def _nothing() -> None:
    """What becomes of an answer on a connection that has ended."""


class PatientProtocol(HttpToolsProtocol):
    """A connection with deadlines, caps and early refusals. `enforce` is called every tenth of a second (deadlines.py)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """Starts the clock of the first request; refuses connections beyond the limit."""
        super().connection_made(transport)
        application = self.app
        assert isinstance(application, App)
        self._application = application
        self._limits = application.limits
        self._gate = application.gates[Lane.ANSWERS]
        self._whole_by_s: float | None = self.loop.time() + self._limits.receive_longest_s  # None: nothing is being received
        self._unread_since_s: float | None = None  # since when the client has left answers unread
        self._in_head, self._head_bytes = True, 0
        self._idle_since_s = 0.0  # when a query was last refused unparsed
        self._held: tuple[RequestResponseCycle, Any] | None = None  # a request whose body is on its way
        self._running: RequestResponseCycle | None = None  # the request that is being answered; `cycle` may be a later one
        self._asked: tuple[WholeQuery, bytes, float] | None = None  # an unparsed query that waits for its turn, and since when
        self._behind = b""  # what came after it, or after more requests than are taken at once
        self._begun = 0  # requests that the parser has seen the beginning of
        self._lines, self._lines_of = b"", list[tuple[bytes, bytes]]()
        application.metrics.add("connections")
        if len(self.connections) > self._limits.connections_most:
            self._end(503, "the server has too many connections; try again later", RETRY_AFTER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request that is being answered, too: uvicorn tells only the last one that came. Requests that wait are let go.

        Each of those knows this connection, which knows it: such circles are left to the garbage collector, which stops the server for
        a tenth of a second when a few hundred clients who asked much have gone.
        """
        self._forsake()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves the timer, and with it the connection, where the client broke it off
        self.pipeline.clear()
        self._held, self._behind = None, b""
        if self.cycle is not None and self.cycle is not self._running:
            self.cycle.on_response = _nothing

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; refuses, ends or answers what needs no more bytes for that."""
        if self._asked is not None or self._behind:
            self._behind += data
            self.flow.pause_reading()
            return
        if self._is_between_requests() and (query := whole_query(data)) is not None:
            if self._gate.is_full:
                self._refuse_unparsed(query)
                return
            if query.is_plain and self._application.answers_unparsed and len(data) <= self._limits.body_largest_bytes:
                self._whole_by_s = None
                self._asked = (query, data, time.perf_counter())
                self._gate.enter()
                self._gate.ask(self._answer_unparsed)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Feeds the parser as long as few requests wait or came of it: who sends thousands at once has them taken a few at a time."""
        taken = self._begun
        for start in range(0, len(data), _PARSED_AT_ONCE):
            is_full = len(self.pipeline) >= PIPELINED_MOST  # the next answer goes on
            if is_full or self._begun - taken >= PIPELINED_MOST:
                self._behind = data[start:]
                self.flow.pause_reading()
                if not is_full:
                    self.loop.call_soon(self._take_behind)
                return
            self._parse_some(data[start : start + _PARSED_AT_ONCE])
            if self.transport.is_closing():
                return

    def _parse_some(self, data: bytes) -> None:
        if self._whole_by_s is None:
            self._whole_by_s = self.loop.time() + self._limits.receive_longest_s
        super().data_received(data)
        if self._in_head and self._whole_by_s is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_largest_bytes:
                self._end(431, f"request line and headers must have at most {self._limits.head_largest_bytes:,} bytes: got more")
        elif self._held is not None and self._is_refused(self._held[0]):
            self._begin_held()

    def on_message_begin(self) -> None:
        """Starts the clock of a request that follows another in the same bytes."""
        self._begun += 1
        if self._whole_by_s is None:
            self._whole_by_s = self.loop.time() + self._limits.receive_longest_s
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Makes the request's scope; what comes after its body (trailers) is no header."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()
        self.headers = []

    def on_message_complete(self) -> None:
        """The request is whole: it goes to the application."""
        self._whole_by_s, self._in_head = None, True
        super().on_message_complete()
        self._begin_held()

    def on_response_complete(self) -> None:
        """Goes on to the next request, after a moment for the rest of one that was answered early."""
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete:
            self._whole_by_s = self.loop.time() + self._limits.linger_longest_s
        self._take_behind()  # which may hold that rest, and then nothing is waited for

    def shutdown(self) -> None:
        """Ends with the request that is being answered, or that is on its way; an idle connection after a moment."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(self._limits.drain_grace_s, self._close_idle)

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection that was idle for long, unless a request just came: after a stall, timers are looked at first."""
        if self._asked is not None:
            self._idle_since_s = self.loop.time()
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            self._close_unused()

    def _close_idle(self) -> None:
        is_idle = self._asked is None and (self._whole_by_s is None or (self._in_head and not self._head_bytes))
        if is_idle:
            self._close_unused()

    def _close_unused(self) -> None:
        """Closes a connection on which nothing waits, unless a request is there that the loop has not seen.

        The client is told at once: the transport would tell it after all that the loop has to do, and a request sent meanwhile is lost.
        """
        if not self.transport.is_closing() and not self._has_unread_bytes():
            connection = socket.socket(fileno=self.transport.get_extra_info("socket").fileno())
            with suppress(OSError):  # the client has gone
                connection.shutdown(socket.SHUT_WR)
            connection.detach()
            self.transport.close()

    def _has_unread_bytes(self) -> bool:
        """Whether the kernel holds bytes that the loop has not given us yet."""
        count = array.array("i", [0])
        with suppress(OSError):  # no such number on this system
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
        return count[0] > 0

    def send_400_response(self, msg: str) -> None:
        """Says that this is not HTTP."""
        self._end(400, "the bytes must be an HTTP/1.1 request: got something else")

    def enforce(self, now_s: float) -> None:
        """Ends the connection where a deadline has passed."""
        if not self.transport.get_write_buffer_size():
            self._unread_since_s = None
        elif self._unread_since_s is None:
            self._unread_since_s = now_s
        elif now_s - self._unread_since_s > self._limits.receive_longest_s:
            self._forsake()
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        if self._whole_by_s is None or now_s <= self._whole_by_s or self.transport.is_closing():
            return
        if self._is_answering_whole():
            self._whole_by_s = now_s + self._limits.receive_longest_s
            return
        is_answering = self.cycle is not None and self.cycle.response_started
        if is_answering or (self._in_head and not self._head_bytes):
            self.transport.close()  # nobody waits for an answer
        else:
            self._end(408, f"a request must arrive within {self._limits.receive_longest_s:g} s: got a part of it")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Holds a request until it is whole; refuses a query that finds no room."""
        if cycle.more_body and not cycle.waiting_for_100_continue:
            self._held = (cycle, app)
            return
        route = GATED.get((cycle.scope["method"], cycle.scope["raw_path"]))
        if route is not None and not cycle.more_body:
            if self._gate.is_full:
                self._refuse(cycle, route)
                return
            self._gate.enter()
            cycle.scope["state"][ENTERED] = True
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering_whole(self) -> bool:
        """Whether an answer is being made: a later request waits for it, however long that takes, and is not being received."""
        return self._running is not None and not self._running.more_body and not self._running.response_complete

    def _forsake(self) -> None:
        """Nobody reads what is being answered."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _begin_held(self) -> None:
        if self._held is None:
            return
        (cycle, app), self._held = self._held, None
        if cycle.more_body:
            self._running = cycle
            super()._start_asgi_task(cycle, app)  # to be refused
        else:
            self._start_asgi_task(cycle, app)

    def _is_refused(self, cycle: RequestResponseCycle) -> bool:
        """Whether the application will refuse this body, however it goes on."""
        largest = self._limits.body_largest_bytes
        told = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"0")
        return len(cycle.body) > largest or (told.isdigit() and int(told[:20]) > largest)

    def _is_between_requests(self) -> bool:
        return self._in_head and not self._head_bytes and (self.cycle is None or self.cycle.response_complete)

    def _refuse_unparsed(self, query: WholeQuery) -> None:
        """Answers 429 to a query that the parser has not seen."""
        self._rest()
        self._write_too_busy(query.route, query.request_id, closing=self._application.state == "draining")

    def _answer_unparsed(self, started_s: float) -> None:
        """Answers the query that the parser has not seen, or lets the parser see it."""
        assert self._asked is not None
        (query, data, asked_s), self._asked = self._asked, None
        application, body = self._application, None
        self._gate.leave()
        if self.transport.is_closing():
            return
        closing = application.state == "draining"
        if started_s - asked_s > self._limits.answer_latest_s:
            self._rest()
            self._write_too_busy(query.route, query.request_id, closing=closing)
        elif (body := application.answered_at_once(query.route, data[query.body_at :])) is None:
            self._parse(data)
        else:
            self._rest()
            request_id = application.request_id(query.request_id)
            self.transport.write(good_answer(self._default_lines(), body, request_id, closing=closing))
            application.record(query.route, 200, time.perf_counter() - asked_s, request_id)
            if closing:
                self.transport.close()
        self._take_behind()

    def _take_behind(self) -> None:
        """What came behind requests that waited has its turn; what is still behind then keeps the client from sending more."""
        if not self._behind or self.transport.is_closing():
            return
        behind, self._behind = self._behind, b""
        self.flow.resume_reading()
        self.data_received(behind)
        if self._behind:
            self.flow.pause_reading()

    def _rest(self) -> None:
        """The connection counts as idle from now on, whatever the parser saw last."""
        self._whole_by_s = None
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _refuse(self, cycle: RequestResponseCycle, route: Route) -> None:
        """Answers 429 to a query that was parsed, and to nothing else of it."""
        closing = not cycle.keep_alive or self._application.state == "draining"
        cycle.response_started = cycle.response_complete = True
        self._write_too_busy(route, dict(cycle.scope["headers"]).get(b"x-request-id"), closing=closing)
        self.on_response_complete()

    def _write_too_busy(self, route: Route, given_id: bytes | None, *, closing: bool) -> None:
        self._gate.refused += 1
        self.transport.write(too_busy(self._default_lines(), self._application.request_id(given_id), closing=closing))
        self._application.metrics.count(route, 429, 0.0)
        if closing:
            self.transport.close()

    def _end(self, status: int, message: str, headers: Headers = ()) -> None:
        """Says why, and closes the connection."""
        if not self.transport.is_closing():
            self.transport.write(last_word(self._default_lines(), status, message, self._application.request_id(None), headers))
            self._application.metrics.count(None, status, 0.0)
            self.transport.close()

    def _default_lines(self) -> bytes:
        """uvicorn's headers of every answer, which change once a second."""
        if self._lines_of is not self.server_state.default_headers:
            self._lines_of = self.server_state.default_headers
            self._lines = b"".join([b"%b: %b\r\n" % line for line in self._lines_of])
        return self._lines
