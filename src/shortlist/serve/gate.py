"""Who is let in, and whose turn it is: requests are refused on arrival when they would wait too long, before any work.

A gate lets `width` requests work at once; the others wait in order of arrival. It knows its pace, the smoothed time
between two answers while it is busy, so (waiting x pace) is how long a newcomer would wait: by Little's law, whatever
makes answers slow (a bigger corpus, a busy machine, the refusing itself) is in it. Where that exceeds the allowed wait,
the newcomer is refused at once.

Between two turns the event loop looks at its sockets, so that a refusal takes no longer than one answer; work that is quick and on
the loop itself gets several turns at a look, for a while: so it goes on with warm caches, and so do the refusals after it.

A gradient limit (limit x minRTT / RTT + sqrt(limit)) was weighed: with one worker its fixed point is below 3 waiting
requests, which refuses chance bursts far below capacity; docs/decisions.md has the numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

LEAST_ROOM = 8  # requests inside, whatever the pace
PRESSED = 0.1  # of the room: with so many inside, work that can wait should
LOOK_EVERY_S = 0.0008  # how long turns may go on without a look at the sockets
_FEW = 2  # inside are never a press
_SMOOTHING = 0.05
_FIRST_SAMPLES = 20  # until then the quickest counts: the first answers of a process are slow, and no measure
_LARGEST_JUMP = 4.0  # one sample counts as this many paces at most: a stall of the machine is not the pace


class Gate:
    """Admission and order of one lane. Used from the event loop alone, where nothing else is said."""

    def __init__(self, *, width: int = 1, wait_longest_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.width = width  # may change at any time
        self.inside = 0  # let in and not yet gone: waiting or working
        self.refused = 0
        self.room = 256  # how many may be inside; until the pace is known, a guess
        self.pace_s = 0.0
        self._wait_longest_s = wait_longest_s
        self._clock = clock
        self._answers = 0
        self._working = 0
        self._waiting: deque[asyncio.Future[None] | Callable[[float], None]] = deque()
        self._is_called = False  # whether the loop will give turns by itself
        self._last_s = 0.0  # when the last answer was ready
        self._was_busy = False  # whether somebody was waiting then

    @property
    def is_full(self) -> bool:
        """Whether the next request would wait too long."""
        return self.inside >= self.room

    @property
    def is_pressed(self) -> bool:
        """Whether requests wait for a good part of what they may; read from any thread."""
        return self.inside > max(_FEW, self.room * PRESSED)

    def enter(self) -> bool:
        """Whether a request is let in; it must `leave` in the end."""
        if self.is_full:
            self.refused += 1
            return False
        self.inside += 1
        return True

    async def turn(self) -> float:
        """The time (of the gate's clock) at which this request's turn came; it must say `done` after its work."""
        if self._working < self.width and not self._waiting:
            self._working += 1
            return self._clock()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._advance()  # the turn was given already: pass it on
            raise
        return self._clock()

    def ask(self, work: Callable[[float], None]) -> None:
        """Nothing comes back. `work` is called with the time (of the gate's clock) when its turn has come, and is over when it returns."""
        self._waiting.append(work)
        if not self._is_called and self._working < self.width:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._give)

    def done(self, started_s: float) -> None:
        """The work that began at `started_s` is over: the next one's turn, after a look at the sockets."""
        self._measure(started_s)
        asyncio.get_running_loop().call_soon(self._advance)

    def _measure(self, started_s: float) -> None:
        now = self._clock()
        self._answers += 1
        self.pace_s = self._smoothed(self.pace_s, now - (self._last_s if self._was_busy else started_s))
        self.room = max(LEAST_ROOM, self.width, int(self._wait_longest_s / max(self.pace_s, 1e-6)))
        self._last_s, self._was_busy = now, bool(self._waiting)

    def leave(self) -> None:
        """The request is answered, or given up."""
        self.inside -= 1

    def _advance(self) -> None:
        """Gives a free place to those who wait."""
        self._working -= 1
        self._give()

    def _give(self) -> None:
        self._is_called = False
        until_s = self._clock() + LOOK_EVERY_S
        while self._waiting and self._working < self.width:
            turn = self._waiting.popleft()
            if isinstance(turn, asyncio.Future):
                if not turn.done():
                    self._working += 1
                    turn.set_result(None)
                continue
            started_s = self._clock()
            self._working += 1
            try:
                turn(started_s)
            except BaseException:
                until_s = 0.0  # others have their turns, after the loop has told of this
                raise
            finally:
                self._working -= 1
                self._measure(started_s)
                if self._waiting and self._clock() >= until_s and not self._is_called:
                    self._is_called = True
                    asyncio.get_running_loop().call_soon(self._give)
            if self._is_called:
                return

    def _smoothed(self, mean: float, sample: float) -> float:
        if self._answers <= _FIRST_SAMPLES:
            return min(mean, sample) if mean else sample
        return mean + _SMOOTHING * (min(sample, _LARGEST_JUMP * mean) - mean)
