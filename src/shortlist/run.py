"""A run: one training of one window, in a folder of its own that can be resumed, published and looked at.

config.toml         the resolved settings
run.json            what it was trained on, and whether it is finished
item_features.*  user_features.*  context_features.*  query.json       the fitted encoders
items.parquet  users.parquet                                            the tables, in row order
histories.parquet   the last choices of each user when the window ended
asked/              queries that an index is tuned to and proved on: those held out of training, or the newest ones
popularity.npy      how often the window chose each item, in row order
train.jsonl         the log of training, one JSON object a line
checkpoint/         where training stands (while it runs)
model.safetensors   all learned numbers (when it is finished)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError

from shortlist import __version__
from shortlist.array_files import byte_blocks
from shortlist.both_ways import examples_to_learn
from shortlist.calibration import calibrate
from shortlist.catalogue import Catalogue, read_catalogue
from shortlist.checkpoint import load_tensors, save_tensors
from shortlist.config import dump_config, for_log, load_config
from shortlist.dataset import Dataset, Examples, make_dataset, open_examples
from shortlist.encode import Tables
from shortlist.errors import BundleError, ConfigError
from shortlist.features.arrays import flat_arrays, ragged_positions
from shortlist.features.encoder import TableEncoder, open_encoder
from shortlist.features.shown_popularity import TASTE
from shortlist.held_out import held_out
from shortlist.histories import place_in_sets
from shortlist.id_places import ROWS_AT_ONCE
from shortlist.log import EventLog, asking_role
from shortlist.mining import open_miner
from shortlist.parquet_blocks import write_parquet_blocks
from shortlist.project import Project, derives_other_choices
from shortlist.queries import Queries, QueryEncoder, open_query_encoder
from shortlist.sections import Config, TrainSettings
from shortlist.towers import TwoTower
from shortlist.train import Trainer, TrainLog
from shortlist.user_order import user_order

MODEL_FILE, FACTS_FILE, CONFIG_FILE, LOG_FILE = "model.safetensors", "run.json", "config.toml", "train.jsonl"
CHECKPOINT, EXAMPLES, ASKED, POPULARITY = "checkpoint", "examples", "asked", "popularity.npy"
_VALIDATION_LEAST = 200
_ASKED_AT_MOST = 4000
_HISTORIES_A_STEP = 1024  # of a published version that is opened beside requests (parquet_steps.py)
_REMEMBERED = 1000  # choices of each user that are published: the towers read fewer, `--exclude-seen` leaves out all


@dataclass(frozen=True)
class Run:
    """A finished run, opened: everything that publishing needs."""

    folder: Path
    config: Config
    facts: dict[str, Any]
    items: Catalogue
    users: Catalogue | None
    item_encoder: TableEncoder
    query_encoder: QueryEncoder
    model: TwoTower
    tables: Tables
    asked: Queries | None = None  # over `items`; None for a run from before they were kept


def train_run(
    project: Project,
    train_log: EventLog,
    folder: Path,
    *,
    dataset: Dataset | None = None,
    log_to: Callable[[Path], AbstractContextManager[TrainLog]],
) -> Run:
    """The finished run of `train_log` in `folder`: trained now, resumed from its checkpoint, or opened if it was done.

    dataset   the dataset of `train_log`, if it is already made
    log_to    opens the training log, given the file to append to
    Raises    ConfigError if the folder holds a run of other settings or other data
    """
    return train_prepared(prepare_run(project, train_log, folder, dataset=dataset), log_to=log_to)


@dataclass(frozen=True)
class PreparedRun:
    """A claimed folder with everything that training needs: the log itself may be forgotten, which takes more memory than training."""

    folder: Path
    config: Config
    dataset: Dataset  # its examples are memory-mapped files of the folder
    facts: dict[str, Any]


def prepare_run(project: Project, train_log: EventLog, folder: Path, *, dataset: Dataset | None = None) -> PreparedRun:
    """All of a run but its training: the folder is claimed, its inputs and its examples are written. As `train_run` otherwise."""
    is_new, made = not folder.exists(), folder / f"{EXAMPLES}.new"
    shutil.rmtree(made, ignore_errors=True)
    try:
        dataset = make_dataset(project, train_log, folder=made) if dataset is None else _on_disk(dataset, made)
        config = for_log(project.config, len(dataset.train))
        facts = run_facts(config, dataset, train_log)
        claim(folder, facts)
    except BaseException:
        shutil.rmtree(folder if is_new else made, ignore_errors=True)
        raise
    shutil.rmtree(folder / EXAMPLES, ignore_errors=True)  # of an interrupted training
    made.rename(folder / EXAMPLES)
    if not (folder / MODEL_FILE).exists():
        write_inputs(folder, config, dataset, train_log)
    return PreparedRun(folder, config, dataset, facts)


def train_prepared(run: PreparedRun, *, log_to: Callable[[Path], AbstractContextManager[TrainLog]]) -> Run:
    """The finished run: trained now, resumed from its checkpoint, or opened if it was done."""
    if (run.folder / MODEL_FILE).exists():
        shutil.rmtree(run.folder / EXAMPLES, ignore_errors=True)
        return open_run(run.folder)
    with log_to(run.folder / LOG_FILE) as log:
        weights = _train(run.folder, run.config, run.dataset, log)
    finish(run.folder, run.facts, weights)
    return open_run(run.folder)


def run_facts(config: Config, dataset: Dataset, train_log: EventLog) -> dict[str, Any]:
    """What a run says of itself before it is finished."""
    return {
        "shortlist": __version__,
        "examples": len(dataset.train),
        "items": len(dataset.items),
        "item_id": dataset.items.id_column,
        "user_id": None if dataset.users is None else dataset.users.id_column,
        "first_time": train_log.span.get("first_time"),
        "last_time": train_log.span.get("last_time"),
        "fingerprint": _fingerprint(config, dataset),
    }


def open_run(folder: Path) -> Run:
    """The finished run in `folder`. Raises BundleError where there is none."""
    if not (folder / MODEL_FILE).exists():
        raise BundleError(f"{folder} must hold a finished run: got no {MODEL_FILE}; run `shortlist train CONFIG --out {folder}` to its end")
    try:
        return _opened(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{folder} holds a damaged run: {error}; train it again into another folder") from None


def _opened(folder: Path) -> Run:
    config = load_config(folder / CONFIG_FILE)
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    item_encoder, query_encoder = open_encoder(folder, "item_features"), open_query_encoder(folder)
    if bool(config.model.match_dim) != (item_encoder.content is not None):
        raise ValueError(
            f"model.match_dim = {config.model.match_dim}, and item_features.json knows {'no' if config.model.match_dim else 'its'} words"
        )
    items = read_catalogue(str(folder / "items.parquet"), facts["item_id"])
    users = read_catalogue(str(folder / "users.parquet"), facts["user_id"], what="users") if facts["user_id"] else None
    weights = load_tensors(folder / MODEL_FILE)
    model = TwoTower(item_encoder, query_encoder, config.model)
    model.load_state_dict({name[6:]: value for name, value in weights.items() if name.startswith("model/")})
    tables = {name[6:]: value for name, value in weights.items() if name.startswith("table/")}
    if config.model.match_dim and TASTE not in tables:
        raise ValueError(f"its model was made by an older program: got no table {TASTE!r}")
    asked = open_examples(folder / ASKED).queries if (folder / ASKED).exists() else None
    return Run(folder, config, facts, items, users, item_encoder, query_encoder, model.eval(), tables, asked)


def split_validation(examples: Examples, settings: TrainSettings) -> tuple[Examples, Examples]:
    """(to learn from, to validate on): the latest share of the examples, or a random one where the log has no time.

    A small log gives 200 examples or a tenth of itself, whichever is less: fewer would say nothing.
    """
    least = min(_VALIDATION_LEAST, len(examples) // 10) if settings.validation_fraction else 0
    count = min(max(int(len(examples) * settings.validation_fraction), least), settings.validation_at_most)
    last = len(examples) - count
    if examples.time[-1]:
        return examples.cut(slice(0, last)), examples.cut(slice(last, len(examples)))
    order = np.random.default_rng((settings.seed, 4)).permutation(len(examples))
    return examples.take(np.sort(order[:last])), examples.take(np.sort(order[last:]))


def claim(folder: Path, facts: dict[str, Any]) -> None:
    """Makes the folder this run's own, or finds that it is."""
    path = folder / FACTS_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BundleError(f"{path} must be JSON: {error}; remove the folder, or name another") from None
        if found.get("fingerprint") != facts["fingerprint"]:
            raise ConfigError(f"{folder} holds a run of other settings or other data; name another folder, or remove this one")
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write_facts(path, facts)


