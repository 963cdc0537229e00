"""Log + catalogue + features -> training examples as arrays, memory-mapped once saved.

An example is a query and the item that was chosen. What a query knows of the past is derived here, strictly from
events before its own instant; with `ties = "in_order"`, from the rows above it in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.array_files import GrowingArrays, open_array_files
from shortlist.catalogue import Catalogue
from shortlist.config import for_log
from shortlist.errors import ConfigError, DataError
from shortlist.features.arrays import FeatureArray, columns_from_flat, flat_arrays
from shortlist.features.content_codes import fit_content_codes
from shortlist.features.encoder import TableEncoder, fit_encoder
from shortlist.histories import Histories, histories_by_user, instants, other_choices
from shortlist.id_places import row_blocks
from shortlist.log import EventLog, asking_role
from shortlist.project import Project, content_columns, feature_column
from shortlist.protocols.split import Split
from shortlist.queries import NONE_ROW, Queries, QueryEncoder, without_seed
from shortlist.sections import Config, FeatureSettings, feature_settings
from shortlist.user_order import user_order

CONTEXT = "context."  # before the names of context features
BAG_OFFSETS, BAG_VALUES = ".bag.offsets", ".bag.values"


@dataclass(frozen=True)
class Examples:
    """N pairs of a query and the item chosen, in the order of the log (time, then file)."""

    queries: Queries
    item_row: NDArray[np.int32]  # (N,) the positive
    weight: NDArray[np.float32]  # (N,) reward r_i >= 0
    time: NDArray[np.int64]  # (N,) microseconds since 1970 UTC; zeros where the log has no time
    asker: NDArray[np.int64]  # (N,) who asks (user, else seed) as a number: the unit of bootstrap and of co-choice; -1 = nobody

    def __len__(self) -> int:
        return len(self.item_row)

    def take(self, rows: NDArray[np.integer]) -> Examples:
        """The examples at `rows`, in that order."""
        return Examples(self.queries.take(rows), self.item_row[rows], self.weight[rows], self.time[rows], self.asker[rows])

    def save(self, folder: Path) -> None:
        """Writes one .npy file an array into `folder`, which is made."""
        files = GrowingArrays(folder)
        for name, array in self.arrays().items():
            files.append(name, array)
        files.finished()

    def cut(self, rows: slice) -> Examples:
        """The examples of a range of rows, without a copy."""
        return Examples(self.queries.cut(rows), self.item_row[rows], self.weight[rows], self.time[rows], self.asker[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that the examples are, by name."""
        queries = self.queries
        return {
            "item_row": self.item_row,
            "weight": self.weight,
            "time": self.time,
            "asker": self.asker,
            "seed_row": queries.seed_row,
            "user_row": queries.user_row,
            "history_items": queries.history_items,
            "history_start": queries.history_start,
            "history_end": queries.history_end,
            **{f"{CONTEXT}{name}": array for name, array in flat_arrays(queries.context).items()},
        }


def open_examples(folder: Path) -> Examples:
    """The examples that `Examples.save` wrote, memory-mapped."""
    return _examples_of(open_array_files(folder))


def _examples_of(arrays: Mapping[str, NDArray[Any]]) -> Examples:
    """The examples whose `arrays` these are."""
    context = columns_from_flat({name[len(CONTEXT) :]: array for name, array in arrays.items() if name.startswith(CONTEXT)})
    seed, user = arrays["seed_row"], arrays["user_row"]
    queries = Queries(seed, user, arrays["history_items"], arrays["history_start"], arrays["history_end"], context)
    return Examples(queries, arrays["item_row"], arrays["weight"], arrays["time"], arrays["asker"])


@dataclass(frozen=True)
class Dataset:
    """A training window made ready: encoders fitted on it, its examples, and the index data as arrays."""

    item_encoder: TableEncoder
    query_encoder: QueryEncoder
    items: Catalogue
    users: Catalogue | None
    item_features: dict[str, FeatureArray]  # each with M entries, in catalogue order
    user_features: dict[str, FeatureArray]  # each with U + 1 entries, the last for nobody
    train: Examples
    item_counts: NDArray[np.int64]  # (M,) how often each item is a positive of `train`
    item_codes: NDArray[np.float32] | None = None  # (M, m) content codes, where items match by their words

    def encode_split(self, split: Split, config: Config) -> Examples:
        """The tested events of `split` as queries with their answers, encoded as in training."""
        item_row = self.items.rows32_of(split.log.frame["item"])
        examples = _Maker(config, self.items, self.users, self.query_encoder).examples(split.log, item_row, split.remembered)
        return examples.take(np.flatnonzero(split.test))


