"""Train and test over splits: the planted signal is found, a finished backtest is read back, the newest run can be published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from small_project import silent, small_project

from shortlist.backtest import backtest, train_latest
from shortlist.baselines.chosen_by import Window
from shortlist.baselines.fit import BASELINES, fit_baselines
from shortlist.dataset import make_dataset
from shortlist.errors import ConfigError
from shortlist.evaluate import Retriever, queries_to_test
from shortlist.protocols.configured import splits
from shortlist.run import open_run

ROLLING = {"evaluate": {"protocol": "rolling", "train_days": 8, "test_days": 1, "shifts": 2, "ks": [5, 10], "bootstrap": 50}}


def test_the_planted_signal_is_found_and_beats_popularity_on_every_shift(tmp_path: Path) -> None:
    settings = {**ROLLING, "train": {"epochs": 10, "learning_rate": 0.1, "adagrad_start": 1e-3, "patience": 20, "matmul": "float32"}}
    project = small_project(tmp_path, settings)
    table = backtest(project, tmp_path / "evaluation", log_to=silent)
    assert [split["name"] for split in table["splits"]] == ["2023-11-25", "2023-11-26"]
    assert list(table["models"]) == ["two-tower", "popularity", "co-occurrence"]
    # a group has 9 or 10 live items and draws nine choices in ten: 10 guesses within the group find most of them. A day has some 50
    # queries, so its recall is off by .06: over ten trainings it lay .15 to .57 above popularity's, and the mean of both days .33 to .40
    ahead = [split["models"]["two-tower"]["recall@10"] - split["models"]["popularity"]["recall@10"] for split in table["splits"]]
    assert min(ahead) > 0.1 and sum(ahead) / 2 > 0.3
    mean = sum(split["models"]["two-tower"]["recall@10"] for split in table["splits"]) / 2
    assert abs(table["models"]["two-tower"]["recall@10"]["mean"] - mean) < 1e-12
    assert table["queries"] == sum(split["queries"] for split in table["splits"])


def test_a_finished_backtest_is_read_back_and_its_newest_run_can_be_opened(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1}})
    first = backtest(project, tmp_path / "evaluation", log_to=silent)
    model = tmp_path / "evaluation" / "2023-11-26" / "seed-0" / "model.safetensors"
    written = model.stat().st_mtime_ns
    assert backtest(project, tmp_path / "evaluation", log_to=silent) == first
    assert model.stat().st_mtime_ns == written
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
    (popularity,), _ = fit_baselines(dataset, project.config, ["popularity"])
    rows, scores = popularity.retrieve(dataset.train.queries.take(np.arange(1)), len(dataset.items))
    assert scores[0][rows[0] == 0] == 0
    examples = dataset.encode_split(split, project.config)
    examples = replace(examples, weight=np.concatenate([np.zeros(3, np.float32), examples.weight[3:]]))
    kept, tested = queries_to_test(dataset, examples, project.config.evaluate, "day")
    assert (len(kept), tested.unrewarded_left_out) == (len(examples) - 3, 3)


def test_the_folder_holds_the_table_every_rank_and_examples(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1}})
    table = backtest(project, tmp_path / "evaluation", log_to=silent, command=["evaluate", "a b.toml"])
    folder = tmp_path / "evaluation"
    assert json.loads((folder / "evaluation.json").read_text()) == table
    assert table["made"]["command"] == "shortlist evaluate 'a b.toml'" and table["seeds"] == [0]
    ranks = pl.read_parquet(folder / "ranks.parquet")
    assert ranks.height == table["queries"] * 3
    by_split = ranks.filter(pl.col("model") == "two-tower").group_by("split").agg((pl.col("rank") <= 10).fill_null(False).mean())
    assert by_split["rank"].mean() == pytest.approx(table["models"]["two-tower"]["recall@10"]["mean"])
    examples = json.loads((folder / "examples.json").read_text())
    assert [example["split"] for example in examples] == ["2023-11-25"] * 10 + ["2023-11-26"] * 10
    assert all(list(example["lists"]) == list(table["models"]) for example in examples)


def test_baselines_are_not_fitted_again_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"evaluate": {**ROLLING["evaluate"], "shifts": 1, "baselines": ["popularity", "item-knn"]}, "train": {"epochs": 1}}
    project = small_project(tmp_path, settings)
    first = backtest(project, tmp_path / "evaluation", log_to=silent)
    assert set(first["splits"][0]["tuned"]["item-knn"]) >= {"neighbours", "shrinkage", "tuned_on"}
    fitted: list[str] = []

    def noted(name: str, fit: Callable[[Window], Retriever]) -> Callable[[Window], Retriever]:
        return lambda window: (fitted.append(name), fit(window))[1]

    for name, baseline in dict(BASELINES).items():
        monkeypatch.setitem(BASELINES, name, replace(baseline, fit=noted(name, baseline.fit)))
    assert backtest(project, tmp_path / "evaluation", log_to=silent) == first and fitted == []
    evaluate = msgspec.structs.replace(project.config.evaluate, ks=(5, 11))
    longer = replace(project, config=msgspec.structs.replace(project.config, evaluate=evaluate))
    assert "recall@11" in backtest(longer, tmp_path / "evaluation", log_to=silent)["models"]["item-knn"]
    assert fitted == ["popularity", "item-knn"]
    (tmp_path / "evaluation" / "2023-11-26" / "baselines" / "item-knn.npz").write_bytes(b"cut sho")  # a damaged file is no answer
    backtest(longer, tmp_path / "evaluation", log_to=silent)
    assert fitted == ["popularity", "item-knn", "item-knn"]


def test_what_cannot_be_fitted_is_said_with_its_reason(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"evaluate": {"protocol": "holdout", "baselines": ["all"], "ks": [5]}, "train": {"epochs": 1}})
    log = replace(project.log, frame=project.log.frame.with_columns(user=pl.lit(None, dtype=pl.Int64)))
    table = backtest(replace(project, log=log), tmp_path / "evaluation", log_to=silent)
    assert set(table["models"]) & {"popularity", "co-occurrence", "decayed-popularity"} and "ials" not in table["models"]
    assert "the log names no user" in table["baselines_left_out"]["ials"] and "(10% of rows)" in table["baselines_left_out"]["ials"]


def test_several_trainings_become_one_model_with_its_spread(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "train": {"epochs": 1, "seed": 3}})
    table = backtest(project, tmp_path / "evaluation", log_to=silent, seeds=2)
    assert table["seeds"] == [3, 4] and list(table["models"]) == ["two-tower", "popularity", "co-occurrence"]
    found = table["models"]["two-tower"]["recall@5"]
    assert found["mean"] == pytest.approx(np.mean(found["seeds"])) and len(found["seeds"]) == 2
    assert "seeds" not in table["models"]["popularity"]["recall@5"]
    assert (tmp_path / "evaluation" / "last").resolve().parts[-2:] == ("2023-11-26", "seed-3")
    alone = backtest(project, tmp_path / "evaluation", log_to=silent)  # the first of them, read back
    assert alone["models"]["two-tower"]["recall@5"]["mean"] == pytest.approx(found["seeds"][0])


def test_a_wrong_name_shows_before_anything_is_trained(tmp_path: Path) -> None:
    project = small_project(tmp_path, {**ROLLING, "evaluate": {**ROLLING["evaluate"], "baselines": ["popularity", "als"]}})
    with pytest.raises(ConfigError, match=r"must be among popularity, .*, or all alone: got 'als' \(did you mean 'ials'\?\)"):
        backtest(project, tmp_path / "evaluation", log_to=silent)
    assert not (tmp_path / "evaluation").exists()
