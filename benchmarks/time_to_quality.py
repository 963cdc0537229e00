"""How long does shortlist train until it finds what TensorFlow Recommenders finds in the end?

    python benchmarks/time_to_quality.py path/to/shortlist.toml           # some minutes to an hour, by the size of the log
    python benchmarks/time_to_quality.py path/to/shortlist.toml --json    # one JSON line on stdout

The last split of the project's own protocol. TensorFlow Recommenders trains `--epochs` passes with our encoded features
(contenders/tfrs_project.py) and is judged after each; the level to reach is the Recall@100 that it ends with, its time the training
time until it first had that level, within a thousandth. shortlist trains as `shortlist train` does, validation included, and is judged
every `--every` steps; its time is the training time until the first judgement at the level, the calibration counted in. What judging
takes is no time of either. The aim: at most a third of TensorFlow Recommenders' time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "contenders"))
from environments import python_of
from record import run_record

from shortlist.both_ways import examples_to_learn
from shortlist.calibration import calibrate
from shortlist.config import for_log, load_config
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.evaluate import asked_queries, rank_positives
from shortlist.features.arrays import FeatureArray, flat_arrays
from shortlist.held_out import HeldOut, held_out
from shortlist.learned import LearnedRetriever
from shortlist.metrics.ranking import recall_at
from shortlist.project import open_project
from shortlist.protocols.configured import splits
from shortlist.run import split_validation
from shortlist.sections import Config
from shortlist.train import Trainer

K = 100
_CLOSE = 0.001  # of Recall, at which the level counts as reached by the one that sets it


class Reached(Exception):
    """The level is reached: nothing is left to measure."""


class Judge:
    """A train log that stops the clock now and then, and judges what has been learned so far."""

    def __init__(self, trainer: Trainer, kept: HeldOut, test: Examples, config: Config, *, level: float, every: int, begun: float) -> None:
        """Looks every so many steps, until Recall@K is at `level`; `begun` is when the clock was started."""
        self.trainer, self.dataset, self.kept, self.test, self.config = trainer, trainer.learner.dataset, kept, test, config
        self.level, self.every, self.started = level, every, begun
        self.seconds, self.curve = 0.0, list[tuple[float, float]]()

    def record(self, facts: dict[str, Any]) -> None:
        """Nobody reads it."""

    def advance(self, step: int, steps: int, loss: float) -> None:
        """Called after every step."""
        if step % self.every and step != steps:
            return
        self.seconds += time.perf_counter() - self.started
        learner = self.trainer.learner
        kept = {name: value.clone() for name, value in learner.weights().items()}
        before = time.perf_counter()
        calibrate(learner, self.kept, self.config.evaluate)
        calibration = time.perf_counter() - before
        self.curve.append((self.seconds + calibration, recall(self.retriever(), self.dataset, self.test, self.config)))
        learner.load_weights(kept)
        print(f"shortlist  step {step:>6}  {self.curve[-1][0]:8.1f} s  Recall@{K} {self.curve[-1][1]:.4f}", file=sys.stderr)
        if self.curve[-1][1] >= self.level:
            raise Reached
        self.started = time.perf_counter()

    def retriever(self) -> LearnedRetriever:
        return LearnedRetriever(self.trainer.learner.model, self.trainer.learner.tables.weights, self.dataset)


def recall(retriever: LearnedRetriever, dataset: Dataset, test: Examples, config: Config) -> float:
    """Recall@K of every query over the whole corpus, ties against the model."""
    return float(recall_at(rank_positives(retriever, test, len(dataset.items), config.evaluate).rank, K).mean())


def recall_of_vectors(queries: NDArray[np.float32], items: NDArray[np.float32], test: Examples) -> float:
    """The same of an inner product of vectors."""
    hits = 0
    for start in range(0, len(queries), 512):
        scores = queries[start : start + 512] @ items.T  # (b, M)
        own = scores[np.arange(len(scores)), test.item_row[start : start + 512]]
        hits += int(((scores >= own[:, None]).sum(axis=1) <= K).sum())
    return hits / len(queries)


def arrays_of(dataset: Dataset, train: Examples, test: Examples) -> dict[str, NDArray[Any]]:
    """All that the contender is given: features of items and users, queries and answers."""
    encoder = dataset.query_encoder
    arrays: dict[str, NDArray[Any]] = {"corpus": np.array(len(dataset.items)), "history_last": np.array(encoder.history_last)}
    columns: dict[str, dict[str, FeatureArray]] = {"item.": dataset.item_features, "user.": dataset.user_features}
    columns |= {"train.context.": train.queries.context, "test.context.": test.queries.context}
    tables = {"item.": dataset.item_encoder, "user.": encoder.user, "train.context.": encoder.context, "test.context.": encoder.context}
    for prefix, features in columns.items():
        arrays |= {prefix + name: array for name, array in flat_arrays(features).items()}
        arrays |= {f"rows.{prefix}{name}": np.array(rows) for name, (rows, _) in tables[prefix].embedded.items()}
    for part, examples in {"train": train, "test": test}.items():
        queries = examples.queries
        nobody = len(next(iter(dataset.user_features.values()))) - 1 if dataset.user_features else 0
        arrays |= {
            f"{part}.item": examples.item_row,
            f"{part}.weight": examples.weight,
            f"{part}.seed": queries.seed_row.astype(np.int64),
            f"{part}.user": np.where(queries.user_row < 0, nobody, queries.user_row).astype(np.int64),
            f"{part}.past": queries.history_items.astype(np.int64),
            f"{part}.start": queries.history_start,
            f"{part}.end": queries.history_end,
        }
    return arrays


def run_theirs(arrays: dict[str, NDArray[Any]], test: Examples, epochs: int, threads: int) -> list[tuple[float, float]]:
    """(seconds of training, Recall@K) after each epoch."""
    curve = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **arrays)
        script = Path(__file__).parent / "contenders" / "tfrs_project.py"
        command = [python_of("tfrs"), str(script), str(path), "--epochs", str(epochs), "--threads", str(threads)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None and process.stdin is not None
            for line in process.stdout:
                answer = json.loads(line)
                with np.load(answer["vectors"]) as vectors:
                    curve.append((answer["seconds"], recall_of_vectors(vectors["queries"], vectors["items"], test)))
                print(f"tfrs       epoch {len(curve):>5}  {curve[-1][0]:8.1f} s  Recall@{K} {curve[-1][1]:.4f}", file=sys.stderr)
                process.stdin.write("\n")
                process.stdin.flush()
    if len(curve) < epochs:
        raise RuntimeError(
            f"TensorFlow Recommenders must train {epochs} epochs: it ended after {len(curve)}; run {script.name} alone to see why"
        )
    return curve


def run_ours(dataset: Dataset, test: Examples, config: Config, level: float, every: int) -> list[tuple[float, float]]:
    """(seconds of training, Recall@K) at every judgement, up to the first at `level`."""
    config = for_log(config, len(dataset.train))
    fit, validation = split_validation(dataset.train, config.train)
    importlib.import_module("torch._dynamo")  # which the optimiser asks for: imports count for neither
    begun = time.perf_counter()
    trainer = Trainer(dataset, examples_to_learn(fit, config), config)
    kept = held_out(trainer.learner, fit, validation)
    judge = Judge(trainer, kept, test, config, level=level, every=every, begun=begun)
    with contextlib.suppress(Reached):
        trainer.fit(kept.loss, judge)
    return judge.curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--epochs", type=int, default=10, help="passes of TensorFlow Recommenders")
    parser.add_argument("--every", type=int, default=20, help="steps of ours between judgements")
    parser.add_argument("--queries", type=int, default=5000, help="at most so many are judged")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    project = open_project(load_config(options.project, options.set))
    split = list(splits(project.log, project.config))[-1]
    dataset = make_dataset(project, split.train_log)
    corpus, test, _ = asked_queries(dataset, split, project.config)
    if corpus is not dataset:
        raise SystemExit("a protocol that brings a newer corpus is not compared here; name another with --set evaluate.protocol=...")
    test = test.take(np.sort(np.random.default_rng(0).permutation(len(test))[: options.queries]))
    theirs = run_theirs(arrays_of(dataset, dataset.train, test), test, options.epochs, options.threads)
    level = theirs[-1][1]
    ours = run_ours(dataset, test, project.config, level, options.every)
    their_seconds = next(seconds for seconds, found in theirs if found >= level - _CLOSE)
    reached = ours[-1][1] >= level
    result = {
        "project": options.project.parent.name,
        "queries": len(test),
        "level": round(level, 4),
        "tfrs_seconds": round(their_seconds, 1),
        "shortlist_seconds": round(ours[-1][0], 1) if reached else None,
        "share": round(ours[-1][0] / their_seconds, 3) if reached else None,
        "tfrs_curve": [(round(seconds, 1), round(found, 4)) for seconds, found in theirs],
        "shortlist_curve": [(round(seconds, 1), round(found, 4)) for seconds, found in ours],
    }
    if options.json:
        print(json.dumps({"benchmark": "time_to_quality", "threads": options.threads, **result, **run_record()}))
        return
    print(f"{result['project']}: Recall@{K} {level:.4f} on {len(test):,} queries")
    print(f"  TensorFlow Recommenders {their_seconds:8.1f} s")
    print(f"  shortlist               {ours[-1][0]:8.1f} s" if reached else f"  shortlist did not get there: {ours[-1][1]:.4f}")


if __name__ == "__main__":
    main()
