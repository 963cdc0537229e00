"""shortlist's own loop, as `shortlist train` runs it: batches made beside the step, diagnostics every 20 steps, no checkpoint.

The paper's towers, so that the model is that of the other contenders; `--defaults` keeps the linear path and the item biases.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from workload import ADAGRAD_START, BATCH, DIM, ENTITIES, HIDDEN, LEARNING_RATE, TEMPERATURE, Side, Workload, make_workload

from shortlist.config import config_from_tree
from shortlist.dataset import Dataset, make_dataset
from shortlist.project import open_project
from shortlist.sections import Config
from shortlist.train import Trainer

PAPER = {"linear_path": False, "item_bias": False, "popularity": "learned", "id_dropout": 0.0, "history_dropout": 0.0}
_WITHOUT_END = 10_000  # passes


class Turns:
    """A train log that times every step, and lets the others go first when its turn is over."""

    def __init__(self) -> None:
        self.answers, self.left, self.times = sys.stdout, 1, [0.0]
        sys.stdout = sys.stderr
        self.started = time.perf_counter()

    def record(self, facts: dict[str, Any]) -> None:
        """Nobody reads it."""

    def advance(self, step: int, steps: int, loss: float) -> None:
        self.times.append((time.perf_counter() - self.started) * 1e3)
        self.left -= 1
        if self.left == 0:
            print(json.dumps({"ms": self.times, "loss": loss}), file=self.answers, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            self.left, self.times = int(line), []
        self.started = time.perf_counter()


def dataset_of(workload: Workload, sections: dict[str, dict[str, Any]]) -> tuple[Dataset, Config]:
    """The workload as a project on disk, read back as a user's would be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _table(workload.users, "user").write_parquet(folder / "users.parquet")
        _table(workload.items, "item").write_parquet(folder / "items.parquet")
        events = pl.DataFrame({"user": workload.user, "item": workload.item, "time": range(len(workload.item))})
        events.write_parquet(folder / "events.parquet")
        features = {"segment": "category", "words": "categories"}
        tree = {
            "data": {table: str(folder / f"{table}.parquet") for table in ("events", "items", "users")},
            "columns": {"user": "user", "item": "item", "time": "time"},
            "item": {"features": {"item": "id", **features}},
            "query": {"features": {f"users.{name}": kind for name, kind in {"user": "category", **features}.items()}},
            **sections,
        }
        project = open_project(config_from_tree(tree))
        return make_dataset(project, project.log), project.config


def _table(side: Side, name: str) -> pl.DataFrame:
    return pl.DataFrame({name: range(ENTITIES), "segment": side.segment, "words": side.words.tolist()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index-batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--defaults", action="store_true", help="shortlist's towers instead of the paper's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sections: dict[str, dict[str, Any]] = {
        "model": {"embedding_dim": DIM, "hidden": list(HIDDEN), "temperature": TEMPERATURE, **({} if options.defaults else PAPER)},
        "negatives": {"batch_size": BATCH, "index_batch_size": options.index_batch, "index_from": "corpus", "unchosen_weight": 1.0},
        "train": {
            "epochs": _WITHOUT_END,
            "learning_rate": LEARNING_RATE,
            "adagrad_start": ADAGRAD_START,
            "matmul": "float32" if options.float32 else "auto",  # as a user gets it: bfloat16 where the processor has it
        },
    }
    dataset, config = dataset_of(make_workload(), sections)
    Trainer(dataset, dataset.train, config).fit(None, Turns())


if __name__ == "__main__":
    main()
