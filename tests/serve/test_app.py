"""The application without sockets: what goes in, what comes out, what is refused and how."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from small_http import ask, asked, small_app
from small_service import SmallService

from shortlist.errors import UnavailableError
from shortlist.serve.limits import Limits
from shortlist.serve.logs import Log
from shortlist.serve.routes import ROUTES, Lane


def test_a_query_is_answered_with_the_services_slate() -> None:
    reply = asked(small_app(), "POST", "/recommend", {"k": 3, "filters": {"deny": ["i01"]}})
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "version": "v000001",
        "items": ["i00", "i02", "i03"],
        "scores": [0.0, -1.0, -2.0],
        "sources": ["learned"] * 3,
        "degraded": [],
        "coverage": 1.0,
        "unknown": 0,
    }
    assert int(reply.headers["content-length"]) == len(reply.body)


def test_several_queries_are_answered_in_their_order() -> None:
    reply = asked(small_app(), "POST", "/recommend/batch", {"requests": [{"k": 2}, {"k": 5}, {"k": 1}]})
    assert [len(slate["items"]) for slate in reply.json["slates"]] == [2, 5, 1]


def test_an_event_is_seen_by_the_next_query_of_its_user() -> None:
    app = small_app()
    reply = asked(app, "POST", "/events", {"events": [{"user": 7, "item": "i05"}, {"user": 8, "item": "i06"}]})
    assert reply.status == 200 and reply.json == {"accepted": 2, "version": "v000001"}
    assert asked(app, "POST", "/recommend", {"user": 7, "k": 2}).json["items"] == ["i05", "i00"]


def test_items_are_put_read_and_withdrawn_one_by_one_or_together() -> None:
    app = small_app()
    rows = [{"item_id": "new/1 ü", "price": 2.5}, {"item_id": 17}]
    assert asked(app, "PUT", "/items", {"items": rows}).json["accepted"] == 2
    assert asked(app, "GET", "/items/new%2F1%20%C3%BC").json == rows[0]
    assert asked(app, "GET", "/items/17").json == {"item_id": 17}  # an integer where the store has it
    assert asked(app, "DELETE", "/items/17").json["accepted"] == 1
    assert asked(app, "GET", "/items/17").status == 404
    assert asked(app, "DELETE", "/items", {"ids": ["i01", "i02"]}).json["accepted"] == 2
    assert asked(app, "POST", "/recommend", {"k": 2}).json["items"] == ["i00", "i03"]


def test_a_whole_number_in_a_path_is_a_string_where_the_store_has_strings() -> None:
    app = small_app()
    asked(app, "PUT", "/items", {"items": [{"item_id": "17"}, {"item_id": "007"}]})
    assert asked(app, "GET", "/items/17").json == {"item_id": "17"}
    assert asked(app, "GET", "/items/007").json == {"item_id": "007"}


def test_versions_are_switched_and_switched_back() -> None:
    app = small_app()
    assert asked(app, "POST", "/admin/rollback").status == 503  # nothing to go back to
    assert asked(app, "POST", "/admin/reload").json == {"version": "v000002", "previous": "v000001", "changed": True}
    assert asked(app, "POST", "/admin/rollback").json["version"] == "v000001"


def test_the_service_is_told_when_requests_wait() -> None:
    service = SmallService()
    app = small_app(service)
    asked(app, "POST", "/recommend", {"k": 3})
    assert service.is_pressed is not None and not service.is_pressed()
    gate = app.gates[Lane.ANSWERS]
    gate.room = 100
    for _ in range(11):
        gate.enter()
    assert service.is_pressed()
    gate.leave()
    assert not service.is_pressed()


def test_health_and_readiness_tell_the_state() -> None:
    app = small_app()

    async def life() -> list[tuple[int, int, Any]]:
        seen = []
        for change in (lambda: None, None, app.drain):
            await app.open() if change is None else change()
            health, ready = await ask(app, "GET", "/health"), await ask(app, "GET", "/ready")
            seen.append((health.status, ready.status, health.json["state"]))
        return seen

    assert asyncio.run(life()) == [(200, 503, "starting"), (200, 200, "ready"), (200, 503, "draining")]


def test_readiness_names_what_somebody_should_see_to_and_tells_nobody_more() -> None:
    app = small_app()
    asked(app, "GET", "/ready")
    assert app.service is not None
    app.service.facts = lambda: {"version": "v000001", "problems": {"journal": None, "recall": "recall@100 of the index is 0.7000"}}  # type: ignore[method-assign]
    assert asked(app, "GET", "/ready").json == {"state": "ready", "version": "v000001", "problems": ["recall"]}


def test_a_service_that_does_not_open_leaves_the_server_failed() -> None:
    app = small_app()
    app._open_service = lambda: (_ for _ in ()).throw(UnavailableError("no store"))
    with pytest.raises(UnavailableError, match="no store"):
        asyncio.run(app.open())
    assert app.state == "failed" and asked(app, "GET", "/ready").status == 503


def test_before_the_service_is_open_queries_are_told_to_come_again() -> None:
    reply = asyncio.run(ask(small_app(), "POST", "/recommend", {}))
    assert reply.status == 503 and reply.headers["retry-after"] == "1" and reply.json["error"] == "unavailable"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"k": 1000000000}', 422, "Expected `int` <= 1000 - at `$.k`"),
        (b'{"k": 0}', 422, "at `$.k`"),
        (b'{"k": "5"}', 422, "Expected `int`, got `str` - at `$.k`"),
        (b'{"k": 13}', 422, "k must not be 13: got 13"),
        (b'{"kk": 5}', 422, "unknown field `kk`"),
        (b'{"user": 1.5}', 422, "at `$.user`"),
        (b'{"history": [1, null]}', 422, "at `$.history[1]`"),
        (b'{"history": ["' + b"x" * 513 + b'"]}', 422, "at `$.history[0]`"),
        (json.dumps({"history": [1] * 201}).encode(), 422, "at `$.history`"),
        (b'{"context": {"a": 1e999}}', 422, "out of range"),
        (b'{"user": 99999999999999999999}', 422, "at `$.user`"),
        (b"[]", 422, "Expected `object`"),
        (b'{"k": NaN}', 400, "must be JSON"),
        (b'{"context": {"a": Infinity}}', 400, "must be JSON"),
        (b"", 400, "must be JSON"),
        (b'{"k": 5', 400, "must be JSON"),
        (b'{"k": 5} x', 400, "must be JSON"),
        (b'{"user": "\xff"}', 400, "must be UTF-8: got byte 0xff"),
        (b'{"user": "\\ud800"}', 400, "must be JSON"),
        (b"\xef\xbb\xbf{}", 400, "must be JSON"),
        (b'{"context": {"a": ' + b"[" * 30_000, 422, "at `$.context"),
    ],
)
def test_a_bad_body_is_refused_with_what_is_wrong(body: bytes, status: int, says: str) -> None:
    reply = asked(small_app(), "POST", "/recommend", body)
    assert reply.status == status
    assert says in reply.json["message"]
    assert reply.json["error"] == {400: "bad_request", 422: "unfit"}[status]
    assert reply.json["request_id"] == reply.headers["x-request-id"]


def test_deep_nesting_is_refused_where_any_value_may_stand() -> None:
    deep = b'{"items": [{"item_id": 1, "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}]}"
    reply = asked(small_app(), "PUT", "/items", deep)
    assert reply.status == 400 and "too many levels" in reply.json["message"]


@pytest.mark.parametrize("told", [True, False])
def test_a_body_over_the_cap_is_refused_whether_or_not_its_length_is_told(told: bool) -> None:
    app = small_app(limits=Limits(body_largest_bytes=100))
    chunks = [b'{"user": "', b"x" * 60, b"y" * 60, b'"}']
    headers = {"content-length": "132"} if told else {}
    reply = asked(app, "POST", "/recommend", chunks=chunks, headers=headers)
    assert reply.status == 413 and "at most 100 bytes" in reply.json["message"]
    assert asked(app, "POST", "/recommend", chunks=[b'{"k": ', b"2", b"}"]).status == 200


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-type": "text/plain"}, "got text/plain"),
        ({"content-type": ""}, "got none"),
        ({"content-encoding": "gzip"}, "content-encoding"),
    ],
)
def test_only_plain_json_is_taken(headers: dict[str, str], says: str) -> None:
    reply = asked(small_app(), "POST", "/recommend", {}, headers=headers)
    assert reply.status == 415 and says in reply.json["message"]
    assert asked(small_app(), "POST", "/recommend", {}, headers={"content-type": "Application/JSON; charset=utf-8"}).status == 200


@pytest.mark.parametrize("path", ["/", "/recommend/", "/Recommend", "/items/", "/items/a/b", "/admin", "/items/%ff", "/items/" + "x" * 513])
def test_unknown_paths_and_damaged_ids_are_refused(path: str) -> None:
    assert asked(small_app(), "GET", path).status in {404, 400, 422}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_another_method_is_refused_with_those_that_are_taken(route: Any) -> None:
    taken = {other.method for other in ROUTES if other.path == route.path}
    reply = asked(small_app(), "PATCH", route.path.replace("{id}", "i01"))
    allowed = set(reply.headers["allow"].split(", "))
    assert reply.status == 405 and allowed - {"HEAD"} == taken


def test_head_is_get_without_the_body() -> None:
    reply = asked(small_app(), "HEAD", "/health")
    assert reply.status == 200 and reply.body == b"" and int(reply.headers["content-length"]) > 0


def test_query_parameters_are_refused_rather_than_ignored() -> None:
    assert asked(small_app(), "POST", "/recommend", {}, query=b"k=5").status == 400
    assert asked(small_app(), "GET", "/health", query=b"probe=1").status == 200


def test_what_a_service_cannot_do_now_is_a_503_and_what_it_did_not_foresee_a_500_without_detail() -> None:
    service, said = SmallService(), io.StringIO()
    app = small_app(service, log=Log(said))
    service.fault = UnavailableError("the index must be open: got nothing")
    reply = asked(app, "POST", "/recommend", {})
    assert reply.status == 503 and reply.headers["retry-after"] == "1" and "index must be open" in reply.json["message"]
    service.fault = KeyError("user-4711")
    reply = asked(app, "POST", "/recommend", {})
    assert reply.status == 500 and "4711" not in reply.body.decode()
    fault = next(line for line in map(json.loads, said.getvalue().splitlines()) if line["event"] == "fault")
    assert fault["type"] == "KeyError" and fault["request_id"] == reply.json["request_id"]
    assert any("small_service.py" in place for place in fault["where"]) and "4711" not in said.getvalue()


def test_a_plain_request_id_comes_back_and_any_other_is_replaced() -> None:
    app = small_app()
    assert asked(app, "GET", "/health", headers={"X-Request-Id": "a-1.b:2"}).headers["x-request-id"] == "a-1.b:2"
    for bad in ("", "a b", "x" * 65, 'a"b'):
        assert asked(app, "GET", "/health", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad
    ids = {asked(app, "GET", "/health").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_no_log_line_or_metric_holds_an_id() -> None:
    said = io.StringIO()
    app = small_app(log=Log(said, sampled=1.0))
    marks = ["user-4711", "item-0815", "ctx-42"]
    asked(app, "POST", "/recommend", {"user": marks[0], "seed": marks[1], "context": {"a": marks[2]}})
    asked(app, "POST", "/events", {"events": [{"user": marks[0], "item": marks[1], "id": marks[2]}]})
    asked(app, "GET", f"/items/{marks[1]}")
    asked(app, "DELETE", f"/items/{marks[1]}")
    asked(app, "POST", "/recommend", b'{"user": "user-4711", "bad"')
    asked(app, "GET", f"/{marks[0]}")
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 404, 200, 400, 404]
    everything = said.getvalue() + asked(app, "GET", "/metrics").body.decode()
    assert [mark for mark in marks if mark in everything] == []


def test_one_request_in_a_hundred_is_logged_by_default() -> None:
    said = io.StringIO()
    app = small_app(log=Log(said))
    for _ in range(200):
        asked(app, "GET", "/health")
    assert len(said.getvalue().splitlines()) == 2


def test_every_status_is_one_that_the_route_documents() -> None:
    for route in ROUTES:
        assert 200 in route.statuses and list(route.statuses) == sorted(route.statuses)
    assert {route.name for route in ROUTES if 429 in route.statuses} == {route.name for route in ROUTES if route.call is not None}
