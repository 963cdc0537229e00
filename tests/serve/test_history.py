"""What the next request knows of a user: what was published, then the events since, each choice once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from serve_settings import quiet_settings

from shortlist.serve.events import Recent
from shortlist.serve.history import known_history
from shortlist.serve.messages import Event, Filters, RecommendRequest
from shortlist.serve.service import Service

USER = 5


def published_of(service: Service) -> list[str]:
    version = service._live.pinned.version
    assert version.histories is not None
    return [f"i{row:02d}" for row in version.histories.of(USER)]


def known(service: Service, recent: Recent | None) -> list[str]:
    pinned = service._live.pinned
    return [f"i{row:02d}" for row in known_history(pinned.version, pinned.overlay, USER, recent)]


def test_the_next_request_sees_what_the_user_just_did(service: Service) -> None:
    before = service.recommend(RecommendRequest(user=USER))
    assert service.record_events([Event(user=USER, item="i51"), Event(user=USER, item="i52")]) == 2
    after = service.recommend(RecommendRequest(user=USER))
    told = service.recommend(RecommendRequest(user=USER, history=[*published_of(service), "i51", "i52"]))
    assert before.scores != after.scores
    assert (after.items, after.scores) == (told.items, told.scores)
    assert after.coverage == 1.0 and after.degraded == []


def test_a_user_that_training_never_saw_has_a_history_by_events_alone(service: Service) -> None:
    service.record_events([Event(user=999, item="i03")])
    assert service.recommend(RecommendRequest(user=999)).scores == service.recommend(RecommendRequest(history=["i03"])).scores


def test_a_given_history_is_taken_as_it_is(service: Service) -> None:
    service.record_events([Event(user=USER, item="i51")])
    told = service.recommend(RecommendRequest(user=USER, history=["i03"]))
    assert told.scores == service.recommend(RecommendRequest(user=USER, history=["i03"])).scores
    nothing = service.recommend(RecommendRequest(user=USER, history=[]))
    assert nothing.scores != told.scores


def test_an_event_that_training_saw_does_not_count_twice(service: Service) -> None:
    version = service._live.pinned.version
    until = version.trained_until
    assert until is not None
    published = published_of(service)
    other = next(item for item in ("i50", "i51", "i52") if item not in published)
    recent = Recent([published[-1], other, published[0], other], [until, until, until + 1, until + 2])
    assert known(service, recent) == [*published, other, published[0], other]


def test_without_events_the_published_history_stands(service: Service) -> None:
    assert known(service, None) == known(service, Recent([], [])) == published_of(service)


def test_a_forgotten_user_is_a_stranger(service: Service) -> None:
    service.record_events([Event(user=USER, item="i51")])
    assert service.forget_user(USER) == 1
    stranger = service.recommend(RecommendRequest(user=USER, k=1000, filters=Filters(exclude_seen=True)))
    assert len(stranger.items) == 53
    assert stranger.scores == service.recommend(RecommendRequest(user=USER, history=[], k=1000)).scores


def test_items_that_this_version_does_not_know_are_left_out(service: Service) -> None:
    service.record_events([Event(user=999, item="no such item"), Event(user=999, item=17), Event(user=999, item="i03")])
    slate = service.recommend(RecommendRequest(user=999))
    assert slate.scores == service.recommend(RecommendRequest(history=["i03"])).scores and slate.unknown == 0


def test_events_survive_a_restart(store: Path) -> None:
    first = Service.open(store, quiet_settings())
    first.record_events([Event(user=999, item="i03", id="once")])
    slate = first.recommend(RecommendRequest(user=999))
    first.close()
    second = Service.open(store, quiet_settings())
    assert second.record_events([Event(user=999, item="i03", id="once")]) == 1
    assert second.recommend(RecommendRequest(user=999)) == slate
    second.close()


def test_a_slow_database_costs_its_deadline_and_no_more(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service.open(store, quiet_settings(events_deadline_s=0.05))
    monkeypatch.setattr(service._events, "newest", lambda user, last: time.sleep(1.0))
    started = time.monotonic()
    slate = service.recommend(RecommendRequest(user=USER))
    assert time.monotonic() - started < 0.9
    assert slate.degraded == ["events: no answer within 50 ms"] and slate.coverage == pytest.approx(2 / 3)
    assert slate.scores == service.recommend(RecommendRequest(user=USER, history=published_of(service))).scores
    service.close()
