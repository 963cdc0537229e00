"""Long work beside requests: a thread that says so rests between its steps, for longer than each step took.

A version is loaded in the process that answers. The load is one more busy thread on cores that answers need, on their memory bandwidth
and on the interpreter's lock: at 70 % load there is not enough left, and answers queue. Priorities do not help, for who holds the lock
must run. So the load takes a share of one core only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Own(threading.local):
    share = 1.0  # of the time, that this thread works
    since_s = 0.0  # when it last began to
    hurry: threading.Event | None = None  # set: no more rests


_own = _Own()


@contextmanager
def unhurried(share: float, hurry: threading.Event) -> Iterator[None]:
    """In the block, this thread works for `share` of the time at most, as far as its steps are short; until `hurry` is set."""
    before = _own.share, _own.since_s, _own.hurry
    _own.share, _own.since_s, _own.hurry = share, time.perf_counter(), hurry
    try:
        yield
    finally:
        _own.share, _own.since_s, _own.hurry = before


def step() -> None:
    """Nothing comes back. A step is over: an unhurried thread rests now, any other goes on."""
    if _own.hurry is not None:
        _own.hurry.wait((time.perf_counter() - _own.since_s) * (1 / _own.share - 1))
        _own.since_s = time.perf_counter()
