"""The protocol of one connection, on an event loop in this process: what it takes at once, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
import uvloop
from load.open_loop import post
from small_service import SmallService
from uvicorn.server import ServerState

from shortlist.serve.app import App
from shortlist.serve.gate import Gate
from shortlist.serve.protocol import PIPELINED_MOST, PatientProtocol

HEALTH = b"GET /health HTTP/1.1\r\n\r\n"
UNREAD = b"GET /openapi.json HTTP/1.1\r\n\r\n" * 40


class Line:
    """A client's end of a connection, and the server's protocol of it."""

    def __init__(self, client: socket.socket, protocol: weakref.ref[PatientProtocol], taken: list[int]) -> None:
        self.client, self.protocol, self.taken = client, protocol, taken

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def answers(self, count: int) -> list[bytes]:
        """The statuses of so many answers."""
        received = b""
        while received.count(b"HTTP/1.1 ") < count:
            data = await asyncio.get_running_loop().sock_recv(self.client, 1 << 16)
            assert data, f"the connection ended after {received.count(b'HTTP/1.1 ')} answers"
            received += data
        return [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]


@asynccontextmanager
async def connected(seconds: float = 0.0) -> AsyncIterator[Line]:
    """A line to a small service. `taken` of it: how many requests began in each look at what the client sent."""
    app = App(lambda: SmallService(seconds))
    await app.open()
    config = uvicorn.Config(app, http=PatientProtocol, lifespan="off", log_config=None, access_log=False, proxy_headers=False)
    config.load()
    made: list[weakref.ref[PatientProtocol]] = []
    taken: list[int] = []

    class Counted(PatientProtocol):
        def _parse(self, data: bytes) -> None:
            before = self._begun
            super()._parse(data)
            taken.append(self._begun - before)

    def protocol() -> PatientProtocol:
        one = Counted(config=config, server_state=ServerState(), app_state={})
        made.append(weakref.ref(one))
        return one

    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(protocol, theirs)
    try:
        yield Line(ours, made[0], taken)
    finally:
        ours.close()
        await app.close()


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(case(), 30)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


@pytest.mark.parametrize(
    ("requests", "status"), [(HEALTH, b"200"), (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"), (post("/recommend", b'{"k":1}'), b"200")]
)
def test_thousands_of_requests_in_one_packet_are_all_answered_and_a_few_taken_at_once(requests: bytes, status: bytes) -> None:
    count = 3_001

    async def case() -> None:
        async with connected() as line:
            sending = asyncio.create_task(line.send(requests * count + HEALTH))
            answers = await line.answers(count + 1)
            await sending
            assert answers == [status] * count + [b"200"]
            assert max(line.taken) <= PIPELINED_MOST + 1 + 1024 // len(requests)
            assert sum(line.taken) <= count + 1

    run(case)


def test_hundreds_of_queries_that_are_refused_one_after_the_other_all_hear_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait behind an answer that takes a while; when it is there, nobody has room for them."""
    monkeypatch.setattr(Gate, "is_full", property(lambda gate: True))

    async def case() -> None:
        async with connected(0.1) as line:
            await line.send(post("/items/7", b"").replace(b"POST", b"GET") + post("/recommend", b'{"k":1}') * 503)
            answers = await line.answers(504)
            assert answers[1:] == [b"429"] * 503

    run(case)


def test_a_request_in_pieces_behind_many_others_is_one_request() -> None:
    body = post("/recommend", b'{"k":3}')
    packet = HEALTH * 103 + body[:7]

    async def case() -> None:
        async with connected() as line:
            await line.send(packet)
            await asyncio.sleep(0.05)
            await line.send(body[7:-3])
            await asyncio.sleep(0.05)
            await line.send(body[-3:] + HEALTH)
            assert await line.answers(105) == [b"200"] * 105

    run(case)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", 0.0),
        (HEALTH, 0.0),
        (b"POST /recommend HTTP/1.1\r\nX-Slow: ", 0.0),
        (b"POST /recommend HTTP/1.1\r\nContent-Length: 60\r\n\r\n{", 0.0),
        (post("/recommend/batch", b'{"requests":[{"k":1}]}') * 40, 0.1),  # most of them wait
        (UNREAD, 0.0),
        (UNREAD * 20, 0.0),  # some not even parsed
    ],
)
def test_a_connection_that_ends_is_free_without_the_garbage_collector(sent: bytes, seconds: float) -> None:
    async def case() -> None:
        async with connected(seconds) as line:
            if sent:
                await line.send(sent)
            await asyncio.sleep(0.05)
            line.client.close()
            for _ in range(100):
                await asyncio.sleep(0.02)
                if line.protocol() is None:
                    break
            assert line.protocol() is None, gc.get_referrers(line.protocol())

    gc.collect()
    gc.disable()
    try:
        run(case)
    finally:
        gc.enable()
