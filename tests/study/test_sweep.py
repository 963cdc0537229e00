"""A sweep is judged inside the training window, goes on after a kill to the same end, and tests its winner once."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_project import DAYS, START_S, SilentLog, silent, small_config, small_project, write_tables

from shortlist.config import overridden
from shortlist.errors import ConfigError, DataError
from shortlist.log import EventLog
from shortlist.project import Project, open_project
from shortlist.protocols.configured import splits
from shortlist.protocols.split import Split
from shortlist.study import sweep
from shortlist.study.on_splits import Conditions
from shortlist.study.space import read_space
from shortlist.study.sweep import run_sweep
from shortlist.study.validation import validation_split

pytest.importorskip("optuna")
TINY: dict[str, dict[str, Any]] = {
    "train": {"epochs": 2},
    "evaluate": {"protocol": "rolling", "train_days": 8, "shifts": 2, "ks": [5], "bootstrap": 20},
    "model": {"hidden": [7], "embedding_dim": 5},
}
OVER = ["model.temperature=0.05..0.9:log", "negatives.index_batch_size=5,17"]
LAST_DAY_S = START_S + (DAYS - 1) * 86_400


def values_of(table: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What was drawn and found, in the order of drawing."""
    trials = sorted(table["trials"], key=lambda trial: trial["number"])
    return [(trial["state"], trial["settings"], trial.get("value")) for trial in trials]


def swept(project: Project, folder: Path, trials: int, over: list[str] = OVER, **under: Any) -> dict[str, Any]:
    conditions = Conditions(**{"folder": folder, "seeds": 1, "log_to": silent, **under})
    return run_sweep(project, read_space(over, project.config), conditions, trials=trials)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("sweep"), TINY)


@pytest.fixture(scope="module")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return swept(project, tmp_path_factory.mktemp("whole"), 4)


def test_the_winner_is_the_best_on_validation_and_is_tested_beside_the_settings_as_they_are(whole: dict[str, Any]) -> None:
    best = max((trial for trial in whole["trials"]), key=lambda trial: (trial["value"], -trial["number"]))
    assert whole["winner"] == best["settings"] == whole["trials"][0]["settings"]
    assert list(whole["variants"]) == ["as configured", "winner of the sweep"] and list(whole["compared"]["minus"]) == ["as configured"]
    assert whole["splits"] == ["2023-11-26"]
    assert whole["validation"]["split"] == "2023-11-25" and whole["validation"]["metric"] == "recall@5"
    assert json.loads(json.dumps(whole)) == whole


def test_a_killed_sweep_goes_on_to_the_same_end(project: Project, whole: dict[str, Any], tmp_path: Path) -> None:
    started = 0

    @contextmanager
    def killing(path: Path, title: str) -> Iterator[SilentLog]:
        nonlocal started
        started += 1
        if started == 3:
            raise KeyboardInterrupt
        yield SilentLog()

    with pytest.raises(KeyboardInterrupt):
        swept(project, tmp_path, 4, log_to=killing)
    assert [trial[:2] for trial in values_of(swept(project, tmp_path, 3))] == [trial[:2] for trial in values_of(whole)[:3]]
    assert values_of(swept(project, tmp_path, 4)) == values_of(whole)


def test_other_settings_are_another_sweep(project: Project, whole: dict[str, Any], tmp_path: Path) -> None:
    swept(project, tmp_path, 1)
    warmer = replace(project, config=overridden(project.config, ["train.epochs=1"]))
    assert len(swept(warmer, tmp_path, 2)["trials"]) == 2  # none of the first counts
    assert len(swept(project, tmp_path, 1)["trials"]) == 1


def of_last_day_changed(folder: Path) -> Project:
    """The same project, but for the items chosen on the day that is tested."""
    write_tables(folder)
    events = pl.read_parquet(folder / "events.parquet")
    others = pl.Series(np.random.default_rng(1).permutation(events["item_id"].to_numpy()))
    is_tested = events["at"] >= LAST_DAY_S
    assert 20 < is_tested.sum() < 100
    changed = events.with_columns(item_id=pl.when(is_tested).then(others).otherwise("item_id"))
    changed.write_parquet(folder / "events.parquet")
    return open_project(small_config(folder, TINY))


