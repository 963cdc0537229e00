"""A source that hangs, breaks or talks nonsense: the answer comes in time, from what is left, and says what is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_settings import quiet_settings

from shortlist.errors import BadRequestError
from shortlist.serve.guard import MOST_THREADS, Guard, SourceDown
from shortlist.serve.messages import Event, Filters, Predicate, RecommendRequest
from shortlist.serve.overlay import Overlay
from shortlist.serve.service import Service
from shortlist.serve.version import LiveVersion

BUDGET_S = 0.1
SLOW_MACHINE_S = 2.0  # other work may hold a core for so long; a source that hangs would hold it for 30 s


def raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a planted fault")


def hangs(*_: Any, **__: Any) -> Any:
    time.sleep(30)


def speaks_nan(*_: Any, **__: Any) -> Any:
    return np.arange(3), np.array([np.nan, 1, 0], np.float32)


def names_rows_that_are_not_there(*_: Any, **__: Any) -> Any:
    return np.array([0, 10**6]), np.array([2, 1], np.float32)


def answers_ten_times_too_much(*_: Any, **__: Any) -> Any:
    return np.arange(50), np.arange(50, 0, -1, dtype=np.float32)


FAULTS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (raises, "failed (RuntimeError)"),
    "hangs": (hangs, "no answer within 100 ms"),
    "NaN": (speaks_nan, "failed (ValueError)"),
    "unknown rows": (names_rows_that_are_not_there, "failed (ValueError)"),
    "ten times k": (answers_ten_times_too_much, "failed (ValueError)"),
}


@pytest.fixture
def impatient(store: Path) -> Iterator[Service]:
    """A service whose sources have a tenth of a second, and one new item."""
    opened = Service.open(
        store, quiet_settings(learned_deadline_s=BUDGET_S, fresh_deadline_s=BUDGET_S, events_deadline_s=BUDGET_S, isolate_sources=True)
    )
    opened.put_items([{"item_id": "new", "kind": "kind 0"}])
    yield opened
    opened.close()


def popular_items(service: Service) -> list[str]:
    version = service._live.pinned.version
    return [f"i{row:02d}" for row in version.popular]


@pytest.mark.parametrize("fault", FAULTS)
def test_popular_items_stand_in_for_a_learned_source_that_fails(impatient: Service, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    planted, said = FAULTS[fault]
    monkeypatch.setattr(LiveVersion, "search", planted)
    started = time.monotonic()
    slate = impatient.recommend(RecommendRequest(seed="i05", k=5))
    assert time.monotonic() - started < BUDGET_S + SLOW_MACHINE_S
    assert slate.degraded == [f"learned: {said}"] and slate.coverage == 0.5
    assert slate.items == popular_items(impatient)[:5] and slate.sources == ["popular"] * 5
    assert slate.scores == sorted(slate.scores, reverse=True) and slate.scores[0] > 1  # choices in training


@pytest.mark.parametrize("fault", FAULTS)
def test_learned_items_come_without_a_fresh_source_that_fails(impatient: Service, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    planted, said = FAULTS[fault]
    monkeypatch.setattr(Overlay, "search", planted)
    started = time.monotonic()
    slate = impatient.recommend(RecommendRequest(seed="i05", k=5))
    assert time.monotonic() - started < BUDGET_S + SLOW_MACHINE_S
    assert slate.degraded == [f"fresh: {said}"] and slate.coverage == 0.5 and slate.sources == ["learned"] * 5


@pytest.mark.parametrize("fault", ["raises", "hangs", "NaN"])
def test_events_that_cannot_be_read_leave_the_published_history(impatient: Service, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    impatient.record_events([Event(user=5, item="i50")])
    monkeypatch.setattr(impatient._events, "newest", FAULTS[fault][0])
    slate = impatient.recommend(RecommendRequest(user=5, k=5))
    assert len(slate.degraded) == 1 and slate.degraded[0].startswith("events: ") and slate.coverage == pytest.approx(2 / 3)
    assert slate.sources == ["learned"] * 5


def test_popular_items_obey_filters_and_withdrawals_and_new_ones_come_last(impatient: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveVersion, "search", raises)
    first = popular_items(impatient)[0]
    impatient.delete_items([first])
    everything = impatient.recommend(RecommendRequest(k=1000)).items
    assert everything == [*popular_items(impatient)[1:], "new"]
    kinds = Filters(where=[Predicate(column="kind", any_of=["kind 0"])], deny=[everything[0]])
    some = impatient.recommend(RecommendRequest(k=1000, filters=kinds)).items
    assert some == [item for item in everything[1:] if item == "new" or int(item[1:]) % 5 == 0]


def test_popularity_is_the_number_of_choices_in_training(impatient: Service) -> None:
    version = impatient._live.pinned.version
    assert version.bundle.popularity is not None and version.bundle.popularity.sum() == 601  # the events of the small project
    assert version.bundle.popularity[-7:].tolist() == [0] * 7  # never chosen
    assert (np.diff(version.bundle.popularity[version.popular]) <= 0).all()


def test_a_guard_rests_after_so_many_failures_and_tries_one_request_when_it_wakes() -> None:
    guard = Guard("source", 5.0, failures=3, rest_s=0.2)
    calls: list[int] = []

    def work(fails: bool) -> int:
        calls.append(1)
        if fails:
            raise ValueError
        return 7

    for _ in range(3):
        with pytest.raises(SourceDown, match=r"source: failed \(ValueError\)"):
            guard.call(lambda: work(True))
    for _ in range(5):
        with pytest.raises(SourceDown, match="source: resting after 3 failures"):
            guard.call(lambda: work(False))
    assert len(calls) == 3 and guard.is_resting
    time.sleep(0.25)
    with pytest.raises(SourceDown, match="failed"):
        guard.call(lambda: work(True))
    with pytest.raises(SourceDown, match="resting after 4 failures"):
        guard.call(lambda: work(False))
    time.sleep(0.25)
    assert guard.call(lambda: work(False)) == 7 and not guard.is_resting
    assert guard.call(lambda: work(False)) == 7 and len(calls) == 6


def test_one_success_starts_the_count_anew() -> None:
    guard = Guard("source", 5.0, failures=2, rest_s=60)
    for _ in range(5):
        with pytest.raises(SourceDown):
            guard.call(raises)
        assert guard.call(lambda: 7) == 7


def test_a_trusted_source_runs_where_it_is_called_until_it_is_late_and_then_is_watched() -> None:
    guard = Guard("source", 0.05, failures=3, rest_s=60, is_trusted=True)
    here = threading.get_ident()
    assert guard.call(threading.get_ident) == here

    def is_late() -> int:
        time.sleep(0.1)
        return threading.get_ident()

    assert guard.call(is_late) == here and guard.late == 1  # an answer, if a late one
    with pytest.raises(SourceDown, match="no answer within 50 ms"):
        guard.call(is_late)
    guard.deadline_s = 10.0
    assert guard.call(threading.get_ident) != here
    assert guard.call(threading.get_ident) == here
    guard.close()


def test_a_request_that_is_wrong_is_not_the_sources_fault() -> None:
    guard = Guard("source", 5.0, failures=1, rest_s=60)

    def refuses() -> None:
        raise BadRequestError("no such column")

    for _ in range(3):
        with pytest.raises(BadRequestError, match="no such column"):
            guard.call(refuses)
    assert not guard.is_resting


def test_hanging_calls_leave_a_bounded_number_of_threads() -> None:
    guard = Guard("hanging", 0.001, failures=10**9, rest_s=0.0)
    free = threading.Event()
    for _ in range(2 * MOST_THREADS):
        with pytest.raises(SourceDown, match="no answer within 1 ms"):
            guard.call(lambda: free.wait(60))
    hanging = [thread for thread in threading.enumerate() if thread.name == "source hanging"]
    assert len(hanging) == MOST_THREADS
    free.set()
    patient = Guard("patient", 10.0, failures=1, rest_s=0.0)
    assert patient.call(lambda: 1) == 1
    deadline = time.monotonic() + 20
    while len(guard._idle) < MOST_THREADS and time.monotonic() < deadline:
        time.sleep(0.01)
    guard.deadline_s = 10.0
    assert guard.call(lambda: 2) == 2  # the threads that came back work again
    guard.close()
    patient.close()
    for thread in hanging:
        thread.join(10)
        assert not thread.is_alive()


def test_a_guard_keeps_no_version_alive() -> None:
    import gc
    import weakref

    class Held:
        pass

    guard, held = Guard("source", 5.0, failures=1, rest_s=0.0), Held()
    seen = weakref.ref(held)
    guard.call(lambda held=held: None)
    del held
    gc.collect()
    deadline = time.monotonic() + 10
    while seen() is not None and time.monotonic() < deadline:
        time.sleep(0.01)  # the thread lets go of its job when it has said that it is done
    assert seen() is None
    guard.close()
