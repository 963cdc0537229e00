"""Work beside requests rests after each step; other threads, and who is in a hurry, do not."""

from __future__ import annotations

import threading
import time

import pytest

from shortlist import pace


class Clock:
    """A clock that goes on by what is slept, and by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


class Rests(threading.Event):
    """Notes how long it was waited for, which takes no time but the clock's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.rests_s = clock, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.rests_s.append(timeout)
        self.clock.now_s += timeout
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace.time, "perf_counter", clock.perf_counter)
    return clock


def test_a_quarter_of_the_time_is_work(clock: Clock) -> None:
    rests = Rests(clock)
    with pace.unhurried(0.25, rests):
        for seconds in (2.0, 5.0):
            clock.now_s += seconds
            pace.step()
    assert rests.rests_s == [6.0, 15.0] and clock.now_s == 2 + 6 + 5 + 15


def test_outside_and_in_other_threads_a_step_costs_nothing(clock: Clock) -> None:
    rests = Rests(clock)
    clock.now_s = 7.0
    pace.step()
    with pace.unhurried(0.5, rests):
        clock.now_s += 3.0
        other = threading.Thread(target=pace.step)
        other.start()
        other.join()
        assert rests.rests_s == []
        pace.step()
    pace.step()
    assert rests.rests_s == [3.0]


def test_a_block_in_a_block_ends_with_the_outer_ones_share(clock: Clock) -> None:
    outer, inner = Rests(clock), Rests(clock)
    with pace.unhurried(0.5, outer):
        with pace.unhurried(0.2, inner):
            clock.now_s += 1.0
            pace.step()
        clock.now_s = 100.0
        pace.step()
    assert inner.rests_s == [4.0] and len(outer.rests_s) == 1


def test_who_is_in_a_hurry_does_not_rest() -> None:
    hurry = threading.Event()
    hurry.set()
    start = time.perf_counter()
    with pace.unhurried(1e-9, hurry):
        pace.step()
    assert time.perf_counter() - start < 5