def test_a_sweep_never_sees_the_test_queries(whole: dict[str, Any], tmp_path: Path) -> None:
    other = of_last_day_changed(tmp_path)
    assert values_of(swept(other, tmp_path / "study", 4)) == values_of(whole)


def test_the_check_for_test_queries_sees_a_sweep_that_is_judged_by_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peeking(train_log: EventLog, config: Any) -> Split:
        return list(splits(current.log, config))[-1]

    monkeypatch.setattr(sweep, "validation_split", peeking)
    current = project
    found = values_of(swept(project, tmp_path / "one", 2))
    current = of_last_day_changed(tmp_path)
    assert values_of(swept(current, tmp_path / "other", 2)) != found


@pytest.mark.parametrize(
    "evaluate",
    [
        {"protocol": "rolling", "train_days": 8, "shifts": 2},
        {"protocol": "rolling", "train_days": 7, "test_days": 2, "shifts": 1, "days": "active"},
        {"protocol": "holdout", "holdout": "pairs"},
        {"protocol": "holdout", "holdout": "users"},
        {"protocol": "leave_last"},
    ],
)
def test_a_validation_split_lies_inside_the_training_log(evaluate: dict[str, Any], tmp_path: Path) -> None:
    project = small_project(tmp_path, {"evaluate": evaluate})
    for split in splits(project.log, project.config):
        inner = validation_split(split.train_log, project.config)
        events, known = (set(map(str, log.frame.rows())) for log in (inner.log, split.train_log))
        assert events <= known and inner.test.any() and not inner.test.all()


def test_the_validation_days_are_the_last_of_the_window(project: Project) -> None:
    oldest = next(iter(splits(project.log, project.config)))
    inner = validation_split(oldest.train_log, project.config)
    days = [datetime.fromtimestamp(time / 1e6, UTC).date().isoformat() for time in inner.log.frame["time"].cast(pl.Int64)]
    assert oldest.name == "2023-11-25" and inner.name == "2023-11-24"
    assert {day for day, is_tested in zip(days, inner.test, strict=True) if is_tested} == {"2023-11-24"}
    assert min(days) == "2023-11-17"  # 7 days are left of 8


def test_a_window_too_short_to_validate_in_is_refused(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"evaluate": {"protocol": "rolling", "train_days": 1, "shifts": 1}})
    (split,) = splits(project.log, project.config)
    with pytest.raises(DataError, match="train_days = 1 and test_days = 1; raise"):
        validation_split(split.train_log, project.config)


def test_settings_that_contradict_each_other_fail_with_their_reason_and_the_sweep_goes_on(project: Project, tmp_path: Path) -> None:
    table = swept(project, tmp_path, 4, ["negatives.kind=mixed,sampled"])
    failed = [trial for trial in table["trials"] if trial["state"] == "fail"]
    assert len(table["trials"]) == 4 and 0 < len(failed) < 4
    assert all("inclusion" in trial["reason"] and trial["settings"]["negatives.kind"] == "sampled" for trial in failed)
    assert table["winner"] == {"negatives.kind": "mixed"} and table["pruned_by"] is None  # the loss is another with each kind


def test_a_trial_above_the_median_loss_is_pruned(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_NEVER_PRUNED", 1)
    monkeypatch.setattr(sweep, "_WARM_UP_EPOCHS", 0)
    table = swept(project, tmp_path, 7, ["train.learning_rate=1e-4,0.05"])
    pruned = [trial for trial in table["trials"] if trial["state"] == "pruned"]
    assert table["pruned_by"] == "validation loss" and pruned
    assert {trial["settings"]["train.learning_rate"] for trial in pruned} == {"1e-4"}
    assert all(trial["epochs"] == 1 and math.isfinite(trial["best_loss"]) and "value" not in trial for trial in pruned)


def test_without_optuna_the_extra_is_named(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r'needs Optuna.*install "shortlist\[study\]"'):
        swept(project, tmp_path, 1)
