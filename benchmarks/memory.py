"""How much memory does a serving process hold beside its version's files?

    python benchmarks/memory.py --json                        # 200k x 64, as in benchmarks/serve.py
    python benchmarks/memory.py --items 1000000 --dim 128     # trains and publishes its store first, some ten minutes; kept for later

Allowed are 1.1 times the files of the live version and 150 MB (10^6 bytes each). Resident is RSS: pages of mapped files count once,
whoever else reads them too; PSS, beside it, shares them out among the processes that do. The peak is of the whole start, measured by
the system (VmHWM). "of files" is what is mapped of the store; "libraries" what is mapped of other files; the rest is the heap's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from load.resident import memory_of
from load.server_process import running, serve_store
from load.synthetic_store import store_of_kind
from record import run_record

from shortlist.manifest import verify_version
from shortlist.store import current_version

MB = 1e6
ALLOWED_TIMES, ALLOWED_MORE = 1.1, 150 * MB
REQUESTS, HISTORY, K = 500, 20, 100


def main() -> None:
    options = read_options()
    results = [measured(options, kind) for kind in options.kinds]
    columns = ("files", "allowed", "resident", "pss", "mapped_of_files", "libraries", "heap", "peak")
    print(f"{'kind, MB':8}" + "".join(f"{head.removeprefix('mapped_').replace('_', ' '):>11}" for head in columns))
    for one in results:
        print(f"{one['kind']:8}" + "".join(f"{one[name] / MB:11.0f}" for name in columns))
    if options.json:
        print(json.dumps({"benchmark": "memory", "items": options.items, "dim": options.dim, "results": results, **run_record()}))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--kinds", nargs="+", default=["auto"], help="of index: auto, exact, int8, scann, faiss")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "shortlist-benchmarks", help="stores are kept here")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser.parse_args()


def measured(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """What a fresh server holds after some requests, in bytes, beside what it may."""
    store = store_of_kind(options.folder / f"{options.items}x{options.dim}", items=options.items, dim=options.dim, kind=kind)
    version = current_version(store)
    manifest = verify_version(version)
    files = sum(facts.size_bytes for facts in manifest.files.values())
    with running(serve_store(store)) as server:
        for number in range(REQUESTS):
            history = [f"i{(number * 7919 + place * 104_729) % options.items}" for place in range(HISTORY)]
            status, _ = server.ask("POST", "/recommend", json.dumps({"history": history, "k": K}).encode())
            assert status == 200, f"every request must be answered: got {status}"
        held = memory_of(server.process.pid, store)
    print(f"{kind}: {held}", file=sys.stderr)
    allowed = ALLOWED_TIMES * files + ALLOWED_MORE
    return {
        "kind": manifest.facts["index"]["kind"],
        "files": files,
        "allowed": round(allowed),
        "within": held["resident"] <= allowed,
        **held,
    }


if __name__ == "__main__":
    main()
