"""Do hostile clients get a server to fail, or to serve others badly? Fuzzed bodies, bytes that are no HTTP, slow clients.

    python chaos/hostile.py            # 100,000 bodies, schemathesis, 500 slow clients: about 5 minutes
    python chaos/hostile.py --short    # for every day
    python chaos/hostile.py --seed 7 --only 4711    # one body again

All traffic stays on this machine. Ends with 1 where a promise is broken; the seed and number of the body are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from load.fuzz import hostile_request
from load.open_loop import percentiles, post, run_open_loop, schedule
from load.server_process import ServerProcess, running, serve_store
from load.synthetic_store import make_store

ITEMS = 5_003
IDS = ("i1", "i17", "i4711", "nobody", "")
COLUMNS = ("cluster", "price", "look", "item_id", "weekday", "no such column")
CONNECTIONS = 4
HANG_S = 1.0
GOOD_RATE = 200.0


def main() -> int:
    options = read_options()
    store = make_store(options.folder / "hostile", items=ITEMS, dim=16)
    faults: list[str] = []
    facts: dict[str, Any] = {"seed": options.seed}
    with tempfile.TemporaryFile("w+") as log, running(serve_store(store), log=log) as server:
        facts["bodies"] = send_bodies(server, options, faults)
        if options.only is None:
            facts["streams"] = send_streams(server, options, faults)
            facts["schemathesis"] = run_schemathesis(server, options, faults)
            facts["slow_clients"] = hold_slow_clients(server, options, faults)
        log.seek(0)
        said = [json.loads(line) for line in log.read().splitlines() if line.startswith("{")]
        facts["faults_logged"] = [line for line in said if line["event"] == "fault"][:5]
        if server.process.poll() is not None:
            faults.append(f"the server must live: it ended with {server.process.returncode}")
    print(json.dumps(facts))
    for fault in faults[:20]:
        print(f"BROKEN: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--examples", type=int, default=300, help="of schemathesis, an operation")
    parser.add_argument("--slow", type=int, default=500, help="slow clients at a time")
    parser.add_argument("--seconds", type=float, default=20, help="of good traffic, without and with slow clients")
    parser.add_argument("--only", type=int, help="send this body alone, and print what came back")
    parser.add_argument("--short", action="store_true", help="a few percent of it all")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-chaos", help="the store is kept here")
    options = parser.parse_args()
    if options.short:
        options.bodies, options.streams, options.examples, options.seconds = 3_000, 100, 15, 4.0
    return options


def send_bodies(server: ServerProcess, options: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
    """Statuses of all bodies, sent over a few connections one after another; memory before and after."""
    numbers = range(options.bodies) if options.only is None else [options.only]
    connections = [_Line(server.address) for _ in range(CONNECTIONS)]
    statuses: Counter[int] = Counter()
    before, slowest = server.resident_bytes(), 0.0
    for start in range(0, len(numbers), CONNECTIONS):
        asked = list(zip(numbers[start : start + CONNECTIONS], connections, strict=False))
        sent = time.monotonic()
        for number, line in asked:
            line.send(hostile_request(options.seed, number, ids=IDS, columns=COLUMNS))
        for number, line in asked:
            status, body = line.receive()
            statuses[status] += 1
            if not 200 <= status < 500:
                faults.append(f"body --seed {options.seed} --only {number}: got status {status}: {body[:200]!r}")
            elif options.only is not None:
                print(f"{hostile_request(options.seed, number, ids=IDS, columns=COLUMNS)}\n{status} {body!r}")
        taken = time.monotonic() - sent
        slowest = max(slowest, taken)
        if taken > HANG_S:
            faults.append(f"bodies --seed {options.seed} --only {asked[0][0]} and the next {len(asked) - 1}: took {taken:.2f} s")
    for line in connections:
        line.close()
    return {
        "sent": len(numbers),
        "statuses": dict(sorted(statuses.items())),
        "slowest_ms": round(slowest * 1e3, 1),
        "memory_mb": [round(before / 1e6, 1), round(server.resident_bytes() / 1e6, 1)],
    }


class _Line:
    """One kept connection; opened again where the server closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket = socket.create_connection(address, timeout=30)

    def send(self, request: tuple[str, str, bytes]) -> None:
        method, path, body = request
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)

    def receive(self) -> tuple[int, bytes]:
        """(status, body); status 0 where the connection ended without an answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(65536)
            if not piece:
                self.close()
                self._socket = socket.create_connection(self._address, timeout=30)
                return 0, data
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self._socket.recv(65536)
        return int(head[9:12]), body

    def close(self) -> None:
        self._socket.close()


def send_streams(server: ServerProcess, options: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
    """Statuses of bytes that are almost HTTP, each on a connection of its own."""
    rng = random.Random(options.seed)
    good = post("/recommend", b'{"k": 3}')
    statuses: Counter[int] = Counter()
    for number in range(options.streams):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(raw))
            raw[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        with socket.create_connection(server.address, timeout=30) as connection:
            connection.sendall(bytes(raw))
            connection.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while piece := connection.recv(65536):
                    received += piece
            except ConnectionResetError:
                pass
        found = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
        statuses.update(found or [0])
        if any(status >= 500 for status in found):
            faults.append(f"stream {number} of seed {options.seed}: got {found} for {bytes(raw)!r}")
    return {"sent": options.streams, "statuses": dict(sorted(statuses.items()))}


def run_schemathesis(server: ServerProcess, options: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
    """What schemathesis found against the document that the server serves."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        "http://{}:{}/openapi.json".format(*server.address),
        *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"),
        *("--max-examples", str(options.examples), "--seed", str(options.seed), "--phases", "examples,coverage,fuzzing", "--no-color"),
    ]
    with tempfile.TemporaryDirectory() as folder:  # it writes files where it stands
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder, env={**os.environ, "COLUMNS": "140"})
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0:
        faults.append(f"schemathesis: {' / '.join(lines[-40:])} {done.stderr[-500:]}")
    return {"exit_code": done.returncode, "summary": [line.strip() for line in lines[-12:]]}


