"""One trial: a model trained, or a baseline fitted, on one split, and where it ranked every positive.

Every finished trial is a file of its own, so an interrupted study goes on where it stopped, and loses one training at most. A
file is found by the data and settings that made it: studies that meet the same model share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from shortlist.backtest import LogTo
from shortlist.baselines.fit import fit_baselines
from shortlist.both_ways import examples_to_learn
from shortlist.calibration import calibrate
from shortlist.config import config_tree, for_log
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.encode import Tables
from shortlist.errors import DataError
from shortlist.evaluate import Retriever, Tested, asked_queries, rank_positives
from shortlist.features.arrays import flat_arrays
from shortlist.held_out import held_out
from shortlist.learned import LearnedRetriever
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.project import Project
from shortlist.protocols.split import Split
from shortlist.run import add_arrays, add_dataset, add_examples, split_validation
from shortlist.sections import Config
from shortlist.study.never_chosen import ChosenOnly, CountedLists, mean_place
from shortlist.towers import TwoTower
from shortlist.train import Trainer, TrainLog

Watch = Callable[[int, float], None]  # told (epoch, validation loss); may raise to end the training
_APART = ("data", "index")  # the digest of the data stands for them; every trial is searched exactly
_OF_BASELINES = ("columns", "item", "query")  # sections that baselines depend on
_OF_LOOP = ("checkpoint_steps", "log_steps")  # settings that shape nothing
_OF_RANKS = ("ks", "seen_items", "repeats")  # all that ranks depend on in [evaluate], beside the split


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One model, tested on one split.

    ranks                (N,) of each positive, from 1, ties against the model; None = beyond the largest k
    ranks_among_chosen   the same where only items may be listed that training chose
    lists                what the lists show, by "metric@k"; never_chosen_share@k and never_chosen_place (study/never_chosen.py);
                         never_chosen_of_corpus, the share that lists drawn at random would have
    fit_seconds          to train, or to tune and fit
    commit               of the program that made it
    epochs, negatives    of a training: passes up to the weights that were kept; negatives that a row of the softmax met
    settings             of a baseline: what tuning chose
    """

    ranks: list[int | None]
    ranks_among_chosen: list[int | None]
    lists: dict[str, float]
    fit_seconds: float
    test_seconds: float
    commit: str | None = None
    epochs: int | None = None
    negatives: int | None = None
    settings: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One split, made ready for all trials on it.

    corpus   what is ranked: the dataset, or, where the split brings one, over a newer snapshot of the items
    folder   where trials on these very data are kept
    """

    dataset: Dataset
    corpus: Dataset
    examples: Examples
    tested: Tested
    folder: Path
    commit: str | None = None


def prepare(project: Project, split: Split, folder: Path, *, commit: str | None = None) -> Prepared:
    """The split made ready; `folder` gets one folder for every state of the data."""
    dataset = make_dataset(project, split.train_log)
    corpus, examples, tested = asked_queries(dataset, split, project.config)
    digest = xxhash.xxh3_128(b"trials")
    add_dataset(digest, dataset)
    if corpus is not dataset:
        add_dataset(digest, corpus)
    add_examples(digest, examples)
    add_arrays(digest, flat_arrays(examples.queries.context).values())
    return Prepared(
        dataset=dataset,
        corpus=corpus,
        examples=examples,
        tested=tested,
        folder=folder / digest.hexdigest()[:12],
        commit=commit,
    )


def trained_trial(prepared: Prepared, config: Config, title: str, log_to: LogTo) -> Trial:
    """The trial of these settings: read back if it is kept, else trained, tested and kept."""
    path = prepared.folder / f"{model_digest(prepared, config)}-seed-{config.train.seed}.json"
    return _kept(path, lambda: _train_and_test(prepared, config, path.with_suffix(".jsonl"), title, log_to))


def baseline_trial(prepared: Prepared, config: Config, name: str) -> Trial | str:
    """The trial of the baseline of that name, read back or fitted; or why it cannot be fitted."""
    path = prepared.folder / f"{settings_digest(config, _OF_BASELINES)}-{name}.json"
    if path.exists():
        return _read(path)
    started = time.perf_counter()
    found, reasons = fit_baselines(prepared.corpus, config, [name])
    if not found:
        return reasons[name]
    seconds = time.perf_counter() - started
    settings = dict(getattr(found[0], "settings", {}))
    return _kept(path, lambda: _tested(prepared, config, found[0], seconds, settings=settings))


def train_model(dataset: Dataset, config: Config, log: TrainLog, watch: Watch | None = None) -> Trainer:
    """The trainer after its training, with the best epoch's weights; `watch` sees the validation loss of every epoch."""
    config = for_log(config, len(dataset.train))
    fit, validation = split_validation(dataset.train, config.train)
    trainer = Trainer(dataset, examples_to_learn(fit, config), config)
    kept = held_out(trainer.learner, fit, validation)
    losses: list[float] = []

    def validate(model: TwoTower, tables: Tables) -> float:
        losses.append(kept.loss(model, tables))
        if watch is not None:
            watch(len(losses) - 1, losses[-1])
        return losses[-1]

    trainer.fit(validate if len(validation) else None, log)
    calibrate(trainer.learner, kept, config.evaluate)
    return trainer


