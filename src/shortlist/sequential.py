"""Sequential training (Yi et al., RecSys'19, section 5.2): day by day from oldest to newest, tested on each day before it is
learned from.

A catch-up window of `train_days` first, then one day after the other: the model of yesterday answers today's queries, then
learns from them. Weights, optimiser sums, the frequency stream and vocabularies (growth.py) are carried over.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shortlist.backtest import LogTo
from shortlist.checkpoint import load_tensors, save_tensors
from shortlist.config import for_log
from shortlist.dataset import Dataset, Examples, assemble_dataset, make_dataset
from shortlist.errors import ConfigError
from shortlist.evaluate import asked_queries, rank_positives
from shortlist.evaluation_table import evaluation_table
from shortlist.growth import carry_over, grown_encoder
from shortlist.learned import LearnedRetriever
from shortlist.project import Project
from shortlist.protocols.rolling import rolling_days, rolling_split
from shortlist.protocols.split import Split
from shortlist.run import CHECKPOINT, LOG_FILE, claim, finish, keep_asked, run_facts, split_validation, write_inputs
from shortlist.sections import Config
from shortlist.train import Trainer


def train_sequentially(project: Project, folder: Path, *, log_to: LogTo) -> dict[str, Any]:
    """The evaluation table over the `shifts` days of the rolling protocol, every day ranked by the model of the day before.

    folder   becomes a run like any other, of the model after the last day; days that were learned before an interruption
             are not learned again
    Raises   DataError where a day has no events, ConfigError if the folder holds another run
    """
    settings = project.config.evaluate
    if settings.protocol != "rolling":
        raise ConfigError(
            f'sequential training goes by days: got evaluate.protocol = "{settings.protocol}"; set "rolling", and name a time'
        )
    # a window's bias is carried over and learned on: it cannot be fixed at the end of each
    model = msgspec.structs.replace(project.config.model, popularity="learned")
    if project.config.train.both_ways_within:
        raise ConfigError("sequential training goes forward in time: got train.both_ways_within above 0; set it to 0")
    if model.match_dim:
        raise ConfigError("sequential training holds nothing out that would say what matches count: got model.match_dim; set it to 0")
    # nothing is held out, so nothing can be calibrated
    train = msgspec.structs.replace(project.config.train, both_ways_within=0.0, calibrate=False)
    project = replace(project, config=msgspec.structs.replace(project.config, model=model, train=train))
    days = rolling_days(project.log, project.config)
    first = rolling_split(project.log, days[0], settings.train_days, settings.test_days, days=settings.days)
    dataset = make_dataset(project, first.train_log)
    project = replace(project, config=for_log(project.config, len(dataset.train)))
    facts = {**run_facts(project.config, dataset, first.train_log), "sequential_days": [day.isoformat() for day in days]}
    claim(folder, facts)
    trainer = Trainer(dataset, dataset.train, project.config)
    _learn(trainer, folder, "catch-up", log_to)
    ever = dataset.item_counts > 0
    tested, ranked, split = [], [], first
    for number, day in enumerate(days):
        # histories reach back to the start
        split = rolling_split(project.log, day, settings.train_days + number, settings.test_days, days=settings.days)
        _, examples, facts_of_day = asked_queries(dataset, split, project.config)
        retriever = LearnedRetriever(trainer.learner.model, trainer.learner.tables.weights, dataset)
        tested.append(facts_of_day)
        ranked.append([rank_positives(retriever, examples, len(dataset.items), settings)])
        dataset, today = grown_dataset(project, dataset, split)
        following = Trainer(dataset, today, _of_day(project.config, number + 1), ever_chosen=ever)
        carry_over(trainer.learner, following.learner)
        trainer = following
        _learn(trainer, folder, day.isoformat(), log_to)
        ever = ever | (np.bincount(today.item_row, minlength=len(ever)) > 0)
    write_inputs(folder, project.config, dataset, split.log)
    keep_asked(folder, split_validation(dataset.train, project.config.train)[1], len(dataset.items))
    finish(folder, {**facts, "examples": len(dataset.train), "last_time": split.log.span.get("last_time")}, trainer.learner.weights())
    return evaluation_table(tested, ranked, settings)


def _learn(trainer: Trainer, folder: Path, day: str, log_to: LogTo) -> None:
    """Fits one window, or takes up what an interrupted run had learned from it."""
    path = folder / CHECKPOINT / f"{day}.safetensors"
    if path.exists():
        trainer.learner.load_state(load_tensors(path))
        return
    path.parent.mkdir(exist_ok=True)
    with log_to(folder / LOG_FILE, f"learning from {day}") as log:
        trainer.fit(None, log)
    save_tensors(path, trainer.learner.state())


def grown_dataset(project: Project, dataset: Dataset, split: Split) -> tuple[Dataset, Examples]:
    """(the dataset of the split's whole window under grown vocabularies, its examples of the tested day)."""
    chosen = _chosen(project, split)
    item_encoder = grown_encoder(dataset.item_encoder, project.items.frame, seen=chosen, chosen=chosen)
    context = grown_encoder(dataset.query_encoder.context, split.log.frame, seen=split.test)
    user = dataset.query_encoder.user
    if project.users is not None:
        seen = np.zeros(len(project.users), bool)
        rows = project.users.rows_of(split.log.frame["user"])
        seen[rows[split.test & (rows >= 0)]] = True
        user = grown_encoder(user, project.users.frame, seen=seen)
    query_encoder = replace(dataset.query_encoder, context=context, user=user)
    grown = assemble_dataset(project, split.log, item_encoder, query_encoder)
    return grown, grown.train.take(np.flatnonzero(split.test))


def _chosen(project: Project, split: Split) -> NDArray[np.bool_]:
    chosen = np.zeros(len(project.items), bool)
    chosen[project.items.rows_of(split.log.frame["item"])[split.test]] = True
    return chosen


def _of_day(config: Config, number: int) -> Config:
    """The settings of the number-th day: one pass, and a seed of its own, so that no two days draw alike."""
    train = msgspec.structs.replace(config.train, epochs=1, seed=config.train.seed + 1_000_003 * number)
    return msgspec.structs.replace(config, train=train)
