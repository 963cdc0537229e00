"""Is a store ever half published? Processes that publish, compact and roll back are killed in the middle of it.

    python chaos/kill_publish.py               # 200 kills: about 8 minutes
    python chaos/kill_publish.py --seed 7

Each round one process writes items and publishes, again and again, and is killed (SIGKILL) at a random moment. Then the store is opened:
the live version is whole, every file as its manifest says; it is one that had been live or was being published; every acknowledged
item is there; and the next round can publish. Ends with 1 where that is broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
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
from shortlist.manifest import MANIFEST, published_facts
from shortlist.serve.service import Service
from shortlist.serve.settings import ServeSettings
from shortlist.store import current_version, publish_version, versions

LONGEST_S = 0.5
SETTINGS = ServeSettings(watch_s=0.0, keep_versions=2, learned_deadline_s=30.0, fresh_deadline_s=30.0, events_deadline_s=30.0)


def main() -> int:
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        from stores import two_versions

        facts, faults = kill_publishers(two_versions(Path(name) / "store"), options.kills, options.seed)
    print(json.dumps({"seed": options.seed, **facts}))
    for fault in faults[:20]:
        print(f"BROKEN: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def kill_publishers(store: Path, kills: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """(what happened, the promises that were broken); the store is written to."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shortlist.serve.service"])
    rng = np.random.default_rng((seed, 1))
    faults: list[str] = []
    counts: Counter[str] = Counter()
    acknowledged: set[str] = set()
    for turn in range(kills):
        here, there = multiprocessing.Pipe(duplex=False)
        process = context.Process(target=publish_on, args=(there, str(store), turn))
        process.start()
        there.close()
        live_before = here.recv()
        time.sleep(float(rng.uniform(0.001, LONGEST_S)))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        counts["killed"] += process.exitcode == -signal.SIGKILL
        under_way = listen(here, acknowledged, counts)
        counts["stray folders"] += len(list(store.glob("tmp-*")))
        faults += [f"kill {turn}: {fault}" for fault in faults_of(store, live_before, acknowledged, under_way)]
    return dict(counts) | {"versions": versions(store)}, faults


def listen(pipe: Connection, acknowledged: set[str], counts: Counter[str]) -> set[str]:
    """The items that were being written when the process died; those that were acknowledged are added."""
    under_way: set[str] = set()
    try:
        while True:
            word, item = pipe.recv()
            counts[word] += 1
            if word == "acknowledged":
                acknowledged.add(item)
                under_way.discard(item)
            elif word == "writing":
                under_way.add(item)
    except (EOFError, OSError):
        return under_way


def faults_of(store: Path, live_before: str, acknowledged: set[str], under_way: set[str]) -> list[str]:
    """What is wrong with the store that the killed process left."""
    try:
        live = current_version(store)
        service = Service.open(store, SETTINGS)  # verifies every file
    except Exception as error:
        return [f"the store must open: got {type(error).__name__}: {error}"]
    faults = []
    if int(live.name[1:]) < int(live_before[1:]):
        faults.append(f"the live version must be {live_before} or a later one: got {live.name}")
    for item in acknowledged:
        try:
            service.item(item)
        except NotFoundError:
            faults.append(f"item {item} must be there: its write was acknowledged, and {live.name} does not know it")
    service.close()
    return faults


def publish_on(pipe: Connection, store_name: str, turn: int) -> None:
    """Writes and publishes until it is killed."""
    store = Path(store_name)
    service = Service.open(store, SETTINGS)
    pipe.send(service.facts()["version"])
    for number in range(1_000_000):
        item = f"t{turn % 5}n{number % 7}"
        pipe.send(("writing", item))
        service.put_items([{"item_id": item, "price": float(number)}])
        pipe.send(("acknowledged", item))
        if number % 2:
            source = current_version(store)
            publish_version(store, lambda target, source=source: _copied(source, target), facts=published_facts(source))  # type: ignore[misc]
            service.reload()
            pipe.send(("published", ""))
        else:
            service.compact()
            pipe.send(("compacted", ""))


def _copied(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
    (target / MANIFEST).unlink()


if __name__ == "__main__":
    sys.exit(main())
