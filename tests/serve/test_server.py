"""The server as a process on loopback: sockets, slow and rude clients, signals, workers."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from load.open_loop import post, run_open_loop, schedule
from load.server_process import ServerProcess, running

from shortlist.errors import ConfigError
from shortlist.serve.listener import open_listener, refuse_new, take_waiting
from shortlist.serve.protocol import PatientProtocol

PROGRAM = Path(__file__).parents[1] / "small_server.py"
QUICK = {"receive_longest_s": 0.6, "linger_longest_s": 0.5, "drain_notice_s": 0.3, "drain_longest_s": 2.0}


@contextmanager
def small_server(log: Any = subprocess.DEVNULL, **options: Any) -> Iterator[ServerProcess]:
    options["limits"] = {**QUICK, **options.get("limits", {})}
    with running([str(PROGRAM), json.dumps(options)], log=log) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with small_server() as started:
        yield started


def exchange(server: ServerProcess, *pieces: bytes, pause_s: float = 0.0, patience_s: float = 5.0) -> bytes:
    """All that comes back to these bytes until the server closes, or says no more."""
    with socket.create_connection(server.address, timeout=patience_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except (TimeoutError, ConnectionResetError):
            pass
        return received


def test_a_query_goes_all_the_way_over_one_kept_connection(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    for k in (1, 2, 3):
        connection.request("POST", "/recommend", json.dumps({"k": k}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200 and len(json.loads(answer.read())["items"]) == k
    connection.close()


BODIES = [
    b'{"k":3}',
    b'{"user":"a","k":2}',
    b'{"k":13}',
    b'{"k":0}',
    b'{"k":1',
    b"\xff",
    b'{"k":NaN}',
    b"[" * 20_000,
    b'{"no":1}',
    b"",
    b"x" * 65_537,
]


@pytest.mark.parametrize("path", ["/recommend", "/similar"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_query_in_one_packet_gets_what_it_gets_in_two(server: ServerProcess, path: str, body: bytes) -> None:
    def told(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
        head, _, rest = answer.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        return status, sorted(line for line in lines if not line.startswith(b"date")), rest

    query = post(path, body).replace(b"Host: shortlist", b"X-Request-Id: mine")
    with socket.create_connection(server.address, timeout=5) as line:
        line.sendall(query)
        at_once = whole_answer(line)
    with socket.create_connection(server.address, timeout=5) as line:
        line.sendall(query[:30])
        time.sleep(0.05)
        line.sendall(query[30:])
        assert told(whole_answer(line)) == told(at_once)


def test_what_comes_behind_a_query_is_answered_after_it() -> None:
    with small_server(seconds=0.05, limits={"leave_loop_s": 10.0}) as server, ExitStack() as lines:
        *others, line = (lines.enter_context(socket.create_connection(server.address, timeout=5)) for _ in range(6))
        for each in (*others, line):
            each.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert whole_answer(each)[9:12] == b"200"  # it is accepted, and read from now on
        for other in others:
            other.sendall(post("/recommend", b'{"k":1}'))  # five turns before ours: packets come one by one meanwhile
        time.sleep(0.02)
        for k in (2, 13, 3):
            line.sendall(post("/recommend", b'{"k":%d}' % k))
            time.sleep(0.06)
        line.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while data := line.recv(65536):
            received += data
        answers = received.split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"422", b"200", b"200"]
        assert [len(json.loads(answer.partition(b"\r\n\r\n")[2]).get("items", [])) for answer in answers] == [2, 0, 3, 0]
        assert [whole_answer(other)[9:12] for other in others] == [b"200"] * 5
        status, text = server.ask("GET", "/metrics")
        assert status == 200 and b"shortlist_inside 0" in text and b'route="/recommend",status="200"} 7' in text


def test_who_leaves_before_the_answer_leaves_the_gate() -> None:
    with small_server(seconds=0.02, limits={"leave_loop_s": 10.0}) as server:
        for _ in range(7):
            with socket.create_connection(server.address, timeout=5) as line:
                line.sendall(post("/recommend", b'{"k":1}'))
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.5)
        assert b"shortlist_inside 0" in server.ask("GET", "/metrics")[1]
        assert server.ask("POST", "/recommend", b"{}")[0] == 200


def test_requests_in_one_packet_are_answered_in_order(server: ServerProcess) -> None:
    requests = post("/recommend", b'{"k":1}') + post("/recommend", b'{"k":0}') + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"
    received = exchange(server, requests)
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 422, 200]


def test_a_request_in_many_pieces_is_one_request(server: ServerProcess) -> None:
    request = b'POST /recommend HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"k":2}'
    received = exchange(server, *(request[place : place + 9] for place in range(0, len(request), 9)), pause_s=0.005)
    assert received.startswith(b"HTTP/1.1 200 ") and b'"i01"' in received


def test_a_chunked_body_is_read_and_its_trailers_are_no_headers(server: ServerProcess) -> None:
    head = b"POST /recommend HTTP/1.1\r\nConnection: close\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = exchange(server, head + b'7\r\n{"k":2}\r\n0\r\nContent-Type: application/json\r\n\r\n')
    assert received.startswith(b"HTTP/1.1 415 ")
    received = exchange(server, head.replace(b"text/plain", b"application/json") + b'3\r\n{"k\r\n4\r\n":2}\r\n0\r\n\r\n')
    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_100_continue_gets_it(server: ServerProcess) -> None:
    head = post("/recommend", b"1234567")[:-7].replace(b"Host: shortlist", b"Expect: 100-continue")
    with socket.create_connection(server.address, timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"k":2}')
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"POST /recommend HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /recommend HTTP/1.1\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /recommend HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /items/\xff HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_told_so_and_cut(server: ServerProcess, raw: bytes) -> None:
    start = time.monotonic()
    received = exchange(server, raw)
    head, _, body = received.partition(b"\r\n\r\n")
    assert 400 <= int(head.split()[1]) < 500 and time.monotonic() - start < 3
    assert json.loads(body)["request_id"].encode() in head


def test_an_endless_head_is_cut(server: ServerProcess) -> None:
    received = exchange(server, b"GET /health HTTP/1.1\r\n", *(b"X-%d: " % number + b"x" * 8000 + b"\r\n" for number in range(5)))
    assert received.startswith(b"HTTP/1.1 431 ") and b"at most 32,768 bytes" in received
    received = exchange(server, b"GET /" + b"x" * 40_000)
    assert received.startswith(b"HTTP/1.1 431 ")


def test_a_hundred_megabytes_are_refused_with_an_answer_that_arrives(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    before = server.resident_bytes()
    connection.request("POST", "/recommend", bytes(100 << 20), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413 and "at most 65,536 bytes" in json.loads(answer.read())["message"]
    assert server.resident_bytes() - before < 32 << 20
    connection.request("GET", "/health")  # the rest was thrown away, the connection is as good as before
    assert connection.getresponse().status == 200
    connection.close()


def test_a_chunked_body_without_end_is_refused_and_cut(server: ServerProcess) -> None:
    head = b"POST /recommend HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with socket.create_connection(server.address, timeout=5) as connection:
        connection.sendall(head)
        start, received = time.monotonic(), b""
        connection.settimeout(0.05)
        try:
            while time.monotonic() - start < 5:
                connection.sendall(chunk)
                with suppress(TimeoutError):
                    received += connection.recv(65536)
        except OSError:
            pass
    assert received.startswith(b"HTTP/1.1 413 ") and time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"POST /recommend HTTP/1.1\r\n", b"X-A: b\r\n"], 408),
        ([b"POST /recommend HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n", b"{"], 408),
        ([b"GET /hea"], 408),
        ([], None),  # nobody waits for an answer
        ([b"\r\n", b"\r\n"], 408),
    ],
)
def test_who_does_not_finish_a_request_in_time_is_cut(server: ServerProcess, pieces: list[bytes], status: int | None) -> None:
    start = time.monotonic()
    received = exchange(server, *pieces, pause_s=0.1)
    taken = time.monotonic() - start
    assert 0.5 < taken < 3.0
    assert received == b"" if status is None else received.startswith(b"HTTP/1.1 %d " % status)


def test_a_trickle_is_no_progress(server: ServerProcess) -> None:
    start = time.monotonic()
    with socket.create_connection(server.address, timeout=5) as connection, pytest.raises(OSError):
        connection.sendall(b"POST /recommend HTTP/1.1\r\n")
        while time.monotonic() - start < 5:
            connection.sendall(b"X-A: b\r\n")
            time.sleep(0.05)
    assert time.monotonic() - start < 3


def test_who_does_not_read_answers_is_cut(server: ServerProcess) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(server.address)
        connection.settimeout(0.5)
        request = post("/recommend", b"{}") * 50
        start = time.monotonic()
        with pytest.raises(OSError):  # first our sends are not taken, then the connection is gone
            while time.monotonic() - start < 8:
                try:
                    connection.sendall(request)
                except TimeoutError:
                    time.sleep(0.1)
        assert time.monotonic() - start < 6
    assert server.ask("GET", "/ready")[0] == 200


def test_slow_clients_hold_no_room_of_others() -> None:
    with small_server(limits={"receive_longest_s": 5.0}) as server:
        slow = [socket.create_connection(server.address) for _ in range(300)]
        for connection in slow:
            connection.sendall(b"POST /recommend HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{")
        outcome = run_open_loop(server.address, [post("/recommend", b'{"k":1}')], schedule(200, 1.0, 0))
        for connection in slow:
            connection.close()
    assert set(outcome.counts()) <= {"200", "429"} and outcome.counts()["200"] > 100


def test_connections_beyond_the_limit_are_told_to_come_again() -> None:
    with small_server(limits={"connections_most": 4}) as server:
        open_ones = [socket.create_connection(server.address) for _ in range(4)]
        time.sleep(0.1)
        assert exchange(server).startswith(b"HTTP/1.1 503 ")
        for connection in open_ones:
            connection.close()
        time.sleep(0.1)
        assert server.ask("GET", "/ready")[0] == 200


def test_overload_is_answered_429_quickly_and_the_rest_is_served() -> None:
    with small_server(seconds=0.001, limits={"wait_longest_s": 0.02}) as server:
        outcome = run_open_loop(server.address, [post("/recommend", b'{"k":1}')], schedule(2_500, 1.5, 0))
        _, metrics = server.ask("GET", "/metrics")
    counts = outcome.counts()
    assert set(counts) == {"200", "429"}
    assert b'route="/recommend",status="429"}' in metrics


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_nothing_and_ends_with_zero(workers: int) -> None:
    with small_server(seconds=0.0005, workers=workers) as server:
        told = threading.Event()

        def tell(now_s: float) -> None:
            if now_s > 0.5 and not told.is_set():
                told.set()
                os.kill(server.process.pid, signal.SIGTERM)
            if now_s > 0.6:
                os.kill(server.process.pid, 0)

        outcome = run_open_loop(server.address, [post("/recommend", b'{"k":1}')], schedule(300, 0.75, 0), during=tell)
        start = time.monotonic()
        assert server.process.wait(5) == 0 and time.monotonic() - start < 4
    assert told.is_set() and set(outcome.counts()) <= {"200", "429"}  # 429: this machine was busy


def test_draining_says_so_first_and_a_second_signal_changes_nothing() -> None:
    with small_server(seconds=0.3, limits={"drain_notice_s": 0.5}) as server:
        slow = threading.Thread(target=lambda: answers.append(server.ask("POST", "/recommend", b"{}")[0]))
        answers: list[int] = []
        slow.start()
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        status, body = server.ask("GET", "/ready")
        assert status == 503 and b"draining" in body
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 0
        slow.join(5)
        assert answers == [200]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)


def test_a_request_that_hangs_does_not_keep_the_process() -> None:
    with small_server(seconds=60, limits={"drain_notice_s": 0.1, "drain_longest_s": 1.0}) as server:
        hanging = socket.create_connection(server.address)
        hanging.sendall(post("/recommend/batch", b'{"requests":[{}]}'))
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        server.process.wait(9)
        assert time.monotonic() - start < 7
        hanging.close()


def await_lines(log: Path, event: str, count: int) -> None:
    until = time.monotonic() + 20
    while log.read_text().count(f'"event":"{event}"') < count:
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def test_workers_share_a_port_and_their_metrics_and_the_dead_are_replaced(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log, small_server(log=log, workers=2) as server:
        for _ in range(40):
            assert server.ask("POST", "/recommend", b"{}")[0] == 200
        children = [int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()]
        assert len(children) == 2
        total = b'shortlist_http_requests_total{method="POST",route="/recommend",status="200"} 40'
        assert all(total in server.ask("GET", "/metrics")[1] for _ in range(8))  # whoever answers
        await_lines(tmp_path / "log", "ready", 2)
        os.kill(children[0], signal.SIGKILL)
        await_lines(tmp_path / "log", "ready", 3)
        said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert [line["exit_code"] for line in said if line["event"] == "worker_died"] == [-9]
        assert sum(line["event"] == "ready" for line in said) == 3
        assert server.ask("POST", "/recommend", b"{}")[0] == 200


def test_a_server_that_has_no_descriptor_left_says_so_and_serves_who_waits_when_one_is_free(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log, small_server(log=log) as server:
        held = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (held + 2, held + 2))
        lines = [socket.create_connection(server.address, timeout=10) for _ in range(9)]
        await_lines(tmp_path / "log", "not_accepted", 1)
        for line in lines[:-1]:
            line.close()
        lines[-1].sendall(post("/recommend", b'{"k":3}'))  # the last of the nine, which nobody had taken
        assert lines[-1].recv(4096).startswith(b"HTTP/1.1 200 ")
        lines[-1].close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_does_not_open_ends_the_server_with_the_reason(workers: int) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps({"broken": True, "workers": workers, "limits": QUICK})],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1 and "the store must hold a version" in done.stderr


def test_an_address_that_is_taken_is_refused_with_the_fix() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"must be free and this machine's.*choose another --host or --port"):
            open_listener("127.0.0.1", taken.getsockname()[1])


def test_a_listener_that_stops_hands_over_what_was_taken_and_then_takes_no_more() -> None:
    listener = open_listener("127.0.0.1", 0)
    address = listener.getsockname()
    waiting = [socket.create_connection(address) for _ in range(7)]
    late = socket.socket()
    late.settimeout(0.2)
    refuse_new(listener)
    taken = list(take_waiting(listener))
    with pytest.raises(TimeoutError):  # not taken, not refused: it tries again, and is refused when the socket is closed
        late.connect(address)
    assert len(taken) == 7 and list(take_waiting(listener)) == []
    for connection in (*waiting, *taken, late, listener):
        connection.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="needs Linux to stop a handshake half way")
def test_a_handshake_that_has_begun_when_the_listener_stops_comes_to_its_end() -> None:
    listener = open_listener("127.0.0.1", 0)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)  # the server's side of it ends with the first byte
    with socket.create_connection(listener.getsockname()) as early:
        refuse_new(listener)
        early.sendall(b"a request")
        listener.settimeout(2.0)
        taken, _ = listener.accept()
        assert taken.recv(100) == b"a request"
        taken.close()
    listener.close()


@pytest.mark.parametrize("behind", [b"POST /recommend HTTP/1.1\r\nHost: a\r\nX-Sl", post("/recommend", b'{"k": 2}')[:-3]])
def test_an_answer_that_takes_longer_than_a_request_may_is_not_cut_by_the_next_request(behind: bytes) -> None:
    with small_server(seconds=1.2, limits={"receive_longest_s": 0.4}) as server:
        query = post("/recommend/batch", b'{"requests":[{"k":1}]}')  # answered in a thread: the loop looks at deadlines meanwhile
        with socket.create_connection(server.address, timeout=5) as line:
            line.sendall(query)
            time.sleep(0.1)
            line.sendall(behind)  # and never the rest of it
            time.sleep(0.1)
            assert whole_answer(line)[9:12] == b"200"
            assert line.recv(65536)[9:12] in (b"408", b"")  # now its own time is over
        with socket.create_connection(server.address, timeout=5) as line:
            line.sendall(query + query)
            assert [whole_answer(line)[9:12] for _ in range(2)] == [b"200", b"200"]


def test_an_unused_connection_hears_that_it_ends_before_the_loop_does_anything_else() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.5)

    class Busy:
        """A transport whose loop does not come round."""

        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str) -> socket.socket:
            return theirs

        def close(self) -> None:
            pass

    protocol = object.__new__(PatientProtocol)
    protocol.transport = Busy()  # type: ignore[assignment]
    protocol._close_unused()
    assert ours.recv(1) == b""
    ours.close()
    theirs.close()


def test_while_draining_every_answer_closes_its_connection_refusals_too() -> None:
    with small_server(seconds=0.02, limits={"drain_notice_s": 1.5, "wait_longest_s": 0.001}) as server:
        server.ask("POST", "/recommend", b"{}")  # the pace is known
        lines = [socket.create_connection(server.address, timeout=5) for _ in range(30)]
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        for line in lines:
            line.sendall(post("/recommend", b"{}"))
        answers = []
        for line in lines:
            received = b""
            while data := line.recv(65536):  # until the server closes
                received += data
            answers.append((int(received[9:12]), b"connection: close" in received))
            line.close()
    assert {status for status, _ in answers} == {200, 429} and all(closes for _, closes in answers)


def whole_answer(line: socket.socket) -> bytes:
    """One response from the line: its head, and as much body as that announces."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += line.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(
        next(value for name, _, value in (row.partition(b":") for row in head.split(b"\r\n")) if name.lower() == b"content-length")
    )
    while len(body) < length:
        body += line.recv(65536)
    return head + b"\r\n\r\n" + body


def test_a_query_refused_unparsed_leaves_the_connection_as_good_as_before() -> None:
    with small_server(seconds=0.2, limits={"receive_longest_s": 0.4, "wait_longest_s": 0.001}) as server:
        server.ask("POST", "/recommend", b"{}")  # the pace is known: there is room for eight
        with ExitStack() as lines:
            others = [lines.enter_context(socket.create_connection(server.address, timeout=10)) for _ in range(12)]
            line = lines.enter_context(socket.create_connection(server.address, timeout=10))
            status = b""
            for _ in range(20):  # which of thirteen requests are refused is chance
                for other in others:
                    other.sendall(post("/recommend", b"{}"))
                line.sendall(post("/recommend", b'{"k":1}').replace(b"Host: shortlist", b"X-Request-Id: mine"))
                received = whole_answer(line)
                status = received[9:12]
                assert b"x-request-id: mine" in received and json.loads(received.partition(b"\r\n\r\n")[2])
                for other in others:
                    whole_answer(other)
                if status == b"429":
                    break
            assert status == b"429"
            time.sleep(1.0)  # idle for longer than a request may take to arrive
            line.sendall(post("/recommend", b'{"k":1}'))
            assert whole_answer(line)[9:12] == b"200"