def write_inputs(folder: Path, config: Config, dataset: Dataset, train_log: EventLog) -> None:
    """Writes all of a run but what training learns; `dataset` is the one made of `train_log`."""
    (folder / CONFIG_FILE).write_text(dump_config(config), encoding="utf-8")
    dataset.item_encoder.save(folder, "item_features")
    dataset.query_encoder.save(folder)
    for name, table in (("items", dataset.items), ("users", dataset.users)):
        if table is not None:
            table.frame.write_parquet(folder / f"{name}.parquet")
    np.save(folder / POPULARITY, dataset.item_counts, allow_pickle=False)
    role = "user" if "user" in train_log.frame.columns else asking_role(train_log) if derives_other_choices(config.columns) else None
    if role is not None and (role == "user" or dataset.query_encoder.history_last):
        log, item_row = train_log, dataset.train.item_row
        if derives_other_choices(config.columns):  # a set, as in training: each item once, in the same order
            is_first = log.frame.select(pl.struct(role, "item").is_first_distinct()).to_series().to_numpy()
            kept = np.flatnonzero(is_first)
            kept = kept[np.argsort(place_in_sets(len(dataset.items))[item_row[kept]], kind="stable")]
            log, item_row = replace(log, frame=log.frame[kept]), item_row[kept]
        choices = last_choices(log, _REMEMBERED, ids=dataset.items.ids, item_row=item_row, role=role)
        write_parquet_blocks(folder / "histories.parquet", choices, step_rows=_HISTORIES_A_STEP)


