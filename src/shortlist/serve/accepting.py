"""Takes connections from a listener, many at a look.

uvloop takes one each time it looks at its sockets. Under overload a look comes every few milliseconds, after a hundred refusals, and a
wave of a thousand clients who connect at once would wait a thousand looks for a word. Taken here, they wait for some sixty.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from itertools import islice

from shortlist.serve.listener import EXHAUSTED, take_waiting

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
        self._loop.add_reader(listener.fileno(), self._take)

    async def close(self) -> None:
        """Takes who is waiting, and nobody after; comes back when all that were taken have their protocol."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._hand_over(None)
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self) -> None:
        if not self._hand_over(AT_ONCE):
            self._loop.remove_reader(self._listener.fileno())
            self._again = self._loop.call_later(_REST_S, self._loop.add_reader, self._listener.fileno(), self._take)

    def _hand_over(self, most: int | None) -> bool:
        """Whether there was room for all who wait, at most so many: the loop serves them from its next round on."""
        try:
            for connection in islice(take_waiting(self._listener), most):
                task: asyncio.Task[object] = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._failed(error)
            return False
        return True
