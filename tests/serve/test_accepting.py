"""Many clients who connect at once are taken in a few rounds of the loop, not one in each."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from shortlist.serve import accepting
from shortlist.serve.accepting import AT_ONCE, Acceptor
from shortlist.serve.listener import open_listener

CLIENTS, ROUNDS = 41, 12  # 3 looks for 16 at once; the rest of the rounds is for handing over


class Greeting(asyncio.Protocol):
    """Says one letter to who connects."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(b"!")
        transport.close()


class Exhausted:
    """A listener for which the system has no descriptor at first."""

    def __init__(self, listener: socket.socket, failures: int) -> None:
        self.listener, self.failures = listener, failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)

    def accept(self) -> Any:
        """Fails so many times, then as the listener does."""
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self.listener.accept()


def clients_of(listener: socket.socket, count: int, stack: ExitStack) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5)) for _ in range(count)]


def no_failure(error: OSError) -> None:
    raise AssertionError(error)


def run(work: Coroutine[Any, Any, None], *, on_uvloop: bool) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as runner:
        runner.run(asyncio.wait_for(work, 10))


def hears_nothing(client: socket.socket) -> None:
    """Fails where the client was served."""
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(9)


@pytest.mark.parametrize("on_uvloop", [True, False])
def test_a_wave_of_clients_is_taken_in_a_few_rounds(on_uvloop: bool) -> None:
    made = []

    def protocol() -> Greeting:
        made.append(1)
        return Greeting()

    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener, ExitStack() as stack:
            waiting = clients_of(listener, CLIENTS, stack)
            acceptor = Acceptor(listener, protocol, failed=no_failure)
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            assert len(made) == CLIENTS > 2 * AT_ONCE
            await acceptor.close()
            assert [client.recv(9) for client in waiting] == [b"!"] * CLIENTS

    run(work(), on_uvloop=on_uvloop)


@pytest.mark.parametrize("on_uvloop", [True, False])
def test_without_descriptors_it_rests_and_goes_on(monkeypatch: pytest.MonkeyPatch, on_uvloop: bool) -> None:
    monkeypatch.setattr(accepting, "_REST_S", 0.02)
    failed: list[OSError] = []

    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener, ExitStack() as stack:
            (client,) = clients_of(listener, 1, stack)
            acceptor = Acceptor(Exhausted(listener, 2), Greeting, failed=failed.append)  # type: ignore[arg-type]
            assert await asyncio.to_thread(client.recv, 9) == b"!"
            assert [error.errno for error in failed] == [errno.EMFILE] * 2
            await acceptor.close()

    run(work(), on_uvloop=on_uvloop)


def test_closed_while_it_rests_it_takes_who_waits_and_nobody_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_REST_S", 0.02)

    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener, ExitStack() as stack:
            (early,) = clients_of(listener, 1, stack)
            failed: list[OSError] = []
            acceptor = Acceptor(Exhausted(listener, 1), Greeting, failed=failed.append)  # type: ignore[arg-type]
            while not failed:
                await asyncio.sleep(0)
            await acceptor.close()
            (late,) = clients_of(listener, 1, stack)
            await asyncio.sleep(0.1)
            assert early.recv(9) == b"!"
            hears_nothing(late)

    run(work(), on_uvloop=True)


def test_closing_without_descriptors_says_so_and_serves_those_before() -> None:
    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener, ExitStack() as stack:
            clients_of(listener, 1, stack)
            failed: list[OSError] = []
            acceptor = Acceptor(Exhausted(listener, 9), Greeting, failed=failed.append)  # type: ignore[arg-type]
            await acceptor.close()
            assert [error.errno for error in failed] == [errno.EMFILE]

    run(work(), on_uvloop=True)


def test_after_closing_nobody_is_taken_and_those_before_are_served() -> None:
    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener, ExitStack() as stack:
            (early,) = clients_of(listener, 1, stack)
            acceptor = Acceptor(listener, Greeting, failed=no_failure)
            acceptor._take()
            await acceptor.close()
            (late,) = clients_of(listener, 1, stack)
            for _ in range(ROUNDS):
                await asyncio.sleep(0.001)
            assert early.recv(9) == b"!"
            hears_nothing(late)

    run(work(), on_uvloop=True)


def test_another_fault_of_the_listener_is_not_swallowed() -> None:
    async def work() -> None:
        with open_listener("127.0.0.1", 0) as listener:
            acceptor = Acceptor(listener, Greeting, failed=no_failure)
            with listener.dup() as closed:
                closed.close()
                acceptor._listener, kept = closed, acceptor._listener
                with pytest.raises(OSError, match="Bad file descriptor"):
                    acceptor._take()
                acceptor._listener = kept
            await acceptor.close()

    run(work(), on_uvloop=True)
