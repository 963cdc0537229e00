"""Log + catalogue + features -> training examples as arrays, memory-mapped once saved.

An example is a query and the item that was chosen. What a query knows of the past is derived here, strictly from
events before its own instant; with `ties = "in_order"`, from the rows above it in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.config import Config, FeatureSettings, feature_settings
from shortlist.errors import ConfigError
from shortlist.features.arrays import FeatureArray, columns_from_flat, flat_arrays
from shortlist.features.encoder import TableEncoder, fit_encoder
from shortlist.log import EventLog
from shortlist.project import Project, feature_column
from shortlist.protocols.split import Split
from shortlist.queries import NONE_ROW, Queries, QueryEncoder, without_seed


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
        """Writes one .npy file an array into `folder`, which is made; numbered, because the order of features is part of a model."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, array) in enumerate(self.arrays().items()):
            np.save(folder / f"{number:04d} {quote(name, safe=' ')}.npy", array, allow_pickle=False)

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
            **{f"context.{name}": array for name, array in flat_arrays(queries.context).items()},
        }


def open_examples(folder: Path) -> Examples:
    """The examples that `Examples.save` wrote, memory-mapped: opening costs nothing, rows are read as they are taken."""
    files = sorted(folder.glob("*.npy"))
    arrays = {unquote(path.stem.partition(" ")[2]): np.load(path, mmap_mode="r", allow_pickle=False) for path in files}
    prefix = "context."
    context = columns_from_flat({name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)})
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

    def encode_split(self, split: Split, config: Config) -> Examples:
        """The tested events of `split` as queries with their answers, encoded as in training."""
        examples = _examples(split.log, config, self.items, self.users, self.query_encoder, split.remembered)
        return examples.take(np.flatnonzero(split.test))


def make_dataset(project: Project, train_log: EventLog) -> Dataset:
    """The dataset of one training window. Only `train_log` is looked at for vocabularies, statistics and counts."""
    config, items, users = project.config, project.items, project.users
    item_rows = items.rows_of(train_log.frame["item"])
    chosen = np.zeros(len(items), bool)
    chosen[item_rows] = True
    item_encoder = fit_encoder(
        {
            name: (feature_column(name, settings, config, side="item").column, settings)
            for name, settings in feature_settings(config.item).items()
        },
        items.frame,
        seen=chosen | _mentioned(train_log, items),
        chosen=chosen,
    )
    return assemble_dataset(project, train_log, item_encoder, _fit_query_encoder(config, train_log, users))


def assemble_dataset(project: Project, train_log: EventLog, item_encoder: TableEncoder, query_encoder: QueryEncoder) -> Dataset:
    """The dataset of a window under encoders that were fitted elsewhere."""
    items, users = project.items, project.users
    train = _examples(train_log, project.config, items, users, query_encoder)
    return Dataset(
        item_encoder,
        query_encoder,
        items,
        users,
        item_encoder.encode(items.frame),
        query_encoder.user.encode_with_missing(users.frame) if users is not None else {},
        train,
        np.bincount(train.item_row, minlength=len(items)),
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
    seen_rows = users.rows_of(train_log.frame["user"])
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


def _examples(
    log: EventLog,
    config: Config,
    items: Catalogue,
    users: Catalogue | None,
    encoder: QueryEncoder,
    remembered: NDArray[np.bool_] | None = None,
) -> Examples:
    frame = log.frame
    count = frame.height
    item_row = items.rows_of(frame["item"]).astype(np.int32)
    time = frame["time"].to_numpy() if "time" in frame.columns else np.zeros(count, np.int64)
    queries = encoder.encode(frame, items, users)
    if "history" not in frame.columns and "user" in frame.columns and "time" in frame.columns:
        in_order = config.columns.ties == "in_order"
        histories, start, end = derived_histories(frame["user"], time, item_row, in_order=in_order, remembered=remembered)
        queries = replace(queries, history_items=histories, history_start=start, history_end=end)
        if encoder.has_seed:
            queries = queries.looking_at_newest(without_seed(frame))
    weight = frame["weight"].to_numpy() if "weight" in frame.columns else np.ones(count, np.float32)
    return Examples(queries, item_row, weight, time, _askers(frame))


def derived_histories(
    users: pl.Series,
    time: NDArray[np.int64],
    item_row: NDArray[np.int32],
    *,
    in_order: bool,
    remembered: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """(flat item rows, starts, ends): what each event's user chose before it, oldest first.

    Events come in time order. Events of one user at one instant do not see each other, unless `in_order`.
    Events without a user have no past. Events that are not `remembered` (None = all are) are in nobody's past.
    """
    count = len(item_row)
    user = _codes(users)
    order = np.lexsort((np.arange(count), time, user))  # by user, then time, then file
    user, moment = user[order], time[order]
    kept = np.ones(count, bool) if remembered is None else remembered[order]
    before = np.concatenate([[0], np.cumsum(kept)])  # (count + 1,) remembered events in front of each place
    place = np.arange(count)
    new_user = np.ones(count, bool)
    new_user[1:] = user[1:] != user[:-1]
    new_instant = new_user.copy()
    new_instant[1:] |= moment[1:] != moment[:-1]
    first_of_user = np.maximum.accumulate(np.where(new_user, place, 0))
    first_of_instant = np.maximum.accumulate(np.where(new_instant, place, 0))
    sees_until = np.where(user < 0, first_of_user, place if in_order else first_of_instant)
    start, end = np.zeros(count, np.int64), np.zeros(count, np.int64)
    start[order] = before[first_of_user]
    end[order] = before[sees_until]
    return item_row[order][kept], start, end


def _askers(frame: pl.DataFrame) -> NDArray[np.int64]:
    role = next((role for role in ("user", "seed") if role in frame.columns), None)
    if role is None:
        return np.full(frame.height, NONE_ROW, np.int64)
    return asker_numbers(frame[role])


def asker_numbers(ids: pl.Series) -> NDArray[np.int64]:
    """(n,) what `Examples.asker` calls each id: equal ids have equal numbers in all logs; -1 for a null."""
    numbers = (ids.hash(seed=0) // 2).cast(pl.Int64)  # never negative
    return pl.select(pl.when(ids.is_not_null()).then(numbers).otherwise(NONE_ROW)).to_series().to_numpy()


def _codes(values: pl.Series) -> NDArray[np.int64]:
    """(n,) equal values have equal numbers from 0; null is -1."""
    codes = values.rank("dense").cast(pl.Int64) - 1
    return codes.fill_null(-1).to_numpy()


def _mentioned(log: EventLog, items: Catalogue) -> NDArray[np.bool_]:
    """(M,) items that the log names as seed or in a history."""
    mentioned = np.zeros(len(items), bool)
    columns = [log.frame["seed"]] if "seed" in log.frame.columns else []
    columns += [log.frame["history"].explode(empty_as_null=False, keep_nulls=False)] if "history" in log.frame.columns else []
    for column in columns:
        rows = items.rows_of(column)
        mentioned[rows[rows >= 0]] = True
    return mentioned
