"""Named variants of one configuration, trained with several seeds on one split and put side by side.

Every finished (variant, seed) is a file of its own, so an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from scipy import stats

from shortlist.backtest import LogTo
from shortlist.config import Config, config_from_tree, config_tree
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.encode import Tables, full_corpus_loss
from shortlist.errors import ConfigError
from shortlist.evaluate import Tested, asked_queries, rank_positives
from shortlist.learned import LearnedRetriever
from shortlist.metrics.ranking import ndcg_at, recall_at
from shortlist.project import Project
from shortlist.protocols.configured import splits
from shortlist.run import run_facts, split_validation
from shortlist.towers import TwoTower
from shortlist.train import Trainer

LARGEST_FULL_SOFTMAX = 20_000  # items; above, the full softmax's logits do not fit

DESIGNS: dict[str, dict[str, dict[str, Any]]] = {
    "expected_count": {},
    "all_corrected": {"loss": {"design": "all_corrected"}},
    "inclusion": {"loss": {"design": "inclusion"}},
    "paper_literal": {"loss": {"design": "paper_literal"}},
    "uncorrected": {"loss": {"design": "uncorrected"}},
    "in-batch alone (B' = 0)": {"negatives": {"index_batch_size": 0}},
    "sampled-softmax MLP, uniform": {
        "model": {"item_tower": "table", "hidden": [1024, 128]},
        "negatives": {"kind": "sampled", "index_batch_size": 2048, "proposal": "uniform"},
        "loss": {"design": "inclusion"},
    },
    "sampled-softmax MLP, log-uniform": {
        "model": {"item_tower": "table", "hidden": [1024, 128]},
        "negatives": {"kind": "sampled", "index_batch_size": 2048, "proposal": "log_uniform"},
        "loss": {"design": "inclusion"},
    },
    "full softmax": {"negatives": {"kind": "full"}},
}

COLD: dict[str, dict[str, dict[str, Any]]] = {
    "plain MNS (weight 1)": {"negatives": {"unchosen_weight": 1.0}},
    "in-batch alone (B' = 0)": {"negatives": {"index_batch_size": 0}},
    "index draws from chosen items": {"negatives": {"index_from": "chosen"}},
    "unchosen weight .1": {"negatives": {"unchosen_weight": 0.1}},
    "unchosen weight .01 (default)": {},
    "unchosen weight .001": {"negatives": {"unchosen_weight": 0.001}},
    "weight 1, id dropout .5": {"negatives": {"unchosen_weight": 1.0}, "model": {"id_dropout": 0.5}},
    "weight .01, id dropout .5": {"model": {"id_dropout": 0.5}},
    "weight 1, logq_weight .5": {"negatives": {"unchosen_weight": 1.0}, "loss": {"logq_weight": 0.5}},
    "weight .01, no item bias": {"model": {"item_bias": False}},
}
PAPER_TOWERS: dict[str, dict[str, Any]] = {  # Yang et al., section 4.2: an MLP on each side, a bag of the history, no bias
    "model": {"linear_path": False, "item_bias": False, "history_pooling": "mean", "id_dropout": 0.0}
}
TOWERS: dict[str, dict[str, dict[str, Any]]] = {
    "the paper's towers": PAPER_TOWERS,
    "default": {},
    "no linear path": {"model": {"linear_path": False}},
    "no item bias": {"model": {"item_bias": False}},
    "no id dropout": {"model": {"id_dropout": 0.0}},
    "history by mean": {"model": {"history_pooling": "mean"}},
    "history by attention": {"model": {"history_pooling": "attention"}},
    "two cross layers": {"model": {"cross_layers": 2}},
}
STUDIES = {"designs": DESIGNS, "cold": COLD, "towers": TOWERS}


@dataclass(frozen=True)
class Trial:
    """One trained model of a study."""

    variant: str
    seed: int
    metrics: dict[str, float]
    slices: dict[str, float]  # recall at the longest list
    train_seconds: float
    epochs: int


def run_study(name: str, project: Project, folder: Path, *, seeds: int, log_to: LogTo) -> dict[str, Any]:
    """The study's table: for each variant the mean over seeds, its 95 % interval (t), the spread, slices and cost.

    Trains on the protocol's last split. Trials are kept in `folder`. Raises ConfigError for an unknown study.
    """
    if name not in STUDIES:
        raise ConfigError(f"a study must be one of {', '.join(STUDIES)}: got {name!r}")
    *_, split = splits(project.log, project.config)
    dataset = make_dataset(project, split.train_log)
    corpus, examples, tested = asked_queries(dataset, split, project.config)
    is_large = len(dataset.items) > LARGEST_FULL_SOFTMAX
    full = [variant for variant, changes in STUDIES[name].items() if changes.get("negatives", {}).get("kind") == "full"]
    too_large = {variant: f"{len(dataset.items):,} items: its logits do not fit" for variant in full if is_large}
    folder = folder / run_facts(project.config, dataset, split.train_log)["fingerprint"][:12]  # of these data and settings
    trials = []
    for seed in range(seeds):  # seed by seed: a study that is cut short still compares all variants
        for variant, changes in STUDIES[name].items():
            if variant in too_large:
                continue
            config = changed(project.config, changes, seed)
            trial = partial(_trial, variant, config, dataset, corpus, examples, tested, folder, log_to)
            trials.append(_kept(folder, variant, config, trial))
    return {**_table(name, project, split.name, dataset, tested, trials), "left_out": too_large}


def changed(config: Config, changes: Mapping[str, Mapping[str, Any]], seed: int) -> Config:
    """The config with `changes` (section -> key -> value) and the training seed."""
    tree = config_tree(config)
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values}
    tree["train"] = {**tree["train"], "seed": seed}
    return config_from_tree(tree)


def trial_name(variant: str, config: Config) -> str:
    """The name of a trial's files: changes with any setting, not with where the tables lie."""
    tree = {section: values for section, values in config_tree(config).items() if section != "data"}
    return f"{xxhash.xxh3_64_hexdigest(variant.encode() + msgspec.json.encode(tree))}-seed-{config.train.seed}"


