"""Who waits, who is refused, and how soon: the gate with a clock of its own, and the lanes of the application."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from small_http import Reply, ask, asked, small_app
from small_service import SmallService

from shortlist.serve.app import App
from shortlist.serve.gate import LEAST_ROOM, LOOK_EVERY_S, Gate
from shortlist.serve.limits import Limits
from shortlist.serve.messages import Slate
from shortlist.serve.placement import FIRST_ANSWERS, Placement
from shortlist.serve.routes import Lane


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def prime(app: App) -> None:
    """The first answers of the version, after which slow ones are computed in threads."""
    for _ in range(FIRST_ANSWERS):
        await ask(app, "POST", "/recommend", {})


async def work(gate: Gate, clock: Clock, seconds: float) -> None:
    started = await gate.turn()
    clock.now += seconds
    gate.done(started)
    gate.leave()


def test_turns_come_in_order_of_arrival_one_at_a_time() -> None:
    async def run() -> list[int]:
        gate, order = Gate(wait_longest_s=1.0), []

        async def one(number: int) -> None:
            assert gate.enter()
            started = await gate.turn()
            order.append(number)
            await asyncio.sleep(0)  # others must not start meanwhile
            order.append(number)
            gate.done(started)
            gate.leave()

        await asyncio.gather(*(one(number) for number in range(5)))
        assert gate.inside == 0
        return order

    assert asyncio.run(run()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_between_two_turns_the_loop_looks_at_everything_else() -> None:
    async def run() -> list[str]:
        gate, seen = Gate(wait_longest_s=1.0), []

        async def one() -> None:
            started = await gate.turn()
            seen.append("work")
            asyncio.get_running_loop().call_soon(seen.append, "sockets")
            gate.done(started)

        await asyncio.gather(one(), one(), one())
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(run()) == ["work", "sockets"] * 3


def test_quick_work_has_several_turns_between_two_looks_and_not_for_ever() -> None:
    async def run() -> list[str]:
        clock = Clock()
        gate, seen = Gate(wait_longest_s=1.0, clock=clock), list[str]()

        def work(started_s: float) -> None:
            assert started_s == clock.now
            seen.append("work")
            clock.now += 0.4 * LOOK_EVERY_S

        for _ in range(5):
            gate.ask(work)
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append("look")
        assert gate.pace_s == pytest.approx(0.4 * LOOK_EVERY_S)
        return seen

    assert asyncio.run(run()) == ["work", "work", "work", "look", "work", "work", "look", "look"]


def test_work_that_fails_does_not_keep_others_from_their_turn() -> None:
    async def run() -> list[int]:
        gate, seen = Gate(wait_longest_s=1.0), list[int]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(-1))

        def fail(started_s: float) -> None:
            raise ValueError("work")

        async def other() -> None:
            gate.done(await gate.turn())
            seen.append(2)

        gate.ask(fail)
        gate.ask(lambda started_s: seen.append(1))
        await other()
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(run()) == [-1, 1, 2]


def test_the_room_is_the_allowed_wait_over_the_pace() -> None:
    async def run() -> tuple[int, int]:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)
        await work(gate, clock, 0.001)
        first = gate.room  # 50 ms / .99 ms
        for _ in range(200):
            await work(gate, clock, 0.004)
            await asyncio.sleep(0)
        return first, gate.room  # 50 ms / 4 ms

    first, second = asyncio.run(run())
    assert (first, second) == (50, 12)


def test_a_gate_is_pressed_where_requests_wait_a_tenth_of_what_they_may() -> None:
    async def run() -> list[int]:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)
        gate.enter()
        await work(gate, clock, 0.001)
        assert gate.room == 50
        pressed = []
        for inside in range(50):
            if gate.is_pressed:
                pressed.append(inside)
            assert gate.enter()
        for _ in range(50):
            gate.leave()
        assert not gate.is_pressed
        return pressed

    assert asyncio.run(run()) == list(range(6, 50))


def test_one_answer_and_one_that_waits_are_no_press_however_slow_they_are() -> None:
    gate = Gate(wait_longest_s=0.05)
    gate.room = 8
    pressed = []
    for _ in range(5):
        pressed.append(gate.is_pressed)
        gate.enter()
    assert pressed == [False, False, False, True, True]


def test_the_pace_of_a_busy_gate_counts_what_lies_between_answers() -> None:
    """1 ms of work and 3 ms of something else between two answers: 4 ms a request, while somebody waits."""

    async def run() -> float:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)

        async def one() -> None:
            started = await gate.turn()
            clock.now += 0.001
            gate.done(started)
            clock.now += 0.003

        await asyncio.gather(*(one() for _ in range(300)))
        return gate.pace_s

    assert asyncio.run(run()) == pytest.approx(0.004, rel=1e-3)


def test_the_slow_first_answers_of_a_process_do_not_shut_the_gate() -> None:
    async def run() -> int:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)
        for seconds in (0.4, 0.02, 0.00099, 0.003):
            await work(gate, clock, seconds)
            await asyncio.sleep(0)
        return gate.room  # the quickest so far: 50 ms / .99 ms

    assert asyncio.run(run()) == 50


def test_one_stall_does_not_shut_the_gate() -> None:
    async def run() -> int:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)
        for _ in range(100):
            await work(gate, clock, 0.0005)
            await asyncio.sleep(0)
        await work(gate, clock, 2.0)  # the machine stood still
        return gate.room  # the sample counts as 4 paces: .5 ms * (1 + .05 * 3) = .575 ms; 50 / .575 = 86

    assert asyncio.run(run()) == 86


def test_a_full_gate_refuses_and_opens_again_when_somebody_leaves() -> None:
    gate = Gate(wait_longest_s=0.05)
    gate.room = 3
    assert [gate.enter() for _ in range(5)] == [True, True, True, False, False] and gate.refused == 2
    gate.leave()
    assert gate.enter() and not gate.enter()


def test_a_slow_gate_keeps_a_little_room() -> None:
    async def run() -> int:
        clock = Clock()
        gate = Gate(wait_longest_s=0.05, clock=clock)
        await work(gate, clock, 1.0)
        return gate.room

    assert asyncio.run(run()) == LEAST_ROOM


def test_who_gives_up_while_waiting_does_not_keep_the_turn() -> None:
    async def run() -> list[str]:
        gate, seen = Gate(wait_longest_s=1.0), []

        async def one(name: str) -> None:
            started = await gate.turn()
            seen.append(name)
            await asyncio.sleep(0)
            gate.done(started)

        tasks = [asyncio.create_task(one(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()  # waits still
        await asyncio.sleep(0)
        while len(seen) < 2:
            await asyncio.sleep(0)
        await asyncio.wait(tasks)
        return seen

    assert asyncio.run(run()) == ["a", "c", "d"]


def test_a_wider_gate_lets_several_work_and_narrows_again() -> None:
    async def run() -> list[int]:
        gate, working, most = Gate(width=3, wait_longest_s=1.0), 0, []

        async def one() -> None:
            nonlocal working
            started = await gate.turn()
            working += 1
            most.append(working)
            await asyncio.sleep(0.001)
            working -= 1
            gate.done(started)

        await asyncio.gather(*(one() for _ in range(9)))
        wide = max(most)
        gate.width = 1
        most.clear()
        await asyncio.gather(*(one() for _ in range(4)))
        return [wide, max(most)]

    assert asyncio.run(run()) == [3, 1]


def test_quick_answers_stay_on_the_loop_and_slow_ones_leave_it() -> None:
    async def run(seconds: float) -> set[str]:
        service = SmallService(seconds)
        app = small_app(service)
        await app.open()
        await prime(app)
        service.threads.clear()
        for _ in range(3):
            await ask(app, "POST", "/recommend", {})
        await app.close()
        return service.threads

    assert asyncio.run(run(0.0)) == {"MainThread"}
    assert asyncio.run(run(0.003)) == {Lane.ANSWERS.value}


def test_one_quick_answer_in_twenty_shows_that_a_version_is_quick() -> None:
    placement = Placement(0.002)
    for number in range(FIRST_ANSWERS):
        assert placement.is_on_loop
        placement.learn("v1", 0.001 if number == 7 else 0.3)
    assert placement.is_on_loop
    placement.learn("v1", 0.3)  # the machine is busy
    assert placement.is_on_loop


def test_each_version_is_tried_on_the_loop() -> None:
    placement = Placement(0.002)
    for _ in range(FIRST_ANSWERS):
        placement.learn("v1", 0.003)
    assert not placement.is_on_loop
    placement.see([Slate(version="v1", items=[], scores=[], sources=[])])
    assert not placement.is_on_loop
    placement.see([Slate(version="v2", items=[], scores=[], sources=[])])
    assert placement.is_on_loop
    placement.learn("v1", 0.003)  # one that began before
    placement.learn("v2", 0.003)
    assert placement.is_on_loop


def test_writes_and_batches_never_work_on_the_loop() -> None:
    service = SmallService()
    app = small_app(service)
    asked(app, "POST", "/events", {"events": [{"user": 1, "item": "i01"}]})
    asked(app, "PUT", "/items", {"items": [{"item_id": "x"}]})
    asked(app, "DELETE", "/items", {"ids": ["x"]})
    assert service.threads == {Lane.WRITES.value}
    asked(app, "POST", "/recommend/batch", {"requests": [{}]})
    asked(app, "POST", "/admin/reload")
    assert service.threads == {Lane.WRITES.value, Lane.READS.value, Lane.ADMIN.value}


def test_a_write_that_hangs_delays_no_query() -> None:
    async def run() -> tuple[float, int]:
        service, hang = SmallService(), threading.Event()
        app = small_app(service)
        await app.open()
        service.put_items = lambda rows: hang.wait(5)  # type: ignore[assignment, method-assign, return-value]
        writes = [asyncio.create_task(ask(app, "PUT", "/items", {"items": [{"item_id": "x"}]})) for _ in range(5)]
        await asyncio.sleep(0.02)
        start = time.perf_counter()
        reply = await ask(app, "POST", "/recommend", {})
        taken = time.perf_counter() - start
        hang.set()
        await asyncio.gather(*writes)
        await app.close()
        return taken, reply.status

    taken, status = asyncio.run(run())
    assert status == 200 and taken < 1.0


def test_beyond_the_room_queries_are_refused_with_a_time_to_come_again() -> None:
    async def run() -> list[Reply]:
        app = small_app(SmallService(0.01))
        await app.open()
        await prime(app)
        app.gates[Lane.ANSWERS].room = 3
        replies = await asyncio.gather(*(ask(app, "POST", "/recommend", {}) for _ in range(7)))
        await app.close()
        return replies

    replies = asyncio.run(run())
    assert [reply.status for reply in replies] == [200] * 3 + [429] * 4
    refused = replies[-1]
    assert refused.headers["retry-after"] == "1" and refused.json["error"] == "overloaded" and "nothing was done" in refused.json["message"]


def test_every_request_that_entered_leaves_whatever_became_of_it() -> None:
    service = SmallService()
    app = small_app(service)
    for body, fault in (({}, None), (b"{", None), ({"k": 0}, None), ({"k": 13}, None), ({}, KeyError("x"))):
        service.fault = fault
        asked(app, "POST", "/recommend", body)
    assert app.gates[Lane.ANSWERS].inside == 0


def test_a_query_whose_turn_comes_too_late_is_refused_without_work() -> None:
    async def run() -> list[int]:
        service = SmallService(0.02)
        app = small_app(service, limits=Limits(answer_latest_s=0.01, threads=1))
        await app.open()
        await prime(app)
        replies = await asyncio.gather(*(ask(app, "POST", "/recommend", {}) for _ in range(3)))
        await app.close()
        return [reply.status for reply in replies]

    assert asyncio.run(run()) == [200, 429, 429]
