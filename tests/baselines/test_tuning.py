"""Settings are chosen on the newest choices of the training window, greedily, by the recall that is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from small_baselines import asking, project_of
from small_project import small_dataset, small_project

from shortlist.baselines import tuning
from shortlist.baselines.chosen_by import window_of
from shortlist.baselines.fit import ALL, BASELINES, fit_baselines, named_baselines
from shortlist.baselines.scored_corpus import ScoredCorpus
from shortlist.baselines.tuning import MOST_QUERIES, Settings, greedy, hold_out, recall, tuned
from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import make_dataset
from shortlist.errors import ConfigError
from shortlist.evaluate import rank_positives
from shortlist.unlisted import is_repeat, seen_items

ROLLING = {"evaluate": {"protocol": "rolling", "train_days": 12, "ks": [5, 10]}}


def test_one_setting_after_the_other_and_of_equals_the_first() -> None:
    tried: list[dict[str, Any]] = []
    worth = {("x", 1): 0, ("x", 2): 5, ("x", 3): 5, ("y", 1): 0, ("y", 2): -1}

    def judge(settings: Settings) -> float:
        tried.append(dict(settings))
        return sum(worth[item] for item in settings.items())

    assert greedy({"x": 1, "y": 1}, [("x", (1, 2, 3)), ("y", (1, 2)), ("x", (1, 2, 3))], judge) == {"x": 2, "y": 1}
    assert tried == [
        {"x": 1, "y": 1},
        {"x": 2, "y": 1},
        {"x": 3, "y": 1},
        {"x": 2, "y": 2},
        {"x": 1, "y": 1},  # the second look at x, under the y that was found
        {"x": 3, "y": 1},
    ]


def test_the_newest_share_is_held_out_and_events_of_one_instant_stay_together() -> None:
    count = 101
    times = [min(row, 97) for row in range(count)]  # the last four at one instant
    project = project_of(7, user=[row % 5 for row in range(count)], item=[row % 7 for row in range(count)], time=times)
    tree = config_tree(project.config) | {"evaluate": {"protocol": "rolling"}}
    window = window_of(make_dataset(project, project.log), config_from_tree(tree))
    fitted, judged = hold_out(window)
    # a twentieth of 101 is 5: the one at 96 and the four at 97
    assert fitted.tolist() == list(range(96)) and judged.tolist() == list(range(96, 101))


def test_without_times_pairs_are_held_out_with_all_their_examples() -> None:
    seed = np.repeat(np.arange(211), 6)
    item = np.tile([300, 300, 301, 302, 303, 303], 211)
    project = project_of(304, seed=seed, item=item)
    fitted, judged = hold_out(window_of(make_dataset(project, project.log), project.config))
    pairs = [set(zip(seed[rows].tolist(), item[rows].tolist(), strict=True)) for rows in (fitted, judged)]
    assert not pairs[0] & pairs[1] and len(fitted) + len(judged) == len(seed)
    assert 20 < len(pairs[1]) < 70  # about a twentieth of 844


def test_no_more_queries_are_judged_than_needed() -> None:
    seed, item = np.arange(60_000) % 30_000, 1 + np.arange(60_000) // 30_000
    project = project_of(30_000, seed=seed, item=item)
    fitted, judged = hold_out(window_of(make_dataset(project, project.log), project.config))
    assert len(judged) == MOST_QUERIES == len(np.unique(judged)) and not np.isin(judged, fitted).any()


def test_the_judged_recall_is_the_reported_one(tmp_path: Path) -> None:
    project = small_project(tmp_path, ROLLING)
    dataset = make_dataset(project, project.log)
    (model,), _ = fit_baselines(dataset, project.config, ["item-knn"])
    assert isinstance(model, ScoredCorpus)
    examples = dataset.train.take(np.arange(300, 401))
    new = examples.take(np.flatnonzero(~is_repeat(examples)))  # a repeat could not be hit where seen items are left out
    for seen, asked, exclude in (("rank", examples, None), ("exclude", new, seen_items(new.queries))):
        settings = msgspec.structs.replace(project.config.evaluate, ks=(7,), seen_items=seen)
        reported = float((rank_positives(model, asked, len(dataset.items), settings).rank <= 7).mean())
        assert recall(model, asked, 7, exclude) == pytest.approx(reported) and 0 < reported < 1


def test_what_is_tuned_is_the_best_on_what_was_held_out_and_then_fitted_on_everything(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path, ROLLING)
    window = window_of(dataset, config)
    fits: list[tuple[int, Settings]] = []

    def fitter(part):  # type: ignore[no-untyped-def]
        def fit(settings: Settings) -> ScoredCorpus:
            fits.append((len(part.train), dict(settings)))
            scores = np.zeros(len(dataset.items), np.float32)
            scores[: settings["good"]] = 1
            counts = np.bincount(dataset.train.item_row, minlength=len(scores)).astype(np.float32)
            return ScoredCorpus("m", lambda queries: np.tile(scores * counts, (len(queries), 1)), np.zeros(len(scores)))

        return fit

    found = tuned(window, fitter, [("good", (1, 53))])
    held = len(window.train) - fits[0][0]
    assert found.settings == {"good": 53, "tuned_on": held} and 20 < held < 60
    assert fits[-1] == (len(window.train), {"good": 53}) and all(count == fits[0][0] for count, _ in fits[:-1])


def test_all_baselines_are_fitted_by_name_and_answer_whole_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "VALIDATION_SHARE", 0.0)  # nothing is held out, so nothing is tried: quick
    project = small_project(tmp_path, ROLLING)
    dataset = make_dataset(project, project.log)
    models, obstacles = fit_baselines(dataset, project.config, ALL)
    assert [model.name for model in models] == list(BASELINES) and obstacles == {}
    queries = dataset.train.queries.take(np.arange(500, 513))
    for model in models:
        rows, scores = model.retrieve(queries, len(dataset.items))
        assert all(sorted(line) == list(range(len(dataset.items))) for line in rows.tolist()), model.name
        assert (np.diff(scores, axis=1) <= 0).all() and np.isfinite(scores).all()
        alone = np.concatenate([model.retrieve(queries.take(np.array([one])), 7)[0] for one in range(13)])
        together = model.retrieve(queries, 7)[0]
        assert (alone == together).mean() > 0.97, model.name  # a product of another shape may round a tie the other way


def test_names_are_checked() -> None:
    assert named_baselines(["all"]) == tuple(BASELINES) and named_baselines([]) == ()
    with pytest.raises(ConfigError, match=r"evaluate.baselines must be named once each: got 'ease' twice; take one out"):
        named_baselines(["ease", "ease"])
    with pytest.raises(ConfigError, match=r"or all alone: got 'all' "):
        named_baselines(["all", "ease"])


def test_a_log_too_small_to_hold_anything_out_keeps_the_first_values() -> None:
    project = project_of(3, user=[1, 1, 2], item=[0, 1, 2], time=[1, 2, 3])
    (model,), _ = fit_baselines(make_dataset(project, project.log), project.config, ["ials"])
    assert isinstance(model, ScoredCorpus)
    assert model.settings["tuned_on"] == 0 and model.settings["factors"] == 64
    assert model.retrieve(asking([0]), 3)[0].shape == (1, 3)
