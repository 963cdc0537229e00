"""The one training loop: steps, validation, early stopping, checkpoints that resume to the same bytes.

All randomness of step t comes from (seed, t), so nothing but weights, optimiser sums and counters is state.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from shortlist.batches import Batch, BatchMaker
from shortlist.config import Config
from shortlist.dataset import Dataset, Examples
from shortlist.frequency import exact_frequency
from shortlist.losses import expected_count_loss
from shortlist.negatives import MixedNegatives
from shortlist.tables import EmbeddingTables
from shortlist.towers import TwoTower, batch_table_rows, initial_tables

Validate = Callable[[TwoTower, dict[str, torch.Tensor]], float]  # lower is better
_AHEAD = 2  # batches made before they are needed


class TrainLog(Protocol):
    """Who wants to know how training goes."""

    def record(self, facts: dict[str, Any]) -> None:
        """One line of the log."""

    def advance(self, step: int, steps: int, loss: float) -> None:
        """Called after every step."""


@dataclass
class Progress:
    """Where training stands: all that is needed beside weights and sums."""

    step: int = 0
    best_loss: float = float("inf")
    best_epoch: int = -1
    stopped: bool = False


class Trainer:
    """Trains both towers on one dataset. `fit` may be interrupted anywhere and called again on a new object."""

    def __init__(self, dataset: Dataset, examples: Examples, config: Config, *, folder: Path | None = None) -> None:
        """`examples` are those of `dataset.train` to learn from; checkpoints go to `folder` (None = nowhere)."""
        settings = config.train
        counts = np.bincount(examples.item_row, minlength=len(dataset.items))
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.model = TwoTower(dataset.item_encoder, dataset.query_encoder, config.model)
        self.tables = EmbeddingTables(initial_tables(dataset, config.model, generator, counts), adagrad_start=settings.adagrad_start)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.Adagrad(
            self.parameters.values(), lr=settings.learning_rate, initial_accumulator_value=settings.adagrad_start, eps=0.0
        )
        self.settings, self.folder, self.progress = settings, folder, Progress()
        self.bfloat16 = settings.matmul == "bfloat16" or (settings.matmul == "auto" and has_fast_bfloat16())
        negatives = config.negatives
        self.negatives = MixedNegatives(
            exact_frequency(counts), negatives.index_batch_size, negatives.replacement, negatives.unchosen_weight
        )
        self.maker = BatchMaker(
            dataset,
            examples,
            self.negatives,
            negatives.batch_size,
            config.model.id_dropout,
            config.model.history_dropout,
            settings.seed,
        )

    def fit(self, validate: Validate | None, log: TrainLog) -> None:
        """Trains to the end, from the last checkpoint in the folder if there is one; keeps the best epoch's weights."""
        self._resume()
        per_epoch = self.maker.steps_per_epoch
        last = per_epoch * self.settings.epochs
        started, seen = time.perf_counter(), 0
        for step, batch in self._batches(self.progress.step, 0 if self.progress.stopped else last):
            loss = self.train_step(batch)
            seen += len(batch.weight)
            self.progress.step = step + 1
            log.advance(step + 1, last, loss)
            if (step + 1) % self.settings.log_steps == 0:
                rate = seen / (time.perf_counter() - started)
                log.record(
                    {"step": step + 1, "epoch": step // per_epoch, "loss": loss, "examples_per_second": round(rate), **self._facts(batch)}
                )
            if (step + 1) % per_epoch == 0 and validate is not None:
                self._end_epoch(step // per_epoch, validate, log)
            if self.progress.stopped:
                break
            if (step + 1) % self.settings.checkpoint_steps == 0:
                self._checkpoint()
        self._checkpoint()
        if self.progress.best_epoch >= 0:
            self._restore_best()

    def train_step(self, batch: Batch) -> float:
        """One optimiser step on `batch`; the loss in nats per query, before the step."""
        leaves = self.tables.gather(batch_table_rows(batch, self.model))
        columns = torch.from_numpy(batch.columns)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            queries, items = self.model.encode_batch(batch, leaves)
            vectors = functional.embedding(columns, items.vector)  # (C, D)
            similarity = queries @ vectors.T  # (B, C)
        bias = None if items.bias is None else functional.embedding(columns, items.bias[:, None])[:, 0]
        loss = expected_count_loss(
            similarity,
            temperature=self.model.temperature,
            log_n=torch.from_numpy(batch.log_n),
            item_row=torch.from_numpy(batch.column_item_row),
            weight=torch.from_numpy(batch.weight),
            bias=bias,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        self.optimizer.step()
        self.model.keep_temperature_within_bounds()
        settings = self.settings
        rate = settings.learning_rate if settings.table_learning_rate is None else settings.table_learning_rate
        self.tables.update(rate, weight_decay=settings.table_weight_decay)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(
                f"the loss must be finite: got {value} at step {self.progress.step}; lower train.learning_rate or raise model.temperature"
            )
        return value

    def _facts(self, batch: Batch) -> dict[str, float]:
        size = len(batch.weight)
        rows = batch.column_item_row
        hits = float(np.mean(np.bincount(rows)[rows[:size]] - 1))
        return {
            "temperature": float(self.model.temperature.detach()),
            "accidental_hits": hits,
            "accidental_hits_expected": self.negatives.expected_accidental_hits(size),
        }

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) in order, made by another thread while the step before runs."""
        with ThreadPoolExecutor(1, "batches") as pool:
            waiting = [pool.submit(self.maker.make, step) for step in range(start, min(start + _AHEAD, stop))]
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + _AHEAD < stop:
                    waiting.append(pool.submit(self.maker.make, step + _AHEAD))
                yield step, batch

    def _end_epoch(self, epoch: int, validate: Validate, log: TrainLog) -> None:
        loss, progress = validate(self.model, self.tables.weights), self.progress
        if not np.isfinite(loss):
            raise FloatingPointError(f"the validation loss must be finite: got {loss} after epoch {epoch + 1}; lower train.learning_rate")
        better = loss < progress.best_loss
        if better:
            progress.best_loss, progress.best_epoch = loss, epoch
            self._keep_best()
        progress.stopped = epoch - progress.best_epoch >= self.settings.patience
        log.record({"step": progress.step, "epoch": epoch, "validation_loss": loss, "best_epoch": progress.best_epoch})

    # --- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, torch.Tensor]:
        """All learned numbers by name: what is published."""
        dense = {f"model/{name}": value.detach() for name, value in self.model.state_dict().items()}
        return {**dense, **{f"table/{name}": weight for name, weight in self.tables.weights.items()}}

    @torch.no_grad()
    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """The inverse of `weights`, in place."""
        self.model.load_state_dict({name[6:]: value for name, value in weights.items() if name.startswith("model/")})
        for name, weight in self.tables.weights.items():
            weight.copy_(weights[f"table/{name}"])

    def _keep_best(self) -> None:
        self._best = {name: value.clone() for name, value in self.weights().items()}
        if self.folder is not None:
            _save(self.folder / f"best-{self.progress.best_epoch}.safetensors", self._best, {})
            for old in self.folder.glob("best-*.safetensors"):
                if old.name != f"best-{self.progress.best_epoch}.safetensors" and not self._checkpoint_needs(old):
                    old.unlink()

    def _checkpoint_needs(self, best: Path) -> bool:
        saved = _saved_progress(self.folder / "checkpoint.safetensors") if self.folder is not None else None
        return saved is not None and best.name == f"best-{saved.best_epoch}.safetensors"

    def _restore_best(self) -> None:
        if not hasattr(self, "_best"):
            assert self.folder is not None
            self._best, _ = _load(self.folder / f"best-{self.progress.best_epoch}.safetensors")
        self.load_weights(self._best)

    def _checkpoint(self) -> None:
        if self.folder is None:
            return
        state = {f"table/{name}": value for name, value in self.tables.state().items()}
        state |= {f"model/{name}": value.detach() for name, value in self.model.state_dict().items()}
        state |= {f"sum/{name}": self.optimizer.state[value]["sum"] for name, value in self.parameters.items()}
        _save(self.folder / "checkpoint.safetensors", state, {"progress": json.dumps(asdict(self.progress))})

    @torch.no_grad()
    def _resume(self) -> None:
        path = self.folder / "checkpoint.safetensors" if self.folder is not None else None
        progress = _saved_progress(path) if path is not None else None
        if path is None or progress is None:
            return
        state, _ = _load(path)
        self.tables.load({name[6:]: value for name, value in state.items() if name.startswith("table/")})
        self.model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model/")})
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter]["sum"].copy_(state[f"sum/{name}"])
        self.progress = progress


def has_fast_bfloat16() -> bool:
    """Has this processor instructions for bfloat16 matrix products? Without them they are slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes beside `path`, flushes to the disk and renames: a kill leaves the old file or the new one."""
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _saved_progress(path: Path) -> Progress | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))