def _kept(folder: Path, variant: str, config: Config, run: Callable[[], Trial]) -> Trial:
    """The trial of this very configuration, read back if it is there, else run and written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{trial_name(variant, config)}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Trial)
    trial = run()
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(trial))
    partial.rename(path)
    return trial


def _trial(
    variant: str, config: Config, dataset: Dataset, corpus: Dataset, examples: Examples, tested: Tested, folder: Path, log_to: LogTo
) -> Trial:
    """`corpus` is what is ranked: the dataset, or, where the split brings one, over a newer snapshot of the items."""
    fit, validation = split_validation(dataset.train, config.train)
    trainer = Trainer(dataset, fit, config)
    log_weight = trainer.learner.negatives.log_weight()

    def validate(model: TwoTower, tables: Tables) -> float:
        return full_corpus_loss(model, tables, dataset, validation, log_weight)

    started = time.perf_counter()
    log_file = folder / f"{trial_name(variant, config)}.jsonl"
    with log_to(log_file, f"{variant}, seed {config.train.seed}") as log:
        trainer.fit(validate if len(validation) else None, log)
    seconds = time.perf_counter() - started
    retriever = LearnedRetriever(trainer.learner.model, trainer.learner.tables.weights, corpus)
    rank = rank_positives(retriever, examples, len(corpus.items), config.evaluate).rank
    longest, shortest = max(config.evaluate.ks), min(config.evaluate.ks)
    metrics = {f"recall@{k}": float(recall_at(rank, k).mean()) for k in config.evaluate.ks}
    metrics[f"ndcg@{shortest}"] = float(ndcg_at(rank, shortest).mean())
    hits = recall_at(rank, longest)
    slices = {name: float(hits[mask].mean()) for name, mask in tested.slices.items() if mask.any()}
    return Trial(variant, config.train.seed, metrics, slices, round(seconds, 1), trainer.progress.best_epoch + 1)


def _table(name: str, project: Project, split: str, dataset: Dataset, tested: Tested, trials: list[Trial]) -> dict[str, Any]:
    by_variant: dict[str, list[Trial]] = {}
    for trial in trials:
        by_variant.setdefault(trial.variant, []).append(trial)
    return {
        "study": name,
        "split": split,
        "train_examples": len(dataset.train),
        "queries": len(tested),
        "corpus_size": len(tested.items),
        "slice_queries": {slice_name: int(mask.sum()) for slice_name, mask in tested.slices.items()},
        "settings": json.loads(msgspec.json.encode(config_tree(project.config))),
        "variants": {
            variant: {
                "seeds": len(of_variant),
                "metrics": {metric: over_seeds([trial.metrics[metric] for trial in of_variant]) for metric in of_variant[0].metrics},
                "slices": {part: over_seeds([trial.slices[part] for trial in of_variant]) for part in of_variant[0].slices},
                "train_seconds": float(np.mean([trial.train_seconds for trial in of_variant])),
                "best_epoch": float(np.mean([trial.epochs for trial in of_variant])),
            }
            for variant, of_variant in by_variant.items()
        },
    }


def over_seeds(values: list[float]) -> dict[str, float]:
    """Mean, and with two seeds or more the standard deviation and the 95 % interval of the mean (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean}
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "sd": deviation}
