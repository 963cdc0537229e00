"""Long work beside requests: a thread that says so rests between its steps, for longer than each step took.

A version is loaded in the process that answers. The load is one more busy thread on cores that answers need, on their memory bandwidth
and on the interpreter's lock: at 70 % load there is not enough left, and answers queue. Priorities do not help, for who holds the lock
must run. So the load takes a share of one core only, and still less while requests wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_RESTS = 10  # times as long as else a thread rests while others are pressed: what it does must end some day
_LOOK_S, _SELDOM_S = 0.002, 0.05  # after how long it looks whether they still are, first and later: each look takes the interpreter's lock


def nobody_waits() -> bool:
    """Nobody is ever pressed: for work that has no requests beside it."""
    return False


class _Own(threading.local):
    share = 1.0  # of the time, that this thread works
    since_s = 0.0  # when it last began to
    hurry: threading.Event | None = None  # set: no more rests
    is_pressed: Callable[[], bool] = staticmethod(nobody_waits)


_own = _Own()


@contextmanager
def unhurried(share: float, hurry: threading.Event, is_pressed: Callable[[], bool] = nobody_waits) -> Iterator[None]:
    """In the block, this thread works for `share` of the time at most, as far as its steps are short; until `hurry` is set.

    is_pressed  whether those beside it have too much to do just now: then it rests on, up to MOST_RESTS times as long
    """
    before = _own.share, _own.since_s, _own.hurry, _own.is_pressed
    _own.share, _own.since_s, _own.hurry, _own.is_pressed = share, time.perf_counter(), hurry, is_pressed
    try:
        yield
    finally:
        _own.share, _own.since_s, _own.hurry, _own.is_pressed = before


def step() -> None:
    """Nothing comes back. A step is over: an unhurried thread rests now, any other goes on."""
    if _own.hurry is None:
        return
    rest_s = (time.perf_counter() - _own.since_s) * (1 / _own.share - 1)
    ended_s = time.perf_counter() + MOST_RESTS * rest_s
    is_hurried, look_s = _own.hurry.wait(rest_s), _LOOK_S
    while not is_hurried and _own.is_pressed() and time.perf_counter() < ended_s:
        is_hurried = _own.hurry.wait(look_s)
        look_s = min(2 * look_s, _SELDOM_S)
    _own.since_s = time.perf_counter()
