"""Day by day: a model does not change by growing, days are tested before they are learned from, interruptions cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from small_project import SilentLog, silent, small_project

from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import make_dataset
from shortlist.encode import encode_corpus
from shortlist.errors import ConfigError
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.growth import carry_over
from shortlist.project import Project
from shortlist.protocols.rolling import rolling_days, rolling_split
from shortlist.run import open_run
from shortlist.sequential import grown_dataset, train_sequentially
from shortlist.train import Trainer

DAYS = {
    "evaluate": {"protocol": "rolling", "train_days": 6, "test_days": 1, "shifts": 4, "ks": [5, 10], "bootstrap": 20},
    "train": {"epochs": 2, "learning_rate": 0.05, "adagrad_start": 0.01, "matmul": "float32"},
    "frequency": {"kind": "streaming"},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("sequential"), DAYS)


def test_a_model_does_not_change_by_growing(project: Project) -> None:
    day = rolling_days(project.log, project.config)[0]
    split = rolling_split(project.log, day, 1, 1)  # a short catch-up, so that the day brings items of its own
    dataset = make_dataset(project, split.train_log)
    trainer = Trainer(dataset, dataset.train, project.config)
    trainer.fit(None, SilentLog())
    grown, today = grown_dataset(project, dataset, split)
    before, after = (part.item_encoder.features["item_id"].encoder for part in (dataset, grown))
    assert isinstance(before, CategoryEncoder) and isinstance(after, CategoryEncoder)
    assert len(after.vocabulary.values) > len(before.vocabulary.values)
    assert set(before.vocabulary.values) < set(after.vocabulary.values)
    following = Trainer(grown, today, project.config)
    carry_over(trainer.learner, following.learner)
    old = encode_corpus(trainer.learner.model, trainer.learner.tables.weights, dataset.item_features)
    new = encode_corpus(following.learner.model, following.learner.tables.weights, grown.item_features)
    np.testing.assert_array_equal(old.vector, new.vector)
    assert all(torch.isfinite(sums).all() for sums in following.learner.tables.sums.values())
    assert following.learner.stream is trainer.learner.stream


def test_every_day_is_tested_before_it_is_learned_from_and_the_run_can_be_opened(project: Project, tmp_path: Path) -> None:
    table = train_sequentially(project, tmp_path / "run", log_to=silent)
    days = [day.isoformat() for day in rolling_days(project.log, project.config)]
    assert [split["name"] for split in table["splits"]] == days
    sizes = [split["train_examples"] for split in table["splits"]]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]  # the window grows by the days that were learned
    assert [int(split["queries"]) for split in table["splits"]] == [
        int(rolling_split(project.log, day, 6, 1).test.sum()) for day in rolling_days(project.log, project.config)
    ]
    run = open_run(tmp_path / "run")
    # nothing is held out of a day, so nothing can be calibrated: items that nobody chose have to be negatives
    assert (run.config.negatives.index_from, run.config.train.calibrate) == ("corpus", False)
    assert run.facts["last_time"] > days[-1]


def test_the_first_day_is_ranked_by_the_catch_up_model_alone(project: Project, tmp_path: Path) -> None:
    """What comes later cannot change the first day's ranks: the same project with the later days cut off says the same."""
    table = train_sequentially(project, tmp_path / "all", log_to=silent)
    tree = config_tree(project.config)
    tree["evaluate"] = {**tree["evaluate"], "shifts": 1, "last_day": rolling_days(project.log, project.config)[0]}
    first_only = config_from_tree(tree)
    alone = train_sequentially(
        Project(first_only, project.log, project.items, project.users, project.left_out, project.facts, project.proposed),
        tmp_path / "first",
        log_to=silent,
    )
    assert alone["splits"][0]["models"] == table["splits"][0]["models"]


def test_an_interrupted_run_ends_with_the_same_weights(project: Project, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    class Breaks(SilentLog):
        budget = 24

        def advance(self, step: int, steps: int, loss: float) -> None:
            Breaks.budget -= 1
            if Breaks.budget == 0:
                raise Interrupted

    @contextmanager
    def breaking(path: Path, title: str = "") -> Iterator[Breaks]:
        yield Breaks()

    with pytest.raises(Interrupted):
        train_sequentially(project, tmp_path / "broken", log_to=breaking)
    resumed = train_sequentially(project, tmp_path / "broken", log_to=silent)
    whole = train_sequentially(project, tmp_path / "whole", log_to=silent)
    assert resumed == whole
    first, second = open_run(tmp_path / "broken"), open_run(tmp_path / "whole")
    assert all(torch.equal(table, second.tables[name]) for name, table in first.tables.items())


def test_a_folder_with_another_run_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"fingerprint": "another"}')
    with pytest.raises(ConfigError, match="other settings or other data"):
        train_sequentially(project, tmp_path, log_to=silent)


def test_words_that_nothing_held_out_could_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got model\.match_dim; set it to 0"):
        train_sequentially(small_project(tmp_path, {**DAYS, "model": {"match_dim": 8}}), tmp_path / "run", log_to=silent)
