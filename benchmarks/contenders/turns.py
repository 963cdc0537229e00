"""One contender's side of the turns: it waits, runs as many steps as it is told, and answers with the time of each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def take_turns(step: Callable[[], float]) -> None:
    """Reads numbers of steps from stdin, a line each, and writes {"ms": [...], "loss": ...} lines to stdout until stdin ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not stand among the answers
    print(json.dumps({"loss": step()}), file=answers, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            started = time.perf_counter()
            loss = step()
            times.append((time.perf_counter() - started) * 1e3)
        print(json.dumps({"ms": times, "loss": loss}), file=answers, flush=True)
