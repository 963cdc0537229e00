"""What do more events and more items cost? Preparation, training and memory, from a thousand thousands to fifty million events.

    python benchmarks/scale.py                      # tables; about a quarter of an hour on two cores, 5 GB of disk
    python benchmarks/scale.py --json               # one JSON line on stdout
    python benchmarks/scale.py --events 1000000 --items 10000 --rounds 3
    python benchmarks/scale.py --chart docs/scale.svg

A made-up shop (`shortlist fetch synthetic`) for every size: by events at 100,000 items, by items at 1,000,000 events. Each has a
process of its own, which prepares (from the Parquet file to a run folder from which batches are taken: reading, checks, examples,
histories of all users) and then trains with the settings of `fetch synthetic` (64-dimensional tables, towers [512, 128], B = 1024,
B' = 1024, histories of 20). The processes train in turn, some steps a round, so that a busy machine is busy for all; a figure is the
median over rounds, a ratio the median over each round's ratios to the smallest size. Memory is the process's peak of resident memory,
preparation and training together, pages of memory-mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import run_record

EVENTS, ITEMS = (1_000_000, 10_000_000, 50_000_000), (10_000, 100_000, 1_000_000)
OTHER_EVENTS, OTHER_ITEMS = 1_000_000, 100_000
WARM_UP, STEPS = 20, 20
RELEASE_S = 12  # what the log took goes back to the system in the course of some seconds


class Worker:
    """A process with one size of shop, prepared, which trains some steps whenever it is told to."""

    def __init__(self, folder: Path, events: int, items: int, threads: int | None) -> None:
        self.events, self.items = events, items
        options = ["--worker", str(folder), "--events", str(events), "--items", str(items)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *options, *([] if threads is None else ["--threads", str(threads)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.prepared = self._answer()

    def train(self) -> dict[str, float]:
        """Seconds of a step, and the peak of memory so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("train\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process with {self.events:,} events and {self.items:,} items ended: see above")
        answer: dict[str, float] = json.loads(line)
        return answer


def work(folder: Path, events: int, items: int, threads: int | None) -> None:
    """The worker's side: answers are lines of JSON on stdout."""
    import torch

    from shortlist.backtest import latest_window
    from shortlist.config import load_config
    from shortlist.datasets.fetch import fetch_project
    from shortlist.progress import stderr_console
    from shortlist.project import open_project
    from shortlist.run import prepare_run, split_validation
    from shortlist.train import Trainer

    started = time.perf_counter()
    if os.fork() == 0:  # in a process of its own: its memory is not ours
        fetch_project("synthetic", folder, console=stderr_console(), sizes={"events": events, "items": items})
        os._exit(0)
    if os.wait()[1]:
        raise SystemExit("the shop could not be made: see above")
    generated = time.perf_counter()
    config = load_config(folder / "shortlist.toml", ["evaluate.protocol='holdout'"])  # the whole log is learned from
    before = time.process_time()
    project = open_project(config)
    read = time.perf_counter()
    run = prepare_run(project, latest_window(project.log, config), folder / "run")
    done = time.perf_counter()
    facts = {"generation_s": generated - started, "reading_s": read - generated, "preparation_s": done - generated}
    print(json.dumps({**facts, "preparation_cpu_s": time.process_time() - before, "peak_gb": peak_gb()}), flush=True)
    del project
    if threads is not None:
        torch.set_num_threads(threads)
    examples, _ = split_validation(run.dataset.train, run.config.train)
    trainer = Trainer(run.dataset, examples, run.config)
    time.sleep(RELEASE_S)
    step = 0
    for _ in sys.stdin:
        count = STEPS if step else WARM_UP + STEPS
        begun = 0.0
        for number, batch in trainer._batches(step, step + count):
            if number == step + count - STEPS:
                begun = time.perf_counter()
            trainer.learner.learn(batch)
        step += count
        print(json.dumps({"step_s": (time.perf_counter() - begun) / STEPS, "peak_gb": peak_gb(), "resident_gb": resident_gb()}), flush=True)


def peak_gb() -> float:
    """The most resident memory that this process ever had; Linux counts in kibibytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def resident_gb() -> float:
    """The resident memory of this process now."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e9


