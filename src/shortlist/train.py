"""The one training loop: steps, validation, early stopping, checkpoints that resume to the same bytes.

All randomness of step t comes from (seed, t), so nothing but the learner's state and some counters has to be kept.
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
from numpy.typing import NDArray

from shortlist.batches import Batch, Mine
from shortlist.checkpoint import load_tensors, save_tensors, saved_metadata
from shortlist.dataset import Dataset, Examples
from shortlist.diagnostics import step_facts, warnings_of
from shortlist.errors import TrainingError
from shortlist.learner import Learner
from shortlist.sections import Config
from shortlist.towers import TwoTower

Validate = Callable[[TwoTower, dict[str, torch.Tensor]], float]  # lower is better
_AHEAD = 2  # batches made before they are needed
_FEWEST_EPOCHS, _FEWEST_STEPS = 10, 2000  # a small log needs more passes for as many steps
_LEAST_PATIENCE, _PATIENCE_STEPS = 2, 120


class TrainLog(Protocol):
    """Who wants to know how training goes."""

    def record(self, facts: dict[str, Any]) -> None:
        """One line of the log."""

    def advance(self, step: int, steps: int, loss: float) -> None:
        """Called after every step."""


@dataclass
class Progress:
    """Where training stands: all that is needed beside the learner's state."""

    step: int = 0
    best_loss: float = float("inf")
    best_epoch: int = -1
    stopped: bool = False


class Trainer:
    """Trains one learner. `fit` may be interrupted anywhere and called again on a new object."""

    def __init__(
        self,
        dataset: Dataset,
        examples: Examples,
        config: Config,
        *,
        folder: Path | None = None,
        mine: Mine | None = None,
        ever_chosen: NDArray[np.bool_] | None = None,
    ) -> None:
        """Checkpoints go to `folder` (None = nowhere); the rest is the learner's."""
        self.learner = Learner(dataset, examples, config, mine=mine, ever_chosen=ever_chosen)
        self.maker = self.learner.maker
        self.settings, self.folder, self.progress = config.train, folder, Progress()
        self._best: dict[str, torch.Tensor] | None = None

    def fit(self, validate: Validate | None, log: TrainLog) -> None:
        """Trains to the end, from the last checkpoint in the folder if there is one; keeps the best epoch's weights."""
        if not self._resume():
            self.learner.begin()
        per_epoch = self.maker.steps_per_epoch
        last = per_epoch * self.epochs
        started, seen = time.perf_counter(), 0
        for step, batch in self._batches(self.progress.step, 0 if self.progress.stopped else last):
            loss = self.learner.learn(batch)
            seen += len(batch.weight)
            self.progress.step = step + 1
            log.advance(step + 1, last, loss)
            if (step + 1) % self.settings.log_steps == 0:
                rate = round(seen / (time.perf_counter() - started))
                facts = {"step": step + 1, "epoch": step // per_epoch, "loss": loss, "examples_per_second": rate}
                facts |= step_facts(self.learner, batch)
                log.record({**facts, "warnings": warnings_of(facts)})
            if (step + 1) % per_epoch == 0 and validate is not None:
                self._end_epoch(step // per_epoch, validate, log)
            if self.progress.stopped:
                break
            if (step + 1) % self.settings.checkpoint_steps == 0:
                self._checkpoint()
        self._checkpoint()
        if self.progress.best_epoch >= 0:
            self._restore_best()

    @property
    def epochs(self) -> int:
        """The most passes over the examples."""
        return self.settings.epochs or max(_FEWEST_EPOCHS, -(-_FEWEST_STEPS // self.maker.steps_per_epoch))

    @property
    def patience(self) -> int:
        """How many passes without a better validation loss end training."""
        return self.settings.patience or max(_LEAST_PATIENCE, -(-_PATIENCE_STEPS // self.maker.steps_per_epoch))

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) in order, made by another thread while the step before runs, if torch leaves it a core.

        If not, one of torch's threads would wait for it in every operation, which costs a little more than to make it in between.
        """
        if torch.get_num_threads() >= (os.cpu_count() or 1):
            yield from ((step, self.maker.make(step, shares_out=True)) for step in range(start, stop))
            return
        with ThreadPoolExecutor(1, "batches") as pool:
            waiting = [pool.submit(self.maker.make, step) for step in range(start, min(start + _AHEAD, stop))]
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + _AHEAD < stop:
                    waiting.append(pool.submit(self.maker.make, step + _AHEAD))
                yield step, batch

    def _end_epoch(self, epoch: int, validate: Validate, log: TrainLog) -> None:
        loss, progress = validate(self.learner.model, self.learner.tables.weights), self.progress
        if not np.isfinite(loss):
            raise TrainingError(f"the validation loss must be finite: got {loss} after epoch {epoch + 1}; lower train.learning_rate")
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, epoch
            self._keep_best()
        progress.stopped = epoch - progress.best_epoch >= self.patience
        log.record({"step": progress.step, "epoch": epoch, "validation_loss": loss, "best_epoch": progress.best_epoch})

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _keep_best(self) -> None:
        self._best = {name: value.clone() for name, value in self.learner.weights().items()}
        if self.folder is not None:
            save_tensors(self.folder / f"best-{self.progress.best_epoch}.safetensors", self._best)
            for old in self.folder.glob("best-*.safetensors"):
                if old.name != f"best-{self.progress.best_epoch}.safetensors" and not self._checkpoint_needs(old):
                    old.unlink()

    def _checkpoint_needs(self, best: Path) -> bool:
        saved = _saved_progress(self.folder / "checkpoint.safetensors") if self.folder is not None else None
        return saved is not None and best.name == f"best-{saved.best_epoch}.safetensors"

    def _restore_best(self) -> None:
        if self._best is None:
            assert self.folder is not None
            self._best = load_tensors(self.folder / f"best-{self.progress.best_epoch}.safetensors")
        self.learner.load_weights(self._best)

    def _checkpoint(self) -> None:
        if self.folder is not None:
            progress = {"progress": json.dumps(asdict(self.progress))}
            save_tensors(self.folder / "checkpoint.safetensors", self.learner.state(), progress)

    def _resume(self) -> bool:
        path = self.folder / "checkpoint.safetensors" if self.folder is not None else None
        progress = _saved_progress(path) if path is not None else None
        if path is None or progress is None:
            return False
        self.learner.load_state(load_tensors(path))
        self.progress = progress
        return True


def _saved_progress(path: Path) -> Progress | None:
    return Progress(**json.loads(saved_metadata(path)["progress"])) if path.exists() else None