def make_dataset(project: Project, train_log: EventLog, *, folder: Path | None = None) -> Dataset:
    """The dataset of one training window. Only `train_log` is looked at for vocabularies, statistics and counts.

    folder   where the examples are written, block by block, to be read from there; None keeps them in memory
    """
    config, items, users = project.config, project.items, project.users
    item_row = items.rows32_of(train_log.frame["item"])
    chosen = np.zeros(len(items), bool)
    chosen[item_row] = True
    item_encoder = fit_encoder(
        {
            name: (feature_column(name, settings, config, side="item").column, settings)
            for name, settings in feature_settings(config.item).items()
        },
        items.frame,
        seen=chosen | _mentioned(train_log, items),
        chosen=chosen,
    )
    width = for_log(config, len(train_log)).model.match_dim
    if width:
        item_encoder = replace(item_encoder, content=fit_content_codes(items.frame, content_columns(config), width))
    query_encoder = _fit_query_encoder(config, train_log, users)
    return _assembled(project, train_log, item_row, item_encoder, query_encoder, folder)


def assemble_dataset(project: Project, train_log: EventLog, item_encoder: TableEncoder, query_encoder: QueryEncoder) -> Dataset:
    """The dataset of a window under encoders that were fitted elsewhere."""
    return _assembled(project, train_log, project.items.rows32_of(train_log.frame["item"]), item_encoder, query_encoder, None)


