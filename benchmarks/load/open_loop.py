"""An open-loop HTTP client: requests leave when they are due, whatever the answers do, and latency counts from when they were due.

A closed-loop client waits for an answer before it asks again, so a server that stalls is asked less while it stalls: the
pause is measured once instead of for each request that it hit (coordinated omission). Here a request that finds no free
connection waits in this process, and its wait is part of its latency.

One thread, sockets and epoll; it spins while the next request is less than a clock tick away, so it needs a core.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOST = -1  # no answer: the connection ended
REFUSED = -2  # nothing was sent: no connection could be made
_LARGEST_READ = 1 << 18


@dataclass(frozen=True)
class Outcome:
    """What became of each request, in order. Times in seconds from the start; nan where there was none."""

    due_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    answered_s: NDArray[np.float64]
    status: NDArray[np.int64]  # of HTTP, or LOST, or REFUSED

    def latency_ms(self, status: int = 200) -> NDArray[np.float64]:
        """From due to answered, of the requests with this status."""
        return (self.answered_s - self.due_s)[self.status == status] * 1e3

    def counts(self) -> dict[str, int]:
        """How many of each status."""
        values, counts = np.unique(self.status, return_counts=True)
        names = {LOST: "lost", REFUSED: "refused"}
        return {names.get(int(value), str(value)): int(count) for value, count in zip(values, counts, strict=True)}


def percentiles(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99, p99.9 and the largest, in ms; nothing where nothing was measured."""
    if not len(milliseconds):
        return {}
    p50, p99, p999 = np.percentile(milliseconds, [50, 99, 99.9])
    return {
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "p999_ms": round(float(p999), 3),
        "max_ms": round(float(milliseconds.max()), 3),
    }


def post(path: str, body: bytes, *, key: str | None = None) -> bytes:
    """The bytes of a request."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: shortlist\r\nContent-Type: application/json\r\n{authorization}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def schedule(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """When requests are due: a Poisson process, as independent users make it."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, int(rate * seconds * 1.2) + 100)
    due = np.cumsum(gaps)
    return due[due < seconds]


def run_open_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    due_s: NDArray[np.float64],
    *,
    connections: int = 512,
    patience_s: float = 10.0,
    seen: Callable[[int, int, bytes], None] | None = None,
    during: Callable[[float], None] | None = None,
) -> Outcome:
    """The outcome of sending request i % len(requests) at due_s[i], over at most `connections` connections.

    seen    told (request, status, body) of each answer
    during  called with the time now and then, between two requests
    """
    return _Client(address, requests, due_s, connections, patience_s, seen, during).run()


class _Connection:
    __slots__ = ("buffer", "request", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket, self.request, self.buffer = sock, -1, b""


class _Client:
    def __init__(
        self,
        address: tuple[str, int],
        requests: Sequence[bytes],
        due_s: NDArray[np.float64],
        connections: int,
        patience_s: float,
        seen: Callable[[int, int, bytes], None] | None,
        during: Callable[[float], None] | None,
    ) -> None:
        self._address, self._requests, self._due = address, requests, due_s
        self._most, self._patience_s, self._seen, self._during = connections, patience_s, seen, during
        self._sent = np.full(len(due_s), np.nan)
        self._answered = np.full(len(due_s), np.nan)
        self._status = np.full(len(due_s), LOST, np.int64)
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._backlog: deque[int] = deque()
        self._pending = 0

    def run(self) -> Outcome:
        start, due, following, count = time.perf_counter(), self._due, 0, len(self._due)
        last_due = float(due[-1]) if count else 0.0
        told_s = 0.0
        self._start = start
        while following < count or self._backlog or self._pending:
            now = time.perf_counter() - start
            while following < count and due[following] <= now:
                self._backlog.append(following)
                following += 1
            while self._backlog and self._send_next():
                pass
            wait = due[following] - now if following < count else 0.01
            for descriptor, _ in self._epoll.poll(wait - 0.002 if wait > 0.003 else 0):
                self._receive(self._open[descriptor])
            if now > last_due + self._patience_s:
                break
            if self._during is not None and now - told_s > 0.05:
                told_s = now
                self._during(now)
        for connection in list(self._open.values()):
            connection.socket.close()
        return Outcome(self._due, self._sent, self._answered, self._status)

    def _send_next(self) -> bool:
        """Whether the first of the backlog left; False where there is no free connection."""
        while self._idle:
            connection = self._idle.pop()
            if self._open.get(connection.socket.fileno()) is connection:
                break
        else:
            if len(self._open) >= self._most:
                return False
            made = self._connect()
            if made is None:
                self._status[self._backlog.popleft()] = REFUSED
                return True
            connection = made
        request = self._backlog.popleft()
        connection.request = request
        self._pending += 1
        self._sent[request] = time.perf_counter() - self._start
        try:
            connection.socket.send(self._requests[request % len(self._requests)])
        except OSError:
            self._lose(connection)
        return True

    def _connect(self) -> _Connection | None:
        sock = socket.socket()
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._open[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_LARGEST_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(connection)
            return
        data = connection.buffer + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            head = data[:end].lower()
            place = head.index(b"content-length: ") + 16
            length = int(head[place : head.find(b"\r\n", place) if head.find(b"\r\n", place) > 0 else len(head)])
            if len(data) >= end + 4 + length:
                connection.buffer = b""
                self._finish(connection, int(data[9:12]), data[end + 4 :], is_last=b"connection: close" in head)
                return
        connection.buffer = data

    def _finish(self, connection: _Connection, status: int, body: bytes, *, is_last: bool) -> None:
        request = connection.request
        self._answered[request] = time.perf_counter() - self._start
        self._status[request] = status
        self._pending -= 1
        connection.request = -1
        if self._seen is not None:
            self._seen(request, status, body)
        if is_last:
            self._close(connection)
        else:
            self._idle.append(connection)

    def _lose(self, connection: _Connection) -> None:
        """The connection ended: with a request on it, that one is lost."""
        if connection.request >= 0:
            self._pending -= 1
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._open[descriptor]
        connection.socket.close()
