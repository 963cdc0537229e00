"""Is anything lost when a server is told to go? SIGTERM under load, again and again, also twice in a row.

    python chaos/drain.py           # 20 rounds, about 3 minutes
    python chaos/drain.py --short   # 3 rounds

In each round queries and events come at a steady rate from an open loop, the signal at a random moment. Every request that a
connection took must be answered, /ready must say 503 before the first connection is refused, the process must end with 0 in
time, and every event that was accepted must be there when the store is opened again. Ends with 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from load.open_loop import LOST, REFUSED, post, run_open_loop, schedule
from load.server_process import ServerProcess, running, serve_store
from load.synthetic_store import make_store

ITEMS = 5_003
RATE = 300.0
EVENT_EVERY = 30  # one request in so many is an event
END_LONGEST_S = 10.0


def main() -> int:
    options = read_options()
    store = make_store(options.folder / "drain", items=ITEMS, dim=16)
    rng, faults, rounds = random.Random(options.seed), list[str](), list[dict[str, Any]]()
    for number in range(options.rounds):
        facts = run_round(store, number, rng.uniform(0.5, 2.0), workers=1 + number % 2, faults=faults)
        rounds.append(facts)
        print(f"round {number}: {facts}", file=sys.stderr)
    lost = sum(facts["answers"].get("lost", 0) for facts in rounds)
    print(json.dumps({"seed": options.seed, "rounds": len(rounds), "lost": lost, "longest_s": max(facts["ended_s"] for facts in rounds)}))
    for fault in faults:
        print(f"BROKEN (--seed {options.seed}): {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="3 rounds")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-chaos", help="the store is kept here")
    options = parser.parse_args()
    if options.short:
        options.rounds = 3
    return options


def run_round(store: Path, number: int, told_after_s: float, *, workers: int, faults: list[str]) -> dict[str, Any]:
    """What became of one server and its clients."""
    stamp = f"{time.time_ns():x}"
    requests = [
        post("/events", json.dumps({"events": [{"user": f"drain {stamp}", "item": f"i{i}", "id": f"{stamp}-{i}"}]}).encode())
        if i % EVENT_EVERY == 0
        else post("/recommend", b'{"k": 100}')
        for i in range(2_000)
    ]
    seen: dict[str, float] = {}
    with running(serve_store(store, "--workers", str(workers))) as server:

        def during(now_s: float) -> None:
            if now_s >= told_after_s and "told" not in seen:
                seen["told"] = now_s
                server.process.send_signal(signal.SIGTERM)
            elif "told" in seen and "unready" not in seen and _ready_status(server) == 503:
                seen["unready"] = now_s
                server.process.send_signal(signal.SIGTERM)  # a second one changes nothing
            if "ended" not in seen and server.process.poll() is not None:
                seen["ended"] = now_s

        outcome = run_open_loop(server.address, requests, schedule(RATE, told_after_s + 2.5, number), during=during)
        try:
            code: int | None = server.process.wait(END_LONGEST_S)
        except subprocess.TimeoutExpired:
            code = None
    refused = outcome.due_s[outcome.status == REFUSED]
    ended_s = max(0.0, seen.get("ended", float(outcome.due_s[-1])) - seen["told"])
    accepted = [int(i) for i in range(0, len(outcome.status), EVENT_EVERY) if outcome.status[i] == 200]
    name = f"round {number} ({workers} workers, told after {told_after_s:.2f} s)"
    if lost := int((outcome.status == LOST).sum()):
        faults.append(f"{name}: {lost} requests were sent and not answered")
    if code != 0 or ended_s > END_LONGEST_S:
        faults.append(f"{name}: the process must end with 0 within {END_LONGEST_S:g} s: got {code} after {ended_s:.1f} s")
    if "unready" not in seen or (len(refused) and refused[0] < seen["unready"]):
        faults.append(f"{name}: /ready must say 503 before a connection is refused: {seen}, first refused {refused[:1]}")
    if unexpected := set(outcome.counts()) - {"200", "429", "refused", "lost"}:
        faults.append(f"{name}: got {unexpected}")
    stored = stored_events(store, stamp)
    if missing := [i for i in accepted if f"{stamp}-{i}" not in stored]:
        faults.append(f"{name}: {len(missing)} accepted events are gone, e.g. {missing[:3]}")
    return {"workers": workers, "answers": outcome.counts(), "exit_code": code, "ended_s": round(ended_s, 2), "events": len(accepted)}


def _ready_status(server: ServerProcess) -> int:
    try:
        return server.ask("GET", "/ready", timeout_s=2.0)[0]
    except OSError:
        return 0


def stored_events(store: Path, stamp: str) -> set[str]:
    """The ids of the events of one round, read from the database itself."""
    with closing(sqlite3.connect(store / "events.sqlite")) as database:
        return {name for (name,) in database.execute("SELECT event_id FROM events WHERE event_id LIKE ?", (f"{stamp}-%",))}


if __name__ == "__main__":
    sys.exit(main())