def keep_asked(folder: Path, examples: Examples, items: int) -> None:
    """Keeps the queries of `examples`, over `items` rows, for the day the run is published; of very many, evenly spread ones."""
    rows = np.unique(np.linspace(0, len(examples) - 1, min(len(examples), _ASKED_AT_MOST)).astype(np.int64))
    asked = examples.take(rows)
    shutil.rmtree(folder / ASKED, ignore_errors=True)
    replace(asked, queries=asked.queries.with_item_rows(np.arange(items, dtype=np.int32))).save(folder / ASKED)


def last_choices(log: EventLog, last: int, *, ids: pl.Series, item_row: NDArray[np.int32], role: str = "user") -> Iterator[pa.Table]:
    """Blocks of one row an asker, as they come in the log: `user` or `seed`, and `history`, the last items chosen, oldest first.

    ids        (M,) the items
    item_row   (n,) which of them each event chose
    role       who asks
    """
    by_user, items = log.user_order if role == "user" else user_order(log.frame[role]), ids.to_arrow(compat_level=pl.CompatLevel.oldest())
    ends = by_user.bounds[1:]
    lengths = np.minimum(np.diff(by_user.bounds), last)
    users = np.argsort(by_user.order[by_user.bounds[:-1]])
    before = np.cumsum(lengths[users])
    edges = np.arange(ROWS_AT_ONCE, before[-1] if len(users) else 0, ROWS_AT_ONCE)
    for block in np.split(users, np.searchsorted(before, edges)):
        places, offsets = ragged_positions((ends - lengths)[block], ends[block])
        chosen = pa.DictionaryArray.from_arrays(pa.array(item_row[by_user.order[places]]), items)
        user = by_user.users[block].to_arrow(compat_level=pl.CompatLevel.oldest())
        yield pa.table({role: user, "history": pa.LargeListArray.from_arrays(pa.array(offsets), chosen)})


