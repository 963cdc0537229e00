"""A source of an answer is given a deadline, and a rest when it fails too often: whatever hangs or breaks, the request goes on.

A call that hangs cannot be ended from the thread that waits for it, so work that may hang runs on a thread of the guard's own: a
database, always. Handing over costs some ten microseconds on an idle machine and a turn in the queue on a busy one. What only
computes in memory is trusted to end while it is well: it runs where it is called, and on a thread of the guard's after it was late
or failed, until it is in time again. A thread that hangs is left behind; there are at most MOST_THREADS.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from shortlist.errors import BadRequestError

MOST_THREADS = 32
Result = TypeVar("Result")


class SourceDown(Exception):
    """A source did not answer. The text is one for the slate: it names the source and no user."""


class Guard:
    """Calls one source. Safe to use from several threads."""

    def __init__(self, name: str, deadline_s: float, *, failures: int, rest_s: float, is_trusted: bool = False) -> None:
        """After `failures` in a row the source is left alone for `rest_s`, then tried with one request.

        is_trusted   the work ends by itself while all is well: no thread is needed until it was late or failed
        """
        self.name, self.deadline_s, self._is_trusted = name, deadline_s, is_trusted
        self._failures, self._rest_s = failures, rest_s
        self._failed_in_a_row, self._resting_until = 0, 0.0
        self._idle: deque[_Worker] = deque()
        self._started = 0
        self.calls, self.failed, self.late = 0, 0, 0  # for the gauges

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` returns. Raises SourceDown where it fails, is late or rests; BadRequestError where it says so."""
        self.calls += 1
        if self.is_resting:
            if time.monotonic() < self._resting_until:
                raise SourceDown(f"{self.name}: resting after {self._failed_in_a_row} failures")
            self._resting_until = time.monotonic() + self._rest_s  # this request tries; the others go on without
        started = time.monotonic()
        try:
            is_well = self._is_trusted and not self._failed_in_a_row
            result = work() if is_well else self._within_deadline(work)
        except BadRequestError:
            raise
        except TimeoutError:
            reason = f"no answer within {self.deadline_s * 1000:g} ms"
        except Exception as error:
            reason = f"failed ({type(error).__name__})"
        else:
            is_late = is_well and time.monotonic() - started > self.deadline_s
            self._failed_in_a_row = int(is_late)  # late, and yet an answer: it is used, and the next call is watched
            self.late += is_late
            return result
        self.failed += 1
        self._failed_in_a_row += 1
        self._resting_until = time.monotonic() + self._rest_s
        raise SourceDown(f"{self.name}: {reason}") from None

    @property
    def is_resting(self) -> bool:
        """Whether the source failed so often that it is left alone."""
        return self._failed_in_a_row >= self._failures

    def close(self) -> None:
        """Nothing comes back: idle threads end."""
        while self._idle:
            self._idle.pop().hand(None)

    def _within_deadline(self, work: Callable[[], Result]) -> Result:
        job = _Job(work)
        self._idle_worker().hand(job)
        if not job.done.acquire(timeout=self.deadline_s):
            raise TimeoutError
        if job.error is not None:
            raise job.error
        result: Result = job.result
        return result

    def _idle_worker(self) -> _Worker:
        try:
            return self._idle.pop()
        except IndexError:
            if self._started >= MOST_THREADS:
                raise TimeoutError from None
            self._started += 1
            return _Worker(self._idle, f"source {self.name}")


class _Job:
    """One call, and what became of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class _Worker:
    """A thread that takes one job at a time, and returns to `idle` before it says that it is done."""

    def __init__(self, idle: deque[_Worker], name: str) -> None:
        self._idle, self._handed = idle, threading.Lock()
        self._job: _Job | None = None
        self._handed.acquire()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def hand(self, job: _Job | None) -> None:
        """Nothing comes back: the thread begins the job, or ends."""
        self._job = job
        self._handed.release()

    def _run(self) -> None:
        while True:
            self._handed.acquire()
            job, self._job = self._job, None  # nothing is kept: a job holds a version alive
            if job is None:
                return
            try:
                job.result = job.work()
            except BaseException as error:
                job.error = error
            self._idle.append(self)
            job.done.release()
            del job