def measured_series(sizes: list[tuple[int, int]], rounds: int, folder: Path, threads: int | None) -> list[dict[str, Any]]:
    """One row a size: preparation one after the other, then training in turn."""
    workers = [Worker(folder / f"{events}-{items}", events, items, threads) for events, items in sizes]
    taken = [[worker.train() for worker in workers] for _ in range(rounds)]
    for worker in workers:
        worker.stop()
    rows = []
    for place, worker in enumerate(workers):
        steps = [answers[place]["step_s"] for answers in taken]
        ratios = [answers[place]["step_s"] / answers[0]["step_s"] for answers in taken]
        rows.append(
            {
                "events": worker.events,
                "items": worker.items,
                **worker.prepared,
                "events_per_second": worker.events / worker.prepared["preparation_s"],
                "step_ms": 1000 * statistics.median(steps),
                "step_ms_of_rounds": [round(1000 * value, 1) for value in steps],
                "microseconds_per_example": 1e6 * statistics.median(steps) / 1024,
                "ratio_to_first": statistics.median(ratios),
                "peak_gb": taken[-1][place]["peak_gb"],
                "training_gb": taken[-1][place]["resident_gb"],
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    heads = ("events", "items", "prepared in", "events/s", "CPU", "a step", "to the first", "peak", "training")
    print(" ".join(f"{head:>12}" for head in heads))
    for row in rows:
        cells = (
            f"{row['events']:,}",
            f"{row['items']:,}",
            f"{row['preparation_s']:.1f} s",
            f"{row['events_per_second']:,.0f}",
            f"{row['preparation_cpu_s']:.1f} s",
            f"{row['step_ms']:.1f} ms",
            f"{row['ratio_to_first']:.3f}",
            f"{row['peak_gb']:.2f} GB",
            f"{row['training_gb']:.2f} GB",
        )
        print(" ".join(f"{cell:>12}" for cell in cells))


def draw(by_events: list[dict[str, Any]], path: Path) -> None:
    """Nothing comes back: an SVG of cost per example and of memory by the number of events."""
    from shortlist.report.chart import Chart, Point, Series, svg
    from shortlist.report.scales import linear_axis, log_axis

    x = log_axis("events", by_events[0]["events"], by_events[-1]["events"])
    cost = [row["microseconds_per_example"] for row in by_events]
    series = Series("", tuple(Point(row["events"], value) for row, value in zip(by_events, cost, strict=True)), is_main=True)
    title = "Microseconds per example by the number of events"
    chart = Chart("scale", title, title, x, linear_axis("microseconds per example", cost, from_zero=True), (series,))
    line = ".line{fill:none;stroke:#1f6feb;stroke-width:2}.mark{fill:#1f6feb}"
    text = "text{font:13px sans-serif}.middle{text-anchor:middle}.end{text-anchor:end}"
    style = f"<style>{text}{line}.grid{{stroke:#ddd}}.axis{{stroke:#555}}</style>"
    drawing = str(svg(chart)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", f"{style}<title", 1)
    path.write_text(drawing + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: python benchmarks/scale.py --json")
    parser.add_argument("--events", type=int, nargs="*", default=EVENTS, help=f"sizes of the log at {OTHER_ITEMS:,} items")
    parser.add_argument("--items", type=int, nargs="*", default=ITEMS, help=f"sizes of the catalogue at {OTHER_EVENTS:,} events")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of torch in training; 1 measures best on a busy machine (default: torch's own)")
    parser.add_argument("--folder", type=Path, help="where the shops are made and removed again (default: the temporary folder)")
    parser.add_argument("--chart", type=Path, help="write the curve of cost per example to this SVG file")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the tables")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, *arguments.events, *arguments.items, arguments.threads)
        return
    result: dict[str, Any] = {"benchmark": "scale", "rounds": arguments.rounds, "steps_a_round": STEPS, "threads": arguments.threads}
    for name, sizes in (
        ("by_events", [(events, OTHER_ITEMS) for events in arguments.events]),
        ("by_items", [(OTHER_EVENTS, items) for items in arguments.items]),
    ):
        if not sizes:
            continue
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            result[name] = measured_series(sizes, arguments.rounds, Path(folder), arguments.threads)
        if not arguments.json:
            print_table(result[name])
    result |= run_record()
    if arguments.chart and arguments.events:
        draw(result["by_events"], arguments.chart)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
