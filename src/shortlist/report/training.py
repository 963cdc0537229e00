"""The logs of training below an evaluation folder, one a run: what train.Trainer recorded, thinned out for drawing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import DataError

LOG_FILE, FACTS_FILE, SETTINGS_FILE = "train.jsonl", "run.json", "config.toml"  # as run.py writes them; importing it would bring torch
MOST_POINTS = 150  # of a curve: more would not show on paper

Points = list[tuple[float, float]]  # (step, value)


@dataclass(frozen=True)
class Trained:
    """One run: what it says of itself, and its losses by step."""

    name: str  # its folder, from the evaluation's on
    facts: dict[str, Any]  # run.json; empty where it is not there
    settings: str | None  # config.toml, as it stands
    loss: Points  # in nats per query, of single training steps
    validation_loss: Points  # of the whole corpus, after each epoch
    best_step: float | None  # where the weights that were kept come from
    warned: int  # of so many logged steps
    logged: int
    last_warnings: tuple[str, ...]  # of the last step that warned


def read_training(folder: Path) -> list[Trained]:
    """The runs below `folder`, by name. Links, such as `last`, are not followed. Raises DataError for a damaged log."""
    return [_read_run(path, folder) for path in sorted(folder.rglob(LOG_FILE)) if not _through_link(path, folder)]


def thinned(points: Points, most: int = MOST_POINTS) -> tuple[Points, int]:
    """(at most `most` points, how many neighbours each is the mean of); the last one may be of fewer."""
    size = -(-len(points) // most)
    parts = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(float(np.mean([x for x, _ in part])), float(np.mean([y for _, y in part]))) for part in parts], max(size, 1)


def _through_link(path: Path, folder: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(folder) and parent != folder)


def _read_run(path: Path, folder: Path) -> Trained:
    lines = list(_lines(path))
    steps = {line["step"]: line for line in lines if "loss" in line}  # a resumed run repeats steps: the later record holds
    epochs = {line["step"]: line for line in lines if "validation_loss" in line}
    warning = [line["warnings"] for line in steps.values() if line.get("warnings")]
    validation = _points(epochs.values(), "validation_loss")
    best = min(validation, key=lambda point: point[1])[0] if validation else None
    settings = path.with_name(SETTINGS_FILE)
    return Trained(
        name=path.parent.relative_to(folder).as_posix(),
        facts=_facts(path.with_name(FACTS_FILE)),
        settings=settings.read_text(encoding="utf-8") if settings.exists() else None,
        loss=_points(steps.values(), "loss"),
        validation_loss=validation,
        best_step=best,
        warned=len(warning),
        logged=len(steps),
        last_warnings=tuple(warning[-1]) if warning else (),
    )


def _facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path} must be JSON: {error}; evaluate into another folder") from None
    return dict(found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} line {number} must be JSON: {error}; remove that line") from None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise DataError(f'{path} line {number} must be an object with a whole number "step": got {text[:60]}; remove that line')
        yield line


def _points(lines: Iterable[dict[str, Any]], key: str) -> Points:
    return sorted((float(line["step"]), float(line[key])) for line in lines)
