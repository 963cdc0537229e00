"""Looks at the deadlines of all connections again and again, at a few of them at a time.

Slow clients often come together, so that their deadlines pass together, and who is cut comes again at once. To end five hundred
connections and to take as many takes tens of milliseconds, in which nobody else is answered. In twenty parts others wait for one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

EVERY_S = 0.1  # how often a connection is looked at
PARTS = 20  # looks that this is spread over


class Enforceable(Protocol):
    """A connection that has deadlines."""

    def enforce(self, now_s: float) -> None:
        """Ends the connection where a deadline has passed; `now_s` of the event loop's clock."""


async def keep_deadlines(connections: Collection[Enforceable], *, failed: Callable[[Exception], None]) -> None:
    """Never comes back: whoever of `connections`, which may change, is late is ended.

    failed   told what ending one of them raised; the others are looked at all the same
    """
    now_s = asyncio.get_running_loop().time
    while True:
        present = list(connections)
        for part in range(PARTS):
            for connection in present[part::PARTS]:
                if connection in connections:  # it has not ended meanwhile
                    _enforce(connection, now_s(), failed)
            await asyncio.sleep(EVERY_S / PARTS)


def _enforce(connection: Enforceable, now_s: float, failed: Callable[[Exception], None]) -> None:
    try:
        connection.enforce(now_s)
    except Exception as error:
        failed(error)
