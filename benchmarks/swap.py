"""Does anybody notice a hot swap? A minute at 70 % load, 30 swaps between versions with disjoint ids and other dimensions.

    python benchmarks/swap.py --json

Every answer names its version; each of its ids must be one of that version. What is steady is measured for a quarter of the time before
and a quarter after, by the same client: answers are looked at there too, which takes a part of a core. A table, then one JSON line.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from load.open_loop import percentiles, post, run_open_loop, schedule
from load.server_process import ServerProcess, running, serve_store
from load.synthetic_store import add_version
from record import run_record

from shortlist.serve.messages import Slate
from shortlist.store import set_current, versions

K, QUERIES = 100, 500
PREFIXES = ("a", "b")


def main() -> None:
    options = read_options()
    store = make_two_versions(options.folder / f"swap-{options.items}", options.items)
    first, second = versions(store)[:2]
    prefix_of = {first: PREFIXES[0], second: PREFIXES[1]}
    set_current(store, first)
    with running(serve_store(store)) as server:
        requests = query_requests(options.items)
        run_open_loop(server.address, requests, schedule(300, 3.0, 0))
        rate = options.rate or round(0.7 * peak_goodput(server, requests))
        before = run_open_loop(server.address, requests, schedule(rate, options.seconds / 4, 1), seen=Answers(prefix_of))
        memory_before = server.resident_bytes()
        facts = measure_swaps(server, store, requests, rate, options, prefix_of)
        memory = {"before_mb": round(memory_before / 1e6, 1), "after_mb": round(server.resident_bytes() / 1e6, 1)}
        after = run_open_loop(server.address, requests, schedule(rate, options.seconds / 4, 2), seen=Answers(prefix_of))
    steady_ms = percentiles(np.concatenate([before.latency_ms(), after.latency_ms()]))
    facts["refused_or_failed_in_steady"] = int((before.status != 200).sum() + (after.status != 200).sum())
    facts |= {"steady_before": percentiles(before.latency_ms()), "steady_after": percentiles(after.latency_ms()), "steady": steady_ms}
    facts |= {"p99_ratio": round(facts["swapping"]["p99_ms"] / steady_ms["p99_ms"], 3), "memory": memory}
    facts |= {"rate": rate, "items": options.items, "load_average": os.getloadavg()[0], **run_record()}
    print(f"{facts['answers']} at {rate:,.0f} a second, {facts['swaps']} swaps, {facts['mixed']} mixed")
    print(f"failed or refused: {facts['failed']} while swapping, {facts['refused_or_failed_in_steady']} in half as long without")
    print(f"steady   {steady_ms}\nswapping {facts['swapping']}   p99 ratio {facts['p99_ratio']}; {memory}")
    if options.json:
        print(json.dumps(facts))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000, help="of each version")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--swaps", type=int, default=30)
    parser.add_argument("--rate", type=float, help="requests a second (default: 70 %% of the measured peak)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-benchmarks", help="stores are kept here")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser.parse_args()


def make_two_versions(folder: Path, items: int) -> Path:
    """A store with a version of ids a0, a1 ... of 64 and one of b0, b1 ... of 48 dimensions."""
    store = folder / "store"
    if not (store / "CURRENT").exists() or len(versions(store)) < 2:
        for prefix, dim in zip(PREFIXES, (64, 48), strict=True):
            print(f"training a version of {items:,} items {prefix}... x {dim}", file=sys.stderr)
            add_version(store, folder / prefix, items=items, dim=dim, prefix=prefix)
    return store


def query_requests(items: int) -> list[bytes]:
    """Requests whose history names items of both versions: each knows half of it."""
    rows = np.random.default_rng(0).integers(0, items, (QUERIES, 20)).tolist()
    histories = [[f"{PREFIXES[place % 2]}{row}" for place, row in enumerate(history)] for history in rows]
    return [post("/recommend", json.dumps({"history": history, "k": K}).encode()) for history in histories]


def peak_goodput(server: ServerProcess, requests: list[bytes]) -> float:
    """Answers a second when far more are asked for."""
    best, rate = 0.0, 500.0
    while True:
        outcome = run_open_loop(server.address, requests, schedule(rate, 3.0, 5))
        goodput = float((outcome.status == 200).sum()) / 3.0
        if goodput < 1.05 * best:
            return max(best, goodput)
        best, rate = max(best, goodput), 1.4 * rate


class Answers:
    """Counts answers by the version that they name, and those that hold an id of another, or too few."""

    def __init__(self, prefix_of: dict[str, str]) -> None:
        self._prefix_of, self._decoder = prefix_of, msgspec.json.Decoder(Slate)
        self.by_version, self.mixed = dict.fromkeys(prefix_of, 0), 0

    def __call__(self, request: int, status: int, body: bytes) -> None:
        """Looks at one answer."""
        if status == 200:
            slate = self._decoder.decode(body)
            self.by_version[slate.version] += 1
            prefix = self._prefix_of[slate.version]
            self.mixed += len(slate.items) != K or not all(str(item).startswith(prefix) for item in slate.items)


def measure_swaps(
    server: ServerProcess, store: Path, requests: list[bytes], rate: float, options: argparse.Namespace, prefix_of: dict[str, str]
) -> dict[str, Any]:
    """What a minute of queries got while another process swapped versions."""
    answers = Answers(prefix_of)
    swapped = multiprocessing.get_context("spawn").Queue()
    every_s = options.seconds / (options.swaps + 1)
    swapper = multiprocessing.get_context("spawn").Process(
        target=swap_versions, args=(server.address, store, list(prefix_of), options.swaps, every_s, swapped)
    )
    swapper.start()
    swapped.get(timeout=60)  # it is up
    outcome = run_open_loop(server.address, requests, schedule(rate, options.seconds, 6), seen=answers)
    swapper.join(30)
    results = [swapped.get(timeout=5) for _ in range(options.swaps)]
    return {
        "answers": outcome.counts(),
        "failed": int((outcome.status != 200).sum()),
        "mixed": answers.mixed,
        "by_version": answers.by_version,
        "swaps": sum(changed for changed, _ in results),
        "swap_seconds": percentiles(np.array([seconds for _, seconds in results]) * 1e3),
        "swapping": percentiles(outcome.latency_ms()),
    }


def swap_versions(address: tuple[str, int], store: Path, names: list[str], swaps: int, every_s: float, told: Any) -> None:
    """Switches the store and asks the server to follow, `swaps` times."""
    told.put("up")
    start = time.monotonic()
    for number in range(1, swaps + 1):
        time.sleep(max(0.0, start + number * every_s - time.monotonic()))
        begun = time.monotonic()
        set_current(store, names[number % 2])
        connection = http.client.HTTPConnection(*address, timeout=60)
        connection.request("POST", "/admin/reload")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        told.put((answer.get("version") == names[number % 2], time.monotonic() - begun))


if __name__ == "__main__":
    main()
