"""Deadlines: every connection is looked at in time, a part of them at a time, and one that fails keeps nobody from being looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from shortlist.serve.deadlines import EVERY_S, PARTS, keep_deadlines


class Connection:
    def __init__(self, looks: list[tuple[float, Connection]], *, fails: bool = False) -> None:
        self._looks, self._fails = looks, fails

    def enforce(self, now_s: float) -> None:
        self._looks.append((now_s, self))
        if self._fails:
            raise RuntimeError("planted")


def watch(connections: set[Connection], errors: list[Exception], *, until: Callable[[], bool]) -> None:
    """Comes back when `until` is so; it is asked a hundred times a second."""

    async def run() -> None:
        task = asyncio.create_task(keep_deadlines(connections, failed=errors.append))
        while not until():
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_every_connection_is_looked_at_a_part_of_them_at_a_time() -> None:
    looks: list[tuple[float, Connection]] = []
    connections: set[Connection] = {Connection(looks) for _ in range(101)}
    watch(connections, [], until=lambda: len(looks) >= 101)
    assert {connection for _, connection in looks[:101]} == connections
    times = [now_s for now_s, _ in looks[:101]]
    rests = [place for place, (earlier, later) in enumerate(pairwise(times), 1) if later - earlier >= 0.8 * EVERY_S / PARTS]
    assert len(rests) >= PARTS - 1
    assert max(later - earlier for earlier, later in pairwise([0, *rests, 101])) <= -(-101 // PARTS)


def test_who_came_meanwhile_is_looked_at_and_who_left_is_not() -> None:
    looks: list[tuple[float, Connection]] = []
    leaves, comes = Connection(looks), Connection(looks)
    connections: set[Connection] = {leaves}
    before: list[Connection] = []

    def is_enough() -> bool:
        if looks and not before:
            before.extend(connection for _, connection in looks)
            connections.remove(leaves)
            connections.add(comes)
        return len(looks) >= len(before) + 3

    watch(connections, [], until=is_enough)
    assert set(before) == {leaves}
    assert {connection for _, connection in looks[len(before) :]} == {comes}


def test_one_that_left_since_the_round_began_is_not_looked_at() -> None:
    looks: list[tuple[float, Connection]] = []
    connections: set[Connection] = {Connection(looks) for _ in range(2 * PARTS)}
    gone: list[Connection] = []

    def is_enough() -> bool:
        if looks and not gone:
            gone.extend(connections - {connection for _, connection in looks})
            connections.difference_update(gone)
        return len(looks) >= 4 * PARTS

    watch(connections, [], until=is_enough)
    assert gone
    assert not set(gone) & {connection for _, connection in looks}


def test_one_that_fails_keeps_nobody_from_being_looked_at() -> None:
    looks: list[tuple[float, Connection]] = []
    good, bad = Connection(looks), Connection(looks, fails=True)
    errors: list[Exception] = []
    watch({good, bad}, errors, until=lambda: len(looks) >= 5)
    assert min(Counter(connection for _, connection in looks).values()) >= 2
    assert {str(error) for error in errors} == {"planted"}
