"""Progress for people and a log for machines: bars on stderr when it is a terminal, one JSON object a line in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINES_EVERY_S = 15.0  # where there is no terminal, a line now and then shows that work goes on


class TrainingProgress:
    """A train log (see train.TrainLog) that appends to a file and keeps a bar. Use it in a `with` block."""

    def __init__(self, path: Path, title: str, console: Console) -> None:
        self.path, self.title, self.console = path, title, console
        self.facts = ""
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def record(self, facts: dict[str, Any]) -> None:
        """Appends one line to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        if "validation_loss" in facts:
            self.facts = f"validation {facts['validation_loss']:.3f} (best epoch {facts['best_epoch'] + 1})"

    def advance(self, step: int, steps: int, loss: float) -> None:
        """Moves the bar; without a terminal prints a line every quarter of a minute."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, total=steps, facts=f"loss {loss:.3f} {self.facts}")
        elif time.monotonic() - self._last_line > _LINES_EVERY_S or step == steps:
            self._last_line = time.monotonic()
            self.console.print(f"{self.title}: step {step} of at most {steps}, loss {loss:.3f} {self.facts}")


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Shows that something is under way: a spinner on a terminal, else one line when it ends, with its seconds."""
    started = time.monotonic()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
    console.print(f"{what}: {time.monotonic() - started:.1f} s", highlight=False)


def stderr_console() -> Console:
    """Where progress goes; results go to stdout."""
    return Console(file=sys.stderr)