def hold_slow_clients(server: ServerProcess, options: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
    """Latency of good traffic without and with slow clients, and how soon those were cut."""
    requests = [post("/recommend", b'{"k": 100}')]
    run_open_loop(server.address, requests, schedule(GOOD_RATE, 2.0, 0), connections=64)
    alone = run_open_loop(server.address, requests, schedule(GOOD_RATE, options.seconds, 1), connections=64)
    with slow_clients(server.address, options.slow) as read_report:
        beside = run_open_loop(server.address, requests, schedule(GOOD_RATE, options.seconds, 2), connections=64)
        report = read_report()
    before, after = percentiles(alone.latency_ms()), percentiles(beside.latency_ms())
    if set(beside.counts()) != {"200"}:
        faults.append(f"good traffic beside slow clients must be answered: got {beside.counts()}")
    if after["p99_ms"] > 2 * max(before["p99_ms"], 1.0):
        faults.append(f"slow clients must not move p99 beyond twice: it went from {before['p99_ms']} to {after['p99_ms']} ms")
    if report["longest_s"] > 12.0:
        faults.append(f"slow clients must be cut: one lasted {report['longest_s']:.1f} s")
    return {"clients": options.slow, "alone": before, "beside": after, "p99_ratio": round(after["p99_ms"] / before["p99_ms"], 3), **report}


@contextmanager
def slow_clients(address: tuple[str, int], count: int) -> Iterator[Any]:
    """`count` slow clients in a process of their own, for as long as the block runs; yields a function that ends them and reports."""
    arguments = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "load" / "slow_clients.py"), *map(str, address), str(count)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def report() -> dict[str, Any]:
        said, _ = process.communicate("", timeout=30)
        return dict(json.loads(said.splitlines()[-1]))

    try:
        assert process.stdout is not None
        process.stdout.readline()  # all are connected
        yield report
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
