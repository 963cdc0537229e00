"""Train and test over splits: the planted signal is found, a finished backtest is read back, the newest run can be published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_project import silent, small_project

from shortlist.backtest import backtest, baselines, train_latest
from shortlist.dataset import make_dataset
from shortlist.evaluate import queries_to_test
from shortlist.protocols.configured import splits
from shortlist.run import open_run

ROLLING = {"evaluate": {"protocol": "rolling", "train_days": 8, "test_days": 1, "shifts": 2, "ks": [5, 10], "bootstrap": 50}}


def test_the_planted_signal_is_found_and_beats_popularity_on_every_shift(tmp_path: Path) -> None:
    settings = {**ROLLING, "train": {"epochs": 20, "learning_rate": 0.1, "adagrad_start": 1e-3, "patience": 20, "matmul": "float32"}}
    project = small_project(tmp_path, settings)
    table = backtest(project, tmp_path / "evaluation", log_to=silent)
    assert [split["name"] for split in table["splits"]] == ["2023-11-25", "2023-11-26"]
    assert list(table["models"]) == ["two-tower", "popularity", "co-occurrence"]
    # a group has 9 or 10 live items and draws nine choices in ten: 10 guesses within the group find most of them
    for split in table["splits"]:
        assert split["models"]["two-tower"]["recall@10"] > split["models"]["popularity"]["recall@10"] + 0.2
    mean = sum(split["models"]["two-tower"]["recall@10"] for split in table["splits"]) / 2
    assert abs(table["models"]["two-tower"]["recall@10"]["mean"] - mean) < 1e-12
    assert table["queries"] == sum(split["queries"] for split in table["splits"])


def test_a_finished_backtest_is_read_back_and_its_newest_run_can_be_opened(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1}})
    first = backtest(project, tmp_path / "evaluation", log_to=silent)
    written = (tmp_path / "evaluation" / "2023-11-26" / "model.safetensors").stat().st_mtime_ns
    assert backtest(project, tmp_path / "evaluation", log_to=silent) == first
    assert (tmp_path / "evaluation" / "2023-11-26" / "model.safetensors").stat().st_mtime_ns == written
    assert open_run(tmp_path / "evaluation" / "last").facts["last_time"] < "2023-11-26"


def test_the_model_to_publish_learns_from_the_latest_window_test_day_included(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1}})
    run = train_latest(project, tmp_path / "run", log_to=silent)
    assert run.facts["first_time"] >= "2023-11-19" and run.facts["last_time"] > "2023-11-26"


def test_a_choice_without_reward_is_no_right_answer_and_no_count(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1}})
    split = next(splits(project.log, project.config))
    dataset = make_dataset(project, split.train_log)
    reward = np.where(dataset.train.item_row == 0, 0, dataset.train.weight).astype(np.float32)
    dataset = replace(dataset, train=replace(dataset.train, weight=reward))
    (popularity, _) = baselines(dataset, project.config)
    rows, scores = popularity.retrieve(dataset.train.queries.take(np.arange(1)), len(dataset.items))
    assert scores[0][rows[0] == 0] == 0
    examples = dataset.encode_split(split, project.config)
    examples = replace(examples, weight=np.concatenate([np.zeros(3, np.float32), examples.weight[3:]]))
    kept, tested = queries_to_test(dataset, examples, project.config.evaluate, "day")
    assert (len(kept), tested.unrewarded_left_out) == (len(examples) - 3, 3)