def ranks_of(trial: Trial) -> NDArray[np.int64]:
    """(N,) the ranks, NOT_FOUND beyond the largest k."""
    return np.array([NOT_FOUND if rank is None else rank for rank in trial.ranks], np.int64)


def ranks_among_chosen_of(trial: Trial) -> NDArray[np.int64]:
    """(N,) the ranks among items that training chose, NOT_FOUND beyond the largest k."""
    return np.array([NOT_FOUND if rank is None else rank for rank in trial.ranks_among_chosen], np.int64)


def _train_and_test(prepared: Prepared, config: Config, log_file: Path, title: str, log_to: LogTo) -> Trial:
    log_file.unlink(missing_ok=True)  # of a training that was interrupted
    started = time.perf_counter()
    with log_to(log_file, title) as log:
        trainer = train_model(prepared.dataset, config, log)
    seconds = time.perf_counter() - started
    learner = trainer.learner
    batch_size = round(len(trainer.maker.examples) / trainer.maker.steps_per_epoch)
    retriever: Retriever = LearnedRetriever(learner.model, learner.tables.weights, prepared.corpus)
    if config.model.item_tower == "table":  # items outside its vocabulary cannot be returned: they are misses
        retriever = ChosenOnly(retriever, prepared.corpus.item_counts == 0)
    return _tested(
        prepared,
        config,
        retriever,
        seconds,
        epochs=trainer.progress.best_epoch + 1 if trainer.progress.best_epoch >= 0 else trainer.epochs,
        negatives=learner.negatives.draws(batch_size),
    )


def _tested(
    prepared: Prepared,
    config: Config,
    retriever: Retriever,
    fit_seconds: float,
    *,
    epochs: int | None = None,
    negatives: int | None = None,
    settings: dict[str, Any] | None = None,
) -> Trial:
    started = time.perf_counter()
    examples, counts, longest = prepared.examples, prepared.corpus.item_counts, max(config.evaluate.ks)
    never = counts == 0
    counted = CountedLists(retriever, never, longest)
    ranked = rank_positives(counted, examples, len(counts), config.evaluate, item_counts=counts)
    among = ranked if not never.any() else rank_positives(ChosenOnly(retriever, never), examples, len(counts), config.evaluate)
    lists = {**ranked.of_lists, f"never_chosen_share@{longest}": counted.share, "never_chosen_of_corpus": float(never.mean())}
    place = None if isinstance(retriever, ChosenOnly) else mean_place(retriever, examples.queries, never)
    if place is not None:
        lists["never_chosen_place"] = place
    return Trial(
        ranks=_without_misses(ranked.rank),
        ranks_among_chosen=_without_misses(among.rank),
        lists=lists,
        fit_seconds=round(fit_seconds, 2),
        test_seconds=round(time.perf_counter() - started, 2),
        commit=prepared.commit,
        epochs=epochs,
        negatives=negatives,
        settings=settings or {},
    )


def _without_misses(rank: NDArray[np.int64]) -> list[int | None]:
    return [None if value == NOT_FOUND else value for value in rank.tolist()]


def model_digest(prepared: Prepared, config: Config) -> str:
    """The digest of the settings that a model is trained with: those that depend on the log as they come out, so that a trial of before
    a rule changed is not taken for one of after it."""
    return settings_digest(for_log(config, len(prepared.dataset.train)))


def settings_digest(config: Config, sections: tuple[str, ...] | None = None) -> str:
    """Changes with every setting of `sections` (None = all) that a trial depends on, not with where the tables lie."""
    tree = config_tree(config)
    kept = {name: values for name, values in tree.items() if name not in _APART and (sections is None or name in sections)}
    if "train" in kept:
        kept["train"] = {key: value for key, value in tree["train"].items() if key not in _OF_LOOP}
    kept["evaluate"] = {key: value for key, value in tree["evaluate"].items() if key in _OF_RANKS}
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(kept, order="deterministic"))


def _kept(path: Path, run: Callable[[], Trial]) -> Trial:
    """The trial in the file, or, where there is none, the one that `run` makes, which is then written whole or not at all."""
    if path.exists():
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = run()
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(trial))
    partial.replace(path)
    return trial


def _read(path: Path) -> Trial:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trial)
    except msgspec.DecodeError as error:
        raise DataError(f"{path} must be a trial that this version wrote: {error}; remove it, and it is made again") from None
