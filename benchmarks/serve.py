"""How fast is an answer? In process, over HTTP at 1,000 requests a second, and the bare index beside both.

    python benchmarks/serve.py --json

In process is all that the server does between a body and an answer: decode, query tower, search, names, encode. Over HTTP
is an open loop (load/open_loop.py) from this process to a `shortlist serve` of its own. A table, then one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for an answer: read when numpy is imported

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from load.open_loop import percentiles, post, run_open_loop, schedule
from load.server_process import running, serve_store
from load.synthetic_store import make_store
from record import run_record

from shortlist.bundle import open_current
from shortlist.serve.messages import RecommendRequest
from shortlist.serve.service import Service
from shortlist.serve.settings import ServeSettings

K, HISTORY, QUERIES = 100, 20, 500


def main() -> None:
    options = read_options()
    folder = options.folder / f"{options.items}x{options.dim}"
    print(f"a store of {options.items:,} items x {options.dim} in {folder}", file=sys.stderr)
    store = make_store(folder, items=options.items, dim=options.dim)
    bodies = query_bodies(options.items)
    facts: dict[str, Any] = {"items": options.items, "dim": options.dim, "k": K, "steal_before": steal_share()}
    if not options.http_only:
        facts |= {"in_process": time_in_process(store, bodies, options.calls), "bare_index": time_index(store, options.calls)}
    facts["http"] = time_http(store, bodies, options.rate, options.seconds)
    facts |= {"steal_after": steal_share(), "load_average": os.getloadavg()[0], **run_record()}
    print_table(facts)
    if options.json:
        print(json.dumps(facts))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--calls", type=int, default=10_000, help="in process and of the index")
    parser.add_argument("--rate", type=float, default=1_000, help="requests a second over HTTP")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--http-only", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-benchmarks", help="stores are kept here")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser.parse_args()


def query_bodies(items: int, seed: int = 0) -> list[bytes]:
    """Queries with a history of known items, as JSON."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, items, (QUERIES, HISTORY))
    return [json.dumps({"history": [f"i{row}" for row in history], "k": K}).encode() for history in rows.tolist()]


def time_in_process(store: Path, bodies: list[bytes], calls: int) -> dict[str, float]:
    """Percentiles of a body's way to an answer, one core, and answers a second."""
    service = Service.open(store, ServeSettings())
    decoder, encoder = msgspec.json.Decoder(RecommendRequest), msgspec.json.Encoder()
    try:
        return _timed(lambda i: encoder.encode(service.recommend(decoder.decode(bodies[i % QUERIES]))), calls)
    finally:
        service.close()


def time_index(store: Path, calls: int) -> dict[str, float]:
    """Percentiles of the search alone, with the version's own index and queries like those of its items."""
    bundle = open_current(store)
    rng = np.random.default_rng(1)
    queries = np.ascontiguousarray(bundle.vectors[rng.integers(0, len(bundle.vectors), QUERIES)])
    return _timed(lambda i: bundle.index.search(queries[i % QUERIES : i % QUERIES + 1], K), calls)


def _timed(call: Callable[[int], Any], calls: int) -> dict[str, float]:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        for i in range(QUERIES):
            call(i)
        seconds = np.empty(calls)
        for i in range(calls):
            start = time.perf_counter()
            call(i)
            seconds[i] = time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, own)
    return {**percentiles(seconds * 1e3), "per_second": round(calls / float(seconds.sum()), 1)}


def time_http(store: Path, bodies: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Percentiles of answers at `rate`, from when each request was due."""
    requests = [post("/recommend", body) for body in bodies]
    with running(serve_store(store)) as server:
        run_open_loop(server.address, requests, schedule(rate / 2, 3.0, 1), connections=32)
        outcome = run_open_loop(server.address, requests, schedule(rate, seconds, 2), connections=32)
        resident = server.resident_bytes()
    sent_late = outcome.sent_s - outcome.due_s
    return {
        "rate": rate,
        "seconds": seconds,
        "answers": outcome.counts(),
        **percentiles(outcome.latency_ms()),
        "client_late_p99_ms": round(float(np.nanpercentile(sent_late, 99)) * 1e3, 3),
        "resident_mb": round(resident / 1e6, 1),
    }


def steal_share() -> float:
    """The share of time since boot that the host gave to others: on a shared machine it explains the tail."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return round(ticks[7] / sum(ticks[:8]), 4)


def print_table(facts: dict[str, Any]) -> None:
    print(f"{facts['items']:,} items x {facts['dim']}, k = {K}")
    print(f"{'':12}{'p50 ms':>10}{'p99 ms':>10}{'p99.9 ms':>10}{'per second':>12}")
    for name in ("bare_index", "in_process", "http"):
        if name in facts:
            row = facts[name]
            per_second = row.get("per_second", row.get("rate"))
            print(f"{name:12}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}{row['p999_ms']:>10.3f}{per_second:>12,.0f}")
    print(f"answers over HTTP: {facts['http']['answers']}; load {facts['load_average']:.1f}")


if __name__ == "__main__":
    main()
