"""Train on the past, test on what came after, for every split of the protocol, beside what must be beaten.

Each split has a folder with its run, which can be published and is resumed or read back when the evaluation is run again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.baselines.cooccurrence import CoOccurrence
from shortlist.baselines.popularity import Popularity
from shortlist.config import Config
from shortlist.dataset import Dataset, make_dataset
from shortlist.evaluate import Ranked, Retriever, Tested, asked_queries, rank_positives
from shortlist.evaluation_table import evaluation_table
from shortlist.learned import LearnedRetriever
from shortlist.project import Project
from shortlist.protocols.configured import splits
from shortlist.protocols.rolling import latest_window
from shortlist.protocols.split import Split
from shortlist.run import Run, prepare_run, train_prepared, train_run
from shortlist.train import TrainLog

LogTo = Callable[[Path, str], AbstractContextManager[TrainLog]]
Stage = Callable[[str], AbstractContextManager[None]]  # shows that a stage of work is under way
LAST = "last"


def quietly(what: str) -> AbstractContextManager[None]:
    """A stage that nobody is told of."""
    return nullcontext()


def backtest(project: Project, folder: Path, *, log_to: LogTo, stage: Stage = quietly) -> dict[str, Any]:
    """The evaluation table (evaluate.evaluation_table) of the two-tower model and the baselines over all splits.

    folder   gets one run a split, named after it, and a link `last` to the newest
    log_to   opens a training log, given its file and a title for people
    stage    shows the other work to people
    """
    tested, ranked = [], []
    for split in list(splits(project.log, project.config)):  # all of them: an empty one must show before the first training
        run_folder = folder / split.name.replace("%", "").replace(" ", "-")
        split_tested, split_ranked = _test_split(project, split, run_folder, log_to, stage)
        tested.append(split_tested)
        ranked.append(split_ranked)
        _link(folder / LAST, run_folder)
    return evaluation_table(tested, ranked, project.config.evaluate)


def baselines(dataset: Dataset, config: Config) -> list[Retriever]:
    """What a model has to beat, fitted on the training window."""
    rewarded = np.flatnonzero(dataset.train.weight > 0)  # a choice with a reward of 0 is no choice
    if len(rewarded) < len(dataset.train):
        train = dataset.train.take(rewarded)
        dataset = replace(dataset, train=train, item_counts=np.bincount(train.item_row, minlength=len(dataset.items)))
    seeds_ask = config.columns.user is None and config.columns.seed is not None
    return [Popularity(dataset), CoOccurrence(dataset, seeds_ask=seeds_ask)]


def train_latest(project: Project, folder: Path, *, log_to: LogTo) -> Run:
    """The run of the latest window, to be published: nothing is held out but what early stopping looks at."""
    run = prepare_run(project, latest_window(project.log, project.config), folder)
    del project  # where nobody else holds it, its log is gone before training begins
    return train_prepared(run, log_to=lambda path: log_to(path, "training"))


def _test_split(project: Project, split: Split, folder: Path, log_to: LogTo, stage: Stage) -> tuple[Tested, list[Ranked]]:
    settings = project.config.evaluate
    train_log = split.train_log
    with stage(f"preparing {split.name}"):
        dataset = make_dataset(project, train_log)
    corpus, examples, tested = asked_queries(dataset, split, project.config)
    run = train_run(project, train_log, folder, dataset=dataset, log_to=lambda path: log_to(path, f"training for {split.name}"))
    with stage(f"ranking {len(examples):,} queries of {split.name}"):
        retrievers = [LearnedRetriever(run.model, run.tables, corpus), *baselines(corpus, project.config)]
        counts = corpus.item_counts
        return tested, [rank_positives(retriever, examples, len(counts), settings, item_counts=counts) for retriever in retrievers]


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.name, target_is_directory=True)
