"""Does a server at five times its capacity still answer as many as it can? Goodput, how soon refusals come, how soon it recovers.

    python benchmarks/overload.py --json

First the peak: the most answers a second over rising rates. Then five times that for a minute, directly followed by half
of it. All rates are open loops: nobody waits for anybody. A table, then one JSON line.

Last, the bound: a server that only reads and refuses (load/bare_refuser.py) is offered the same. To read a request and to send the
refusal has a price in the kernel that no server can lower; a server whose refusals cost nothing else would keep `bound_share`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from load.open_loop import Outcome, percentiles, post, run_open_loop, schedule
from load.server_process import ServerProcess, running, serve_store
from load.synthetic_store import make_store
from record import run_record

from shortlist.serve.gate import LOOK_EVERY_S

K, HISTORY, QUERIES = 100, 20, 500
FACTOR = 5.0
STEADY_SHARE = 0.5  # of the peak, after the overload


def main() -> None:
    options = read_options()
    store = make_store(options.folder / f"{options.items}x{options.dim}", items=options.items, dim=options.dim)
    requests = query_requests(options.items)
    with running(serve_store(store), apart=True) as server:
        run_open_loop(server.address, requests, schedule(300, 3.0, 0))
        rates = measure_peak(server, requests, options.peak_seconds)
        peak = max(rate["goodput"] for rate in rates)
        facts = measure_overload(server, requests, peak, options.seconds)
        resident = server.resident_bytes()
    facts |= measure_bound(requests, peak)
    facts = {
        "items": options.items,
        "dim": options.dim,
        "rates": rates,
        "peak": peak,
        **facts,
        "resident_mb": round(resident / 1e6, 1),
        "load_average": os.getloadavg()[0],
        **run_record(),
    }
    print_table(facts)
    if options.json:
        print(json.dumps(facts))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--peak-seconds", type=float, default=4, help="of each rate on the way to the peak")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-benchmarks", help="stores are kept here")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser.parse_args()


def query_requests(items: int, seed: int = 0) -> list[bytes]:
    """Requests for k items after a history of known ones."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, items, (QUERIES, HISTORY)).tolist()
    return [post("/recommend", json.dumps({"history": [f"i{row}" for row in history], "k": K}).encode()) for history in rows]


def measure_peak(server: ServerProcess, requests: list[bytes], seconds: float) -> list[dict[str, Any]]:
    """Goodput at rising rates, until two in a row answer fewer than the best."""
    rates: list[dict[str, Any]] = []
    rate, worse = 400.0, 0
    while worse < 2:
        outcome = run_open_loop(server.address, requests, schedule(rate, seconds, 1))
        goodput = float((outcome.status == 200).sum()) / seconds
        worse = worse + 1 if rates and goodput < 1.03 * max(earlier["goodput"] for earlier in rates) else 0
        rates.append({"rate": round(rate), "goodput": round(goodput, 1), **percentiles(outcome.latency_ms())})
        print(f"{rate:8.0f} a second: {goodput:8.0f} answered, p99 {rates[-1].get('p99_ms', 0):.1f} ms", file=sys.stderr)
        rate *= 1.3
    return rates


