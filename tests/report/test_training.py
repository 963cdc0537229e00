"""Training logs: what a resumed run repeats counts once, and long curves are thinned by hand-worked means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.errors import DataError
from shortlist.report.training import read_training, thinned


def write_log(folder: Path, *lines: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def test_losses_steps_and_warnings(tmp_path: Path) -> None:
    write_log(
        tmp_path / "run",
        {"step": 20, "loss": 5.0, "warnings": ["old"]},
        {"step": 40, "loss": 4.0, "warnings": []},
        {"step": 40, "epoch": 0, "validation_loss": 6.0},
        {"step": 40, "loss": 4.5, "warnings": ["a", "b"]},  # resumed from step 20: said again
        {"step": 60, "loss": 3.0, "warnings": []},
        {"step": 80, "epoch": 1, "validation_loss": 5.0},
        {"step": 120, "epoch": 2, "validation_loss": 5.5},
    )
    (run,) = read_training(tmp_path)
    assert run.loss == [(20.0, 5.0), (40.0, 4.5), (60.0, 3.0)]
    assert run.validation_loss == [(40.0, 6.0), (80.0, 5.0), (120.0, 5.5)] and run.best_step == 80
    assert (run.warned, run.logged, run.last_warnings) == (2, 3, ("a", "b"))
    assert (run.name, run.facts, run.settings) == ("run", {}, None)


def test_a_curve_is_thinned_to_means_of_neighbours() -> None:
    points = [(float(x), float(x * x)) for x in range(1, 8)]
    # 7 points, at most 3: means of 3, and the last alone: (1 + 4 + 9) / 3, (16 + 25 + 36) / 3, 49
    assert thinned(points, 3) == ([(2.0, pytest.approx(14 / 3)), (5.0, pytest.approx(77 / 3)), (7.0, 49.0)], 3)
    assert thinned(points, 7) == (points, 1) and thinned([], 3) == ([], 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [("{cut", r"train.jsonl line 2 must be JSON: .*; remove that line"), ('{"loss": 1}', 'whole number "step": got {"loss": 1}')],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_log(tmp_path / "run", {"step": 1, "loss": 2.0}, line)
    with pytest.raises(DataError, match=message):
        read_training(tmp_path)


def test_damaged_facts_are_named(tmp_path: Path) -> None:
    write_log(tmp_path / "run", {"step": 1, "loss": 2.0})
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run.json must be JSON"):
        read_training(tmp_path)
