"""The client against the server of the tests, and against servers that fail in every way."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from load.server_process import running

from shortlist.errors import BadRequestError, ConfigError, NotFoundError, UnavailableError
from shortlist.serve.client import Client, RefusedError
from shortlist.serve.messages import Accepted, Event, Filters, RecommendRequest, SimilarRequest

PROGRAM = Path(__file__).parents[1] / "small_server.py"
SLATE = b'{"version":"v1","items":["a"],"scores":[1.0],"sources":["learned"],"degraded":[],"coverage":1.0,"unknown":0}'


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running([str(PROGRAM), "{}"]) as server, Client("http://{}:{}".format(*server.address)) as client:
        yield client


def answer(status: int, body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers))
    return head.encode() + b"\r\n" + body


@contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """(address, requests) of a server that gives these answers, one a request; b"" ends the connection instead."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        left = list(answers)
        while left:
            connection, _ = listener.accept()
            with connection:
                while left and (data := connection.recv(65536)):
                    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                        data += connection.recv(65536)
                    requests.append(data)
                    said = left.pop(0)
                    if not said:
                        break
                    connection.sendall(said)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        thread.join(5)
        listener.close()


def _length(request: bytes) -> int:
    lines = request.lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)


def test_every_call_speaks_to_its_route(client: Client) -> None:
    assert client.health().state == "ready"
    assert client.recommend(k=2, filters={"deny": ["i00"]}).items == ["i01", "i02"]
    assert client.recommend(RecommendRequest(k=1, filters=Filters(deny=["i00"]))).items == ["i01"]
    assert [len(slate.items) for slate in client.recommend_batch([RecommendRequest(k=3), RecommendRequest(k=1)])] == [3, 1]
    assert client.similar(item="i03", k=2).version == "v000001"
    assert client.similar(SimilarRequest(item="i03")).items
    assert client.put_items([{"item_id": "a/b c?ü"}, {"item_id": 40}]) == Accepted(accepted=2, version="v000001")
    assert client.item("a/b c?ü") == {"item_id": "a/b c?ü"} and client.item(40) == {"item_id": 40}
    assert client.delete_items(["a/b c?ü", 40]).accepted == 2
    assert client.record_events([Event(user=3, item="i07")]).accepted == 1
    assert client.recommend(user=3, k=1).items == ["i07"]
    assert (client.forget_user(3), client.forget_user(3)) == (1, 0)
    assert client.recommend(user=3, k=1).items == ["i00"]
    assert client.reload().version == "v000002" and client.rollback().version == "v000001"


def test_refusals_come_back_as_errors_that_say_what_the_server_said(client: Client) -> None:
    with pytest.raises(NotFoundError, match="must be one of this version"):
        client.item("nobody")
    with pytest.raises(RefusedError, match=r"k must not be 13: got 13.*\(422 unfit, request ") as refused:
        client.recommend(k=13)
    assert refused.value.status == 422 and refused.value.problem.error == "unfit"


def test_what_breaks_a_rule_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(BadRequestError, match=r"Expected `int` <= 1000 - at `\$\.k` of RecommendRequest"):
        client.recommend(k=1001)
    with pytest.raises(BadRequestError, match="unknown field `kk`"):
        client.recommend(kk=1)
    with pytest.raises(BadRequestError, match="got both"):
        client.recommend(RecommendRequest(), k=1)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "https://x", "http://", "http://x/path"])
def test_an_address_must_be_one(address: str) -> None:
    with pytest.raises(ConfigError, match="must be like http://"):
        Client(address)


@pytest.mark.parametrize("first", [answer(429, b"{}", "Retry-After: 1"), answer(503, b"proxy says no", "Retry-After: 1")])
def test_a_refusal_for_now_is_tried_again_after_the_time_asked_for(first: bytes) -> None:
    with scripted(first, answer(200, SLATE)) as (url, requests), Client(url) as client:
        start = time.monotonic()
        assert client.recommend(k=1).items == ["a"]
        assert 1.0 <= time.monotonic() - start < 3.0 and requests[0] == requests[1]


def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    with scripted(answer(200, SLATE), b"", answer(200, SLATE)) as (url, requests), Client(url) as client:
        assert client.recommend(k=1).items == client.recommend(k=1).items == ["a"]
        assert len(requests) == 3


def test_an_event_keeps_its_id_over_all_tries() -> None:
    accepted = b'{"accepted":1,"version":"v1"}'
    with scripted(b"", answer(200, accepted)) as (url, requests), Client(url) as client:
        client.record_events([Event(user=1, item="i1"), Event(user=1, item="i2", id="mine")])
    first, second = (json.loads(request.partition(b"\r\n\r\n")[2])["events"] for request in requests)
    assert first == second and len(first[0]["id"]) == 32 and first[1]["id"] == "mine"


def test_patience_ends() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening
        with Client(f"http://127.0.0.1:{nobody.getsockname()[1]}", patience_s=0.3) as client:
            start = time.monotonic()
            with pytest.raises(UnavailableError, match=r"must be reachable.*given up after 0.3 s"):
                client.recommend(k=1)
            assert time.monotonic() - start < 2


def test_what_will_not_change_is_not_tried_again() -> None:
    problem = b'{"error":"unauthorized","message":"a key is needed","request_id":"r1"}'
    refused = pytest.raises(RefusedError, match=r"a key is needed \(401 unauthorized, request r1\)")
    with scripted(answer(401, problem)) as (url, requests), Client(url, key="k" * 16) as client, refused:
        client.recommend(k=1)
    assert len(requests) == 1 and b"Authorization: Bearer kkkkkkkkkkkkkkkk" in requests[0]


def test_an_answer_of_another_kind_is_no_slate() -> None:
    refused = pytest.raises(RefusedError, match="a proxy's")
    with scripted(answer(418, b"<html>")) as (url, _), Client(url) as client, refused:
        client.recommend(k=1)