def measure_overload(server: ServerProcess, requests: list[bytes], peak: float, seconds: float) -> dict[str, Any]:
    """Goodput, latency of answers and of refusals, and the time to recovery."""
    steady_s = 6.0
    before = run_open_loop(server.address, requests, schedule(STEADY_SHARE * peak, steady_s, 2))
    steady_p99_ms = percentiles(before.latency_ms())["p99_ms"]
    due = np.concatenate([schedule(FACTOR * peak, seconds, 3), seconds + schedule(STEADY_SHARE * peak, steady_s, 4)])
    cpu_before = server.cpu_seconds()
    outcome = run_open_loop(server.address, requests, due, connections=1024)
    own_s, kernel_s = (after - before for before, after in zip(cpu_before, server.cpu_seconds(), strict=True))
    during = due < seconds
    answered = outcome.answered_s[(outcome.status == 200) & (outcome.answered_s < seconds)]
    goodput = len(answered) / seconds
    from_sent_ms = (outcome.answered_s - outcome.sent_s)[during & (outcome.status == 429)] * 1e3
    return {
        "offered": round(float(during.sum()) / seconds, 1),
        "goodput": round(goodput, 1),
        "goodput_share": round(goodput / peak, 4),
        "answers": outcome.counts(),
        "accepted": percentiles(outcome.latency_ms(200)[: int((outcome.status[during] == 200).sum())]),
        "refused": percentiles(outcome.latency_ms(429)),
        "refused_from_sent": percentiles(from_sent_ms),
        "server_cpu": {
            "own_s": round(own_s, 2),
            "kernel_s": round(kernel_s, 2),
            "kernel_us_a_request": round(1e6 * kernel_s / len(due), 2),
        },
        "steady_p99_ms": steady_p99_ms,
        "recovery_s": round(recovery_s(outcome, seconds, max(2 * steady_p99_ms, 10.0)), 3),
    }


def measure_bound(requests: list[bytes], peak: float, seconds: float = 10.0) -> dict[str, Any]:
    """What the kernel takes for a refusal, and the share of the peak that is left when all but one in five are refused at that price.

    With the price p of a refusal and the peak P, the share x of it: x + (5 - x) P p = 1.
    """
    refuser = [str(Path(__file__).parent / "load" / "bare_refuser.py"), str(1e3 * LOOK_EVERY_S)]
    with running(refuser, apart=True) as server:
        run_open_loop(server.address, requests, schedule(FACTOR * peak, 2.0, 6), connections=1024)
        before = server.cpu_seconds()[1]
        outcome = run_open_loop(server.address, requests, schedule(FACTOR * peak, seconds, 7), connections=1024)
        price_s = (server.cpu_seconds()[1] - before) / int((outcome.status == 429).sum())
    share = (1 - FACTOR * peak * price_s) / (1 - peak * price_s)
    return {"refusal_kernel_us": round(1e6 * price_s, 2), "bound_share": round(share, 4)}


def recovery_s(outcome: Outcome, end_s: float, bound_ms: float) -> float:
    """How long after the overload the last request was due that was refused, lost or answered later than `bound_ms`."""
    late = ~((outcome.status == 200) & ((outcome.answered_s - outcome.due_s) * 1e3 <= bound_ms))
    after = outcome.due_s[late & (outcome.due_s >= end_s)]
    # one slow answer in a hundred is steady: the first window of 100 ms with at most that share ends the recovery
    edges = np.arange(end_s, float(outcome.due_s[-1]), 0.1)
    bad, _ = np.histogram(after, edges)
    every, _ = np.histogram(outcome.due_s, edges)
    unwell = np.flatnonzero(bad > np.maximum(0.01 * every, 1))
    calm = next((window for window in range(len(every)) if window not in set(unwell.tolist())), len(every))
    return 0.1 * calm


def print_table(facts: dict[str, Any]) -> None:
    print(f"{facts['items']:,} items x {facts['dim']}, k = {K}: peak {facts['peak']:,.0f} answers a second")
    print(f"offered {facts['offered']:,.0f} a second: goodput {facts['goodput']:,.0f} = {facts['goodput_share']:.1%} of the peak")
    for name in ("accepted", "refused", "refused_from_sent"):
        print(f"  {name:18} {facts[name]}")
    cpu = facts["server_cpu"]
    each = f"{cpu['kernel_us_a_request']:.1f} us a request"
    print(f"the server's core: {cpu['own_s']:.1f} s of its own, {cpu['kernel_s']:.1f} s of the kernel, {each}")
    price, bound = facts["refusal_kernel_us"], facts["bound_share"]
    print(f"a refusal costs the kernel {price:.1f} us: no server of this peak keeps more than {bound:.1%}")
    print(f"recovered after {facts['recovery_s']} s; {facts['answers']}; load {facts['load_average']:.1f}")


if __name__ == "__main__":
    main()
