"""How long is a training step beside the tools that one would use instead, and beside its bare matrix products?

    python benchmarks/step.py              # a table; about six minutes on two cores, and an installation the first time
    python benchmarks/step.py --json       # one JSON line on stdout

One model (contenders/workload.py): on each side an id, a segment and a bag of 20 words, d = 64, towers [512, 128], 100,000 users and
items, Adagrad; B = 1024 with B' = 0, 1024 and 8192. Each contender is a process of its own that waits while others have their turn;
turns go round, so that a busy machine is busy for all. The others get their batches ready-made in memory; shortlist makes its own
beside the step and writes its diagnostics, as `shortlist train` does. Figures are medians over the steps of all rounds, of means of a
turn where that is what one pays ("per turn"); ratios are medians over rounds of the ratio within a round.
The aims: 2.5 times TensorFlow Recommenders (B' = 1024 and 8192), 4 times plain PyTorch, .55 of the rate of the products.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "contenders"))
from environments import python_of
from record import run_record

INDEX_BATCHES = (0, 1024, 8192)
OURS, BOUND = "shortlist", "products bfloat16"
CONTENDERS: dict[str, tuple[str, list[str]]] = {  # name -> (file, options)
    OURS: ("ours", []),
    "shortlist float32": ("ours", ["--float32"]),
    "tfrs": ("tfrs", []),
    "tfrs, hits kept": ("tfrs", ["--keep-hits"]),
    "tfrs bfloat16, hits kept": ("tfrs", ["--bfloat16", "--keep-hits"]),  # its removal of hits takes float32 alone
    "torch sparse": ("plain_torch", []),
    "torch sparse bfloat16": ("plain_torch", ["--bfloat16"]),
    "torchrec": ("torchrec_cpu", []),
    BOUND: ("products", ["--bfloat16"]),
    "products float32": ("products", []),
}
_NOT_COUNTED = 2  # steps at the start of a turn: caches are cold, and batches were made meanwhile


@dataclass
class Turns:
    """One contender as a process that runs when it is told to."""

    process: subprocess.Popen[str]
    rounds: list[list[float]] = field(default_factory=list)  # ms of each step

    def answer(self) -> dict[str, Any]:
        """The next line. Raises RuntimeError where the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} must answer every turn: it ended; run it alone to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, steps: int) -> None:
        """Has one turn of so many steps that count."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps + _NOT_COUNTED}\n")
        self.process.stdin.flush()
        self.rounds.append(self.answer()["ms"][_NOT_COUNTED:])

    def end(self) -> None:
        """Waits until the process has ended by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start(name: str, index_batch: int, threads: int) -> Turns:
    """The contender, warm: its first step is done."""
    file, options = CONTENDERS[name]
    folder = Path(__file__).parent / "contenders"
    command = [python_of(file), f"{file}.py", "--index-batch", str(index_batch), "--threads", str(threads), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    turns = Turns(process)
    turns.answer()
    return turns


def measure(names: list[str], index_batch: int, *, rounds: int, steps: int, threads: int) -> dict[str, dict[str, float]]:
    """By contender: ms a step (median), ms a step by the mean of a turn, and our rate over its rate."""
    turns = {name: start(name, index_batch, threads) for name in names}
    for number in range(rounds + 1):
        for one in turns.values():
            one.run(steps)
            if number == 0:  # a round to warm up
                one.rounds.clear()
    for one in turns.values():
        one.end()
    found = {}
    for name, one in turns.items():
        means = [statistics.fmean(times) for times in one.rounds]
        ours = [statistics.fmean(times) for times in turns[OURS].rounds]
        found[name] = {
            "ms": round(statistics.median(time for times in one.rounds for time in times), 2),
            "ms_per_turn": round(statistics.median(means), 2),
            "times_ours": round(statistics.median(theirs / mine for theirs, mine in zip(means, ours, strict=True)), 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help=f"these contenders; {OURS} is always there")
    parser.add_argument("--index-batches", nargs="*", type=int, default=list(INDEX_BATCHES))
    options = parser.parse_args()
    names = [name for name in CONTENDERS if options.only is None or name in options.only or name == OURS]
    results = {
        str(size): measure(names, size, rounds=options.rounds, steps=options.steps, threads=options.threads)
        for size in options.index_batches
    }
    if options.json:
        print(json.dumps({"benchmark": "step", "threads": options.threads, "results": results, **run_record()}))
        return
    print(f"{'ms a step, B = 1024':<26}" + "".join(f"{f'B_index = {size}':>16}{'x ours':>8}" for size in results))
    for name in names:
        cells = "".join(f"{result[name]['ms_per_turn']:>16.1f}{result[name]['times_ours']:>8.2f}" for result in results.values())
        print(f"{name:<26}{cells}")


if __name__ == "__main__":
    main()
