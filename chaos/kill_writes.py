"""Is an acknowledged write ever lost? Processes that put and withdraw items and record events are killed in the middle of it.

    python chaos/kill_writes.py                # 200 kills: about 5 minutes
    python chaos/kill_writes.py --seed 7

Each round, two processes write to one store, each to items and users of its own, and say before and after each write what it was. Both are
killed (SIGKILL) at a random moment. Then the store is opened: every item is in the state of its last acknowledged write, or in
that of the one write that was under way; every acknowledged event is there once. Ends with 1 where that is broken.
The kill falls where it falls: a seed repeats the writes, and the moments as far as the machine allows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import NotFoundError
from shortlist.serve.messages import Event
from shortlist.serve.service import Service
from shortlist.serve.settings import ServeSettings

WRITERS, ITEMS, SHORTEST_S, LONGEST_S = 2, 7, 0.002, 0.25
SETTINGS = ServeSettings(watch_s=0.0, overlay_items=100, learned_deadline_s=30.0, fresh_deadline_s=30.0, events_deadline_s=30.0)


def main() -> int:
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        from stores import two_versions

        facts, faults = kill_writers(two_versions(Path(name) / "store"), options.kills, options.seed)
    print(json.dumps({"seed": options.seed, **facts}))
    for fault in faults[:20]:
        print(f"BROKEN: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def kill_writers(store: Path, kills: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """(what happened, the promises that were broken) in as many rounds as it takes; the store is written to."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shortlist.serve.service"])
    rng = np.random.default_rng((seed, 1))
    truth, faults, counts = Truth(), [], Counter[str]()
    for start in range(0, kills, WRITERS):
        pipes, processes = [], []
        for writer in range(WRITERS):
            here, there = multiprocessing.Pipe(duplex=False)
            processes.append(context.Process(target=write_on, args=(there, str(store), seed, start, writer)))
            processes[-1].start()
            there.close()
            pipes.append(here)
        for pipe in pipes:
            pipe.recv()  # it begins
        time.sleep(float(rng.uniform(SHORTEST_S, LONGEST_S)))
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        for pipe, process in zip(pipes, processes, strict=True):
            process.join()
            counts["killed"] += process.exitcode == -signal.SIGKILL
            counts["acknowledged"] += truth.listen(pipe)
        started = time.perf_counter()
        service = Service.open(store, SETTINGS)
        counts["slowest open, ms"] = max(counts["slowest open, ms"], round(1000 * (time.perf_counter() - started)))
        faults += [f"round {start // WRITERS}: {fault}" for fault in truth.faults(service)]
        service.close()
    if counts["killed"] != kills + kills % WRITERS:
        faults.append(f"{kills} processes must be killed while they write: got {counts['killed']}; the others ended by themselves")
    return dict(counts), faults


class Truth:
    """What the writers said: of each item what it may be now, of each event whether it must be there."""

    def __init__(self) -> None:
        self.items: dict[str, list[float | None]] = {}  # the prices it may have, None = withdrawn
        self.events: dict[str, bool] = {}  # by id: was it acknowledged?

    def listen(self, pipe: Connection) -> int:
        """How many writes were acknowledged, of all that the dead writer said."""
        acknowledged = 0
        try:
            while True:
                is_done, kind, what = pipe.recv()
                acknowledged += is_done
                if kind == "events":
                    for name in what:
                        self.events[name] = self.events.get(name, False) or is_done
                else:
                    for item, price in what.items():
                        self.items[item] = [price] if is_done else [*self.items.get(item, [None]), price]
        except (EOFError, OSError):  # the end of what it said; the last word may be cut
            return acknowledged

    def faults(self, service: Service) -> list[str]:
        """What the store says otherwise. Afterwards the truth is what the store says: what was under way has happened or not."""
        faults = []
        for item, allowed in self.items.items():
            try:
                found = service.item(item)["price"]
            except NotFoundError:
                found = None
            if found not in allowed:
                faults.append(f"item {item} must be one of {allowed}: got {found}")
            self.items[item] = [found]
        stored = Counter[str]()
        for user in {name.partition(" ")[0] for name in self.events}:
            stored.update(str(item) for item in service._events.newest(user, 1_000_000).items)
        for name, must in self.events.items():
            if stored[name] > 1 or (must and not stored[name]):
                faults.append(f"event {name!r} must be there once: got {stored[name]}")
            self.events[name] = bool(stored[name])
        return faults


def write_on(pipe: Connection, store: str, seed: int, start: int, writer: int) -> None:
    """Writes until it is killed."""
    rng = np.random.default_rng((seed, start, writer))
    service = Service.open(Path(store), SETTINGS)
    pipe.send("begin")
    for number in range(1_000_000):
        items = [f"w{writer}i{item}" for item in rng.choice(ITEMS, int(rng.integers(1, 4)), replace=False)]
        kind = ("put", "put", "delete", "events")[int(rng.integers(4))]
        if kind == "events":
            names = [f"user{writer} {start} {number} {place}" for place in range(len(items))]
            pipe.send((False, kind, names))
            service.record_events([Event(user=f"user{writer}", item=name, id=name) for name in names])
            pipe.send((True, kind, names))
            continue
        state = {item: None if kind == "delete" else float(start * 1_000_000 + number) for item in items}
        pipe.send((False, kind, state))
        if kind == "put":
            service.put_items([{"item_id": item, "price": price} for item, price in state.items()])
        else:
            service.delete_items(list(items))
        pipe.send((True, kind, state))


if __name__ == "__main__":
    sys.exit(main())
