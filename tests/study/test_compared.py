"""Whole studies on a small project: every variant runs, kept trials are read back, a killed study goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_project import SilentLog, silent, small_project

from shortlist.errors import ConfigError
from shortlist.project import Project
from shortlist.report.inputs import BatchSizeStudy
from shortlist.study import on_splits
from shortlist.study.compared import STUDIES, compared, run_study
from shortlist.study.on_splits import Conditions, Ready
from shortlist.study.variants import Study, changed

TINY: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1},
    "evaluate": {"protocol": "rolling", "train_days": 8, "shifts": 2, "ks": [5, 10], "bootstrap": 20},
    "model": {"hidden": [19, 11], "embedding_dim": 8},
}
THREE = Study("three", {"plain": {}, "warm": {"model": {"temperature": 0.3}}, "no bias": {"model": {"item_bias": False}}}, "plain")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("study"), TINY)


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_every_study_runs(name: str, project: Project, tmp_path: Path) -> None:
    table = run_study(name, project, Conditions(folder=tmp_path, seeds=1, log_to=silent))
    assert table["study"] == name and table["splits"] == ["2023-11-26"]
    for found in table["variants"].values():
        assert all(0 <= metric["mean"] <= 1 for metric in found["metrics"].values())
    assert list(table["compared"]["minus"]) == [variant for variant in table["variants"] if variant != table["compared"]["model"]]
    assert json.loads(json.dumps(table)) == table


def test_table_2_is_what_the_report_draws_and_names_what_it_left_out(project: Project, tmp_path: Path) -> None:
    table = run_study("table2", project, Conditions(folder=tmp_path, seeds=1, log_to=silent))
    drawn = msgspec.json.decode(json.dumps(table), type=BatchSizeStudy)
    assert drawn.study == "table2" and drawn.metric == "recall@10" and [row.index_batch_size for row in drawn.rows] == [0]
    assert [row["index_batch_size"] for row in table["at_fixed_sum"]["rows"]] == [0]
    assert "B = 1024, B' = 16384" in table["left_out"] and "corpus of 53" in table["left_out"]["B = 1024, B' = 1024"]


def test_a_killed_study_goes_on_where_it_stopped_and_tells_the_same(project: Project, tmp_path: Path) -> None:
    whole, _ = compared(THREE, project, Conditions(folder=tmp_path / "whole", seeds=2, log_to=silent))
    started: list[str] = []

    @contextmanager
    def killing(path: Path, title: str) -> Iterator[SilentLog]:
        started.append(title)
        if len(started) == 5:
            raise KeyboardInterrupt
        yield SilentLog()

    interrupted = Conditions(folder=tmp_path / "killed", seeds=2, log_to=killing)
    with pytest.raises(KeyboardInterrupt):
        compared(THREE, project, interrupted)
    again, _ = compared(THREE, project, interrupted)
    # 6 trainings, one of them begun twice: nothing else is lost
    assert [title.split(":")[0] for title in started] == [f"{number} of 6" for number in (1, 2, 3, 4, 5, 5, 6)]
    assert without_cost(again) == without_cost(whole)


def without_cost(table: dict[str, Any]) -> dict[str, Any]:
    variants = {
        name: {key: value for key, value in found.items() if not key.endswith("_seconds")} for name, found in table["variants"].items()
    }
    return {**table, "variants": variants}


def test_every_split_can_be_asked_for(project: Project, tmp_path: Path) -> None:
    table, results = compared(THREE, project, Conditions(folder=tmp_path, seeds=1, log_to=silent, every_split=True))
    assert table["splits"] == ["2023-11-25", "2023-11-26"] and len(table["train_examples"]) == 2
    newest, _ = compared(THREE, project, Conditions(folder=tmp_path, seeds=1, log_to=silent))
    assert newest["queries"] < table["queries"] == len(results.weight)
    assert len(list(tmp_path.glob("*/*.json"))) == 6  # the newest split's trials were shared


def test_an_unknown_study_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="designs, cold, towers, table1, table2: got 'nonsense'"):
        run_study("nonsense", project, Conditions(folder=tmp_path, seeds=1, log_to=silent))


@pytest.mark.parametrize("with_codes_first", [True, False])
def test_a_model_that_matches_by_words_gets_codes_whoever_was_made_ready_before(
    project: Project, tmp_path: Path, with_codes_first: bool
) -> None:
    (split,) = on_splits.tested_splits(project, every_split=False)
    ready = Ready(project, split, Conditions(folder=tmp_path, seeds=1, log_to=silent), None)
    with_codes = changed(project.config, {"model": {"match_dim": 8}})
    without = changed(project.config, {"model": {"match_dim": 0}})
    order = [with_codes, without] if with_codes_first else [without, with_codes]
    made = {config.model.match_dim: ready.of(config) for config in order}
    assert made[8].dataset.item_codes is not None
    assert (made[0] is made[8]) is with_codes_first  # one without codes does not look at them
    assert made[0].folder == made[8].folder  # so trials of both lie side by side
