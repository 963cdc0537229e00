"""A trial is kept by the data and settings that made it, read back, and never half written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from small_project import SilentLog, silent, small_config, small_project, write_tables

from shortlist.baselines.fit import BASELINES
from shortlist.errors import DataError
from shortlist.evaluate import rank_positives
from shortlist.learned import LearnedRetriever
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.project import Project, open_project
from shortlist.protocols.configured import splits
from shortlist.study.trials import Prepared, Trial, baseline_trial, prepare, ranks_of, train_model, trained_trial
from shortlist.study.variants import changed

SECTIONS: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1},
    "evaluate": {"protocol": "rolling", "train_days": 8, "shifts": 2, "ks": [3, 11]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("trials"), SECTIONS)


def last_split(project: Project, folder: Path) -> Prepared:
    return prepare(project, list(splits(project.log, project.config))[-1], folder)


def test_a_kept_trial_is_read_back_and_not_trained_again(project: Project, tmp_path: Path) -> None:
    prepared = last_split(project, tmp_path)
    trial = trained_trial(prepared, project.config, "", silent)
    assert trained_trial(prepared, project.config, "", refused) == trial


@contextmanager
def refused(path: Path, title: str) -> Iterator[SilentLog]:
    raise AssertionError("this trial must not be trained")
    yield


def test_ranks_are_those_of_the_trained_model(project: Project, tmp_path: Path) -> None:
    prepared, config = last_split(project, tmp_path), project.config
    trial = trained_trial(prepared, config, "", silent)
    learner = train_model(prepared.dataset, config, SilentLog()).learner
    retriever = LearnedRetriever(learner.model, learner.tables.weights, prepared.corpus)
    expected = rank_positives(retriever, prepared.examples, len(prepared.corpus.items), config.evaluate).rank
    assert ranks_of(trial).tolist() == expected.tolist()
    assert (expected == NOT_FOUND).any() and (expected <= 11).any()
    assert trial.negatives is not None and trial.epochs == 1 and 0 <= trial.lists["never_chosen_share@11"] <= 1


def test_what_shapes_a_trial_gives_it_a_file_of_its_own_and_what_does_not_shares_it(project: Project, tmp_path: Path) -> None:
    prepared, config = last_split(project, tmp_path), project.config
    trained_trial(prepared, config, "", silent)
    for section, change in (
        ("train", {"checkpoint_steps": 7}),
        ("evaluate", {"bootstrap": 3}),
        ("evaluate", {"shifts": 1}),
        ("data", {"users": None}),
    ):
        trained_trial(prepared, changed(config, {section: change}), "", refused)
    for section, change in (("train", {"seed": 1}), ("evaluate", {"ks": [3, 5]}), ("model", {"temperature": 0.2})):
        with pytest.raises(AssertionError, match="must not be trained"):
            trained_trial(prepared, changed(config, {section: change}), "", refused)


def test_a_trial_of_before_a_rule_changed_is_not_one_of_after_it(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name no width of codes: what the log makes of that is part of the model all the same."""
    prepared, config = last_split(project, tmp_path), project.config
    assert config.model.match_dim is None
    trained_trial(prepared, config, "", silent)
    as_it_came_out = changed(config, {"model": {"match_dim": 512}})
    trained_trial(prepared, as_it_came_out, "", refused)
    monkeypatch.setattr("shortlist.config.LARGE_LOG", 10)
    with pytest.raises(AssertionError, match="must not be trained"):
        trained_trial(prepared, config, "", refused)


def test_other_test_events_are_other_data_even_where_training_is_the_same(tmp_path: Path) -> None:
    write_tables(tmp_path)
    config = small_config(tmp_path, SECTIONS)
    before = last_split(open_project(config), tmp_path)
    events = pl.read_parquet(tmp_path / "events.parquet")
    events[:-1].write_parquet(tmp_path / "events.parquet")  # the last event is a test event
    after = last_split(open_project(config), tmp_path)
    assert after.dataset.train.item_row.tolist() == before.dataset.train.item_row.tolist()
    assert after.folder != before.folder


def test_an_interrupted_training_leaves_no_trial_and_no_log_of_its_first_attempt(project: Project, tmp_path: Path) -> None:
    prepared = last_split(project, tmp_path)

    class Killed(SilentLog):
        def advance(self, step: int, steps: int, loss: float) -> None:
            (file,) = prepared.folder.parent.glob("*/*.jsonl")
            assert file.read_text() == "" or step == 1
            raise KeyboardInterrupt

    @contextmanager
    def killed(path: Path, title: str) -> Iterator[SilentLog]:
        path.write_text("" if not path.exists() else "left over")
        yield Killed()

    for _ in range(2):  # the second attempt finds no left-over log
        with pytest.raises(KeyboardInterrupt):
            trained_trial(prepared, project.config, "", killed)
    assert not list(tmp_path.glob("*/*.json")) and not list(tmp_path.glob("*/*.partial"))
    assert trained_trial(prepared, project.config, "", silent).ranks


def test_a_damaged_trial_is_refused_by_name(project: Project, tmp_path: Path) -> None:
    prepared = last_split(project, tmp_path)
    trained_trial(prepared, project.config, "", silent)
    (path,) = tmp_path.glob("*/*.json")
    path.write_text('{"ranks": "all"}')
    with pytest.raises(DataError, match=r"seed-0\.json must be a trial.*remove it"):
        trained_trial(prepared, project.config, "", silent)


def test_the_mlp_cannot_return_items_outside_its_vocabulary(project: Project, tmp_path: Path) -> None:
    prepared = last_split(project, tmp_path)
    config = changed(project.config, {"model": {"item_tower": "table"}})
    trial = trained_trial(prepared, config, "", silent)
    assert trial.lists["never_chosen_share@11"] == 0.0 and trial.ranks == trial.ranks_among_chosen


def test_baselines_are_fitted_once_and_say_what_tuning_chose_or_why_they_cannot_be(project: Project, tmp_path: Path) -> None:
    prepared = last_split(project, tmp_path)
    found = {name: baseline_trial(prepared, project.config, name) for name in BASELINES}
    again = {name: baseline_trial(prepared, changed(project.config, {"model": {"temperature": 0.3}}), name) for name in BASELINES}
    assert again == found  # the model's settings are none of theirs
    ials = found["ials"]
    assert isinstance(ials, Trial) and ials.settings["tuned_on"] > 0 and ials.epochs is None
    popularity = found["popularity"]
    assert isinstance(popularity, Trial)
    counts = prepared.corpus.item_counts
    positive = prepared.examples.item_row
    at_least = (counts[None, :] >= counts[positive][:, None]).sum(axis=1)  # pessimistic ranks, by hand
    assert [rank for rank in popularity.ranks if rank] == [int(rank) for rank in at_least if rank <= 11]
    assert msgspec.json.decode(msgspec.json.encode(popularity), type=Trial) == popularity
