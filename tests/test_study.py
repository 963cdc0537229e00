"""A study trains every variant, keeps its trials, and tells means with intervals over seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from small_project import silent, small_project

from shortlist.errors import ConfigError
from shortlist.project import Project
from shortlist.study import COLD, DESIGNS, STUDIES, changed, over_seeds, run_study

TINY = {"train": {"epochs": 1}, "evaluate": {"protocol": "holdout", "ks": [5, 10]}, "model": {"hidden": [19, 11], "embedding_dim": 8}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("study"), TINY)


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_every_study_runs_and_is_read_back(name: str, project: Project, tmp_path: Path) -> None:
    table = run_study(name, project, tmp_path, seeds=1, log_to=silent)
    assert list(table["variants"]) == list(STUDIES[name])
    for found in table["variants"].values():
        assert all(0 <= metric["mean"] <= 1 for metric in found["metrics"].values())
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")}
    assert len(written) == len(STUDIES[name])
    again = run_study(name, project, tmp_path, seeds=1, log_to=silent)
    assert table["left_out"] == {}
    assert again == table and {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")} == written
    assert json.loads(json.dumps(table)) == table


def test_a_variant_changes_what_it_names_and_nothing_else(project: Project) -> None:
    config = changed(project.config, DESIGNS["uncorrected"], 3)
    assert config.loss.design == "uncorrected" and config.train.seed == 3
    assert config.model == project.config.model and config.negatives == project.config.negatives
    assert changed(project.config, COLD["unchosen weight .01 (default)"], 0).negatives.unchosen_weight == 0.01


def test_the_interval_over_seeds_is_students_by_hand() -> None:
    # mean 2, deviation 1, three seeds: t(.975, 2) = 4.30265; half-width 4.30265 / sqrt(3) = 2.48414
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["sd"] == 1
    assert math.isclose(found["high"] - 2, 2.48414, abs_tol=1e-4) and math.isclose(2 - found["low"], 2.48414, abs_tol=1e-4)
    assert over_seeds([0.5]) == {"mean": 0.5}


def test_an_unknown_study_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="designs, cold, towers"):
        run_study("nonsense", project, tmp_path, seeds=1, log_to=silent)