def finish(folder: Path, facts: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Writes what was learned, which makes the run a finished one, and clears away what only training needed."""
    _write_facts(folder / FACTS_FILE, facts)
    save_tensors(folder / MODEL_FILE, weights)
    for name in (CHECKPOINT, EXAMPLES):
        shutil.rmtree(folder / name, ignore_errors=True)


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Writes the whole file or leaves the old one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    partial.replace(path)


def _train(folder: Path, config: Config, dataset: Dataset, log: TrainLog) -> dict[str, torch.Tensor]:
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    fit, validation = split_validation(dataset.train, config.train)
    keep_asked(folder, validation, len(dataset.items))
    checkpoint = folder / CHECKPOINT
    checkpoint.mkdir(exist_ok=True)
    mine = open_miner(config.negatives, dataset.items, dataset.users)
    trainer = Trainer(dataset, examples_to_learn(fit, config), config, folder=checkpoint, mine=mine)
    kept = held_out(trainer.learner, fit, validation)
    trainer.fit(kept.loss if len(validation) else None, log)
    found = calibrate(trainer.learner, kept, config.evaluate)
    if found:
        log.record({"step": trainer.progress.step, "calibrated": found})
    return trainer.learner.weights()


def _on_disk(dataset: Dataset, folder: Path) -> Dataset:
    """The dataset with its examples in files, to be read as they are needed."""
    dataset.train.save(folder)
    return replace(dataset, train=open_examples(folder))


def settings_key(config: Config) -> str:
    """A short name of the settings that shape a run: equal settings, equal key."""
    return xxhash.xxh3_64_hexdigest(repr(_shaping(config)).encode())[:8]


def _shaping(config: Config) -> tuple[Any, ...]:
    train = msgspec.structs.replace(config.train, checkpoint_steps=1, log_steps=1)  # these shape nothing
    judged = (config.evaluate.seen_items, config.evaluate.repeats) if train.calibrate else ()  # by which calibration goes as well
    made_by = (TASTE,) if config.model.match_dim else ()  # what checkpoints of older programs lack
    sections = (config.columns, config.item, config.query, config.model, config.negatives, config.loss, config.frequency)
    return (*sections, train, judged, *made_by)


def _fingerprint(config: Config, dataset: Dataset) -> str:
    """Changes with any setting that shapes the model, any example and any feature; not with where the files lie."""
    digest = xxhash.xxh3_128(repr(_shaping(config)).encode())
    add_dataset(digest, dataset)
    return digest.hexdigest()


def add_dataset(digest: xxhash.xxh3_128, dataset: Dataset) -> None:
    """Takes the training examples, all features and the item ids into the digest."""
    add_examples(digest, dataset.train)
    for columns in (dataset.item_features, dataset.user_features, dataset.train.queries.context):
        add_arrays(digest, flat_arrays(columns).values())
    digest.update("\x00".join(map(str, dataset.items.ids.to_list())).encode())


def add_examples(digest: xxhash.xxh3_128, examples: Examples) -> None:
    """Takes the examples into the digest, but for the features of their context."""
    queries = examples.queries
    add_arrays(digest, [examples.item_row, examples.weight, examples.time, queries.seed_row, queries.user_row])
    add_arrays(digest, [queries.history_items, queries.history_start, queries.history_end])


def add_arrays(digest: xxhash.xxh3_128, arrays: Iterable[NDArray[Any]]) -> None:
    """Takes the arrays' bytes into the digest."""
    for array in arrays:
        for block in byte_blocks(array):
            digest.update(block)
