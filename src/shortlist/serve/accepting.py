"""Takes connections from a listener, many at a look.

uvloop takes one each time it looks at its sockets. Under overload a look comes every few milliseconds, after a hundred refusals, and a
wave of a thousand clients who connect at once would wait three seconds for a word. Taken here, they wait for a quarter of one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from shortlist.serve.listener import EXHAUSTED

AT_ONCE = 16  # at a look: what is left is for the next, or for another worker
_REST_S = 1.0  # when there are no more descriptors, as asyncio's own servers do


class Acceptor:
    """Hands the connections of one listener to the event loop. Used from its loop alone."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], *, failed: Callable[[OSError], None]) -> None:
        """`protocol` makes that of one connection; `failed` is told when the system has no room for another."""
        self._loop = asyncio.get_running_loop()
        self._listener, self._protocol, self._failed = listener, protocol, failed
        self._tasks: set[asyncio.Task[object]] = set()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._take)

    async def close(self) -> None:
        """Takes no more; comes back when all that were taken have their protocol."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.fileno())
        if self._tasks:
            await asyncio.wait(self._tasks)

    def hand_over(self, connection: socket.socket) -> None:
        """Nothing comes back: the loop serves the connection from its next round on."""
        task: asyncio.Task[object] = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # it left again
                continue
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._failed(error)
                self._loop.remove_reader(self._listener.fileno())
                self._again = self._loop.call_later(_REST_S, self._loop.add_reader, self._listener.fileno(), self._take)
                return
            self.hand_over(connection)