def count_rows(rows: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """(size,) how often each number below `size` occurs among the rows; numpy's own would copy a 32-bit array whole."""
    counts = np.zeros(size, np.int64)
    for block in row_blocks(len(rows)):
        counts += np.bincount(rows[block], minlength=size)
    return counts


def _assembled(
    project: Project,
    train_log: EventLog,
    item_row: NDArray[np.int32],
    item_encoder: TableEncoder,
    query_encoder: QueryEncoder,
    folder: Path | None,
) -> Dataset:
    items, users = project.items, project.users
    train = _Maker(project.config, items, users, query_encoder).examples(train_log, item_row, folder=folder)
    return Dataset(
        item_encoder,
        query_encoder,
        items,
        users,
        item_encoder.encode(items.frame),
        query_encoder.user.encode_with_missing(users.frame) if users is not None else {},
        train,
        count_rows(item_row, len(items)),
        item_encoder.codes(items.frame),
    )


def _fit_query_encoder(config: Config, train_log: EventLog, users: Catalogue | None) -> QueryEncoder:
    user_features: dict[str, tuple[str, FeatureSettings]] = {}
    context_features: dict[str, tuple[str, FeatureSettings]] = {}
    has_seed, history_last = False, 0
    for name, settings in feature_settings(config.query).items():
        table, column = feature_column(name, settings, config, side="query")
        if settings.kind in ("item", "items"):
            _refuse_other_than_role(name, settings.kind, column if table != "users" else "users", has_seed, history_last)
            has_seed, history_last = (True, history_last) if settings.kind == "item" else (has_seed, settings.last)
        elif table == "users":
            user_features[name] = (column, settings)
        else:
            context_features[name] = (column, settings)
    everything = np.ones(train_log.frame.height, bool)
    context = fit_encoder(context_features, train_log.frame, seen=everything)
    if users is None:
        return QueryEncoder(TableEncoder({}), context, has_seed, history_last)
    seen_users = np.zeros(len(users), bool)
    seen_rows = users.rows32_of(train_log.frame["user"])
    seen_users[seen_rows[seen_rows >= 0]] = True
    return QueryEncoder(fit_encoder(user_features, users.frame, seen=seen_users), context, has_seed, history_last)


def _refuse_other_than_role(name: str, kind: str, column: str, has_seed: bool, history_last: int) -> None:
    """Raise for an item feature that is neither the seed nor the history: a query has one of each, and no other."""
    role, is_double = ("seed", has_seed) if kind == "item" else ("history", history_last > 0)
    if column != role:
        raise ConfigError(
            f"query.features.{name} of kind {kind!r} must be the query's {role}: got column {column!r}; "
            f"set [columns] {role} to that column, or take the feature out"
        )
    if is_double:
        raise ConfigError(f"a query must have one feature of kind {kind!r}: got {name!r} as a second; take one out")


@dataclass(frozen=True)
class _Maker:
    """Makes examples of logs: what a query may know of the past from the whole log, everything else block by block."""

    config: Config
    items: Catalogue
    users: Catalogue | None
    encoder: QueryEncoder

    def examples(
        self, log: EventLog, item_row: NDArray[np.int32], remembered: NDArray[np.bool_] | None = None, *, folder: Path | None = None
    ) -> Examples:
        """One example an event, whose item has the row `item_row` (N,); memory-mapped from `folder`, if there is one."""
        made = GrowingArrays(folder)
        past = self._derived(log, item_row, remembered)
        blocks = list(row_blocks(len(log))) or [slice(0, 0)]
        for rows in blocks:
            self._append(made, log, rows, item_row, past)
        if past is not None:
            made.append("history_items", past[0])
            del past
        return _examples_of(made.finished())

    def _derived(self, log: EventLog, item_row: NDArray[np.int32], remembered: NDArray[np.bool_] | None) -> Histories | None:
        """What each user chose before, or, without times, what else whoever asks chose; a column of its own goes before."""
        if "history" in log.frame.columns:
            return None
        if "time" not in log.frame.columns:
            role = asking_role(log)
            if role is None or not self.encoder.history_last:
                return None
            return other_choices(user_order(log.frame[role]), item_row, len(self.items), remembered=remembered)
        if "user" not in log.frame.columns:
            return None
        in_order = self.config.columns.ties == "in_order"
        return histories_by_user(log.user_order, instants(log.frame["time"]), item_row, in_order=in_order, remembered=remembered)

    def _append(self, made: GrowingArrays, log: EventLog, rows: slice, item_row: NDArray[np.int32], past: Histories | None) -> None:
        """Nothing comes back: `made` holds the examples of one block more, the events `rows` of the log."""
        frame = log.frame[rows]
        try:
            queries = self.encoder.encode(frame, self.items, self.users)
        except DataError:
            self.encoder.encode(log.frame, self.items, self.users)  # raises as well, and counts rows from the first of the log
            raise
        if past is not None:
            queries = replace(queries, history_items=past[0], history_start=past[1][rows], history_end=past[2][rows])
            if self.encoder.has_seed and "time" in frame.columns:
                queries = queries.looking_at_newest(without_seed(frame))
        count = frame.height
        time = frame["time"].to_numpy() if "time" in frame.columns else np.zeros(count, np.int64)
        weight = frame["weight"].to_numpy() if "weight" in frame.columns else np.ones(count, np.float32)
        block = Examples(queries, item_row[rows], weight, time, _askers(frame)).arrays()
        if past is not None:
            del block["history_items"]  # of all blocks together
        for name, array in {name: _continued(made, name, array) for name, array in block.items()}.items():
            made.append(name, array)


def _continued(made: GrowingArrays, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The block of an array, positions counted from the beginning of all blocks: those of histories and of bags."""
    if name in ("history_start", "history_end"):
        return np.asarray(array + array.dtype.type(made.length("history_items")))
    if name.endswith(BAG_OFFSETS) and made.length(name):
        return np.asarray(array[1:] + made.length(name.replace(BAG_OFFSETS, BAG_VALUES)))
    return array


def _askers(frame: pl.DataFrame) -> NDArray[np.int64]:
    role = next((role for role in ("user", "seed") if role in frame.columns), None)
    if role is None:
        return np.full(frame.height, NONE_ROW, np.int64)
    return asker_numbers(frame[role])


def asker_numbers(ids: pl.Series) -> NDArray[np.int64]:
    """(n,) what `Examples.asker` calls each id: equal ids have equal numbers in all logs; -1 for a null."""
    numbers = (ids.hash(seed=0) // 2).cast(pl.Int64)  # never negative
    return pl.select(pl.when(ids.is_not_null()).then(numbers).otherwise(NONE_ROW)).to_series().to_numpy()


def _mentioned(log: EventLog, items: Catalogue) -> NDArray[np.bool_]:
    """(M,) items that the log names as seed or in a history."""
    mentioned = np.zeros(len(items), bool)
    columns = [log.frame["seed"]] if "seed" in log.frame.columns else []
    columns += [log.frame["history"].explode(empty_as_null=False, keep_nulls=False)] if "history" in log.frame.columns else []
    for column in columns:
        rows = items.rows_of(column.unique())
        mentioned[rows[rows >= 0]] = True
    return mentioned
