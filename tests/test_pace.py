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


def test_while_others_are_pressed_it_rests_on(clock: Clock) -> None:
    rests, looks = Rests(clock), iter([True, True, True, False, False])
    with pace.unhurried(0.5, rests, lambda: next(looks)):
        for _ in range(2):
            clock.now_s += 1.0
            pace.step()
    first = rests.rests_s[1]
    assert rests.rests_s == [1.0, first, 2 * first, 4 * first, 1.0] and 0 < first < 0.01


def test_the_longer_others_are_pressed_the_less_it_looks(clock: Clock) -> None:
    rests = Rests(clock)
    with pace.unhurried(0.5, rests, lambda: True):
        clock.now_s += 1.0
        pace.step()
    assert len(rests.rests_s) < 9 / 0.05 + 10 and max(rests.rests_s[1:]) < 0.1


def test_others_that_are_always_pressed_do_not_keep_it_for_ever(clock: Clock) -> None:
    rests = Rests(clock)
    with pace.unhurried(0.5, rests, lambda: True):
        clock.now_s += 1.0
        pace.step()
    assert sum(rests.rests_s) == pytest.approx(pace.MOST_RESTS * 1.0, abs=0.1)


def test_who_is_in_a_hurry_does_not_care_who_is_pressed() -> None:
    hurry = threading.Event()
    hurry.set()
    looked = list[int]()
    with pace.unhurried(0.5, hurry, lambda: bool(looked.append(1)) or True):
        pace.step()
    assert not looked


def test_whose_block_has_ended_asks_nobody(clock: Clock) -> None:
    rests, asked = Rests(clock), list[int]()
    with pace.unhurried(0.5, rests):
        with pace.unhurried(0.5, rests, lambda: bool(asked.append(1))):
            pace.step()
        pace.step()
    assert len(asked) == 1
