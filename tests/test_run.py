"""A run folder belongs to one training, resumes it, and opens to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from small_project import SilentLog, silent, small_project

from shortlist.dataset import make_dataset
from shortlist.errors import BundleError, ConfigError
from shortlist.parquet_blocks import write_parquet_blocks
from shortlist.run import last_choices, open_run, split_validation, train_run
from shortlist.sections import TrainSettings


def test_a_finished_run_opens_to_the_same_weights_and_is_not_trained_again(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"train": {"epochs": 1}})
    first = train_run(project, project.log, tmp_path / "run", log_to=silent)

    def refuse(path: Path) -> SilentLog:
        raise AssertionError("a finished run must not be trained again")

    again = train_run(project, project.log, tmp_path / "run", log_to=refuse)  # type: ignore[arg-type]
    reopened = open_run(tmp_path / "run")
    for other in (again, reopened):
        assert other.facts == first.facts
        assert all(torch.equal(table, other.tables[name]) for name, table in first.tables.items())
        weights = other.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in first.model.state_dict().items())
    assert not (tmp_path / "run" / "checkpoint").exists() and not (tmp_path / "run" / "examples").exists()


def test_a_folder_with_another_run_is_refused_for_other_settings_and_for_other_data(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"train": {"epochs": 1}})
    train_run(project, project.log, tmp_path / "run", log_to=silent)
    other_settings = small_project(tmp_path, {"train": {"epochs": 2}})
    fewer = project.log.leave_out(pl.Series(np.arange(len(project.log)) == 5), "test")
    for changed, log in ((other_settings, other_settings.log), (project, fewer)):
        with pytest.raises(ConfigError, match="other settings or other data"):
            train_run(changed, log, tmp_path / "run", log_to=silent)


def test_an_unfinished_run_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        open_run(tmp_path)


def test_validation_takes_the_latest_examples_where_there_is_time_and_random_ones_elsewhere(tmp_path: Path) -> None:
    project = small_project(tmp_path)
    examples = make_dataset(project, project.log).train
    settings = TrainSettings(validation_fraction=0.1)
    fit, held = split_validation(examples, settings)
    assert (len(fit), len(held)) == (541, 60)  # int(601 / 10) = 60
    assert fit.time.max() <= held.time.min()
    timeless = examples.take(np.arange(601))
    timeless.time[:] = 0
    fit, held = split_validation(timeless, settings)
    assert (len(fit), len(held)) == (541, 60)
    assert held.weight.tolist() != examples.weight[541:].tolist()
    at_most = split_validation(examples, TrainSettings(validation_fraction=0.5, validation_at_most=7))
    assert [len(part) for part in at_most] == [594, 7]


def test_last_choices_are_each_users_newest_oldest_first(tmp_path: Path) -> None:
    project = small_project(tmp_path)
    frame = project.log.frame
    blocks = last_choices(project.log, 4, ids=project.items.ids, item_row=project.items.rows32_of(frame["item"]))
    write_parquet_blocks(tmp_path / "choices.parquet", blocks)
    choices = pl.read_parquet(tmp_path / "choices.parquet")
    assert choices.schema == {"user": pl.Int64, "history": pl.List(pl.String)}
    assert choices["user"].null_count() == 0 and choices["user"].n_unique() == choices.height
    for user, history in choices.iter_rows():
        assert history == frame.filter(pl.col("user") == user)["item"].to_list()[-4:]
