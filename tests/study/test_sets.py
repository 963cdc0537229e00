"""Whole sets: the verdict by hand numbers, and a study of two small sets that is killed and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_evaluation import outcome_of
from small_project import SilentLog, silent, small_config, small_project

from shortlist.sections import EvaluateSettings
from shortlist.study import sets, trials
from shortlist.study.on_splits import Conditions, Outcome
from shortlist.study.sets import MODEL, beside_baselines, run_sets
from shortlist.study.tables import results_of
from shortlist.study.trials import Trial

FEW = ("popularity", "co-occurrence", "item-knn")  # tests/study/test_trials.py fits all of them
TINY: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1},
    "evaluate": {"protocol": "rolling", "train_days": 8, "shifts": 1, "ks": [5, 10], "bootstrap": 20},
    "model": {"hidden": [7], "embedding_dim": 5},
}


def trial(ranks: list[int | None], seconds: float) -> Trial:
    lists = {"never_chosen_share@2": 0.0, "never_chosen_of_corpus": 0.0}
    return Trial(ranks=ranks, ranks_among_chosen=ranks, lists=lists, fit_seconds=seconds, test_seconds=0.25)


def test_the_verdict_is_against_the_best_baseline_of_each_metric() -> None:
    tested = outcome_of([1, 2, 3, 4], **{f"{part} items": [True] * 4 for part in ("head", "mid", "tail", "unseen")})
    outcome = Outcome(
        [tested],
        {
            "broad": [[trial([2, 2, 2, None], 1.0)]],  # recall@2 3/4, ndcg@1 0
            "sharp": [[trial([1, 1, None, None], 2.0)]],  # recall@2 1/2, ndcg@1 1/2
            MODEL: [[trial([1, 2, 1, 2], 3.0)], [trial([1, 2, 2, 1], 4.0)]],  # recall@2 1 and 1, ndcg@1 1/2 and 1/2
        },
        {"ease": "s: too many items"},
    )
    table = beside_baselines(results_of(outcome, EvaluateSettings(ks=(1, 2), bootstrap=200)))
    assert list(table["models"]) == [MODEL, "broad", "sharp"]
    recall, ndcg = table["verdict"]["recall@2"], table["verdict"]["ndcg@1"]
    assert (recall["best_baseline"], recall["of_baseline"]) == ("broad", 0.75)
    assert recall["difference"]["mean"] == 0.25
    # the difference is that of the fourth user alone, who is missing from (3/4)^4 = 32 % of the draws
    assert recall["difference"]["low"] == 0.0 and not recall["above"]
    assert (ndcg["best_baseline"], ndcg["of_baseline"]) == ("sharp", 0.5) and ndcg["difference"]["mean"] == 0.0
    assert table["models"][MODEL]["metrics"]["recall@2"]["by_seed"] == [1.0, 1.0]
    assert table["cost_seconds"] == 1 + 2 + 3 + 4 + 4 * 0.25 and table["left_out"] == {"ease": "s: too many items"}


def test_sets_go_on_after_a_kill_without_fitting_anything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "BASELINES", FEW)
    configs = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        small_project(tmp_path / name, TINY)
        configs[name] = small_config(tmp_path / name, TINY)
    started: list[str] = []

    @contextmanager
    def killing(path: Path, title: str) -> Iterator[SilentLog]:
        started.append(title)
        if len(started) == 2:
            raise KeyboardInterrupt
        yield SilentLog()

    def under(log_to: Any) -> Any:
        return lambda name: Conditions(folder=tmp_path / name / "study", seeds=1, log_to=log_to, every_split=True)

    with pytest.raises(KeyboardInterrupt):
        run_sets(configs, under(killing))
    monkeypatch.setattr(trials, "fit_baselines", refuse)
    table = run_sets(configs, under(silent))
    assert list(table["sets"]) == ["one", "two"] and json.loads(json.dumps(table)) == table
    for found in table["sets"].values():
        assert list(found["models"]) == [MODEL, *FEW] and found["left_out"] == {}
        assert set(found["verdict"]) == {"recall@10", "ndcg@5"} and found["queries"] == 52


def refuse(*_: Any) -> Any:
    raise AssertionError("no baseline must be fitted again")
