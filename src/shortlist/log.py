"""The event table: one row per choice, its columns called by their roles, sorted by time.

The only file that reads raw event columns. It leaves no event out: what breaks a rule is an error naming file, column and row.
Whether items are known is project.py's matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from shortlist.errors import ConfigError, DataError
from shortlist.files import Places, SourceFrame, counted, inner_type, read_frame
from shortlist.instants import as_text
from shortlist.sections import ColumnSettings, Config
from shortlist.times import read_time
from shortlist.user_order import UserOrder, user_order

ROLES = ("item", "user", "seed", "history", "time", "weight")


@dataclass(frozen=True, eq=False)
class EventLog:
    """Events by time, then by their order in the file.

    frame        item; user, seed, history (list), time (Int64, microseconds since 1970 UTC), weight (Float32) where the log has
                 them; then the context columns under their own names
    places       the file and row of each event
    source       the pattern the events were read from
    column_of    the name in the file of each role's column
    left_out     events left out, by reason
    read_facts   what was seen while reading
    """

    frame: pl.DataFrame
    places: Places
    source: str
    column_of: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)
    read_facts: dict[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def context(self) -> list[str]:
        """The context columns: all that play no role."""
        return [name for name in self.frame.columns if name not in ROLES]

    @cached_property
    def facts(self) -> dict[str, object]:
        """What the events are like, for printing; a fact that does not apply is absent."""
        return {**_facts(self.frame), **self.read_facts}

    @property
    def span(self) -> dict[str, str]:
        """The first and the last time, for people; empty where the log has no times."""
        return _span(self.frame)

    @cached_property
    def user_order(self) -> UserOrder:
        """The events user after user. Raises ConfigError where the log has no users."""
        if "user" not in self.frame.columns:
            raise ConfigError(f"an order by user needs users: {self.source} has no user role; name [columns] user")
        return user_order(self.frame["user"])

    def place(self, row: int) -> str:
        """Where an event stands in the user's files, e.g. "events-2.csv row 17"."""
        return self.places.of(row)

    def between(self, start_us: int, end_us: int) -> EventLog:
        """The events with start_us <= time < end_us (microseconds since 1970 UTC). Raises ConfigError where the log has no times."""
        if "time" not in self.frame.columns:
            raise ConfigError(f"splitting by time needs times: {self.source} has no time role; name [columns] time")
        start, end = (int(self.frame["time"].search_sorted(edge)) for edge in (start_us, end_us))
        end = max(start, end)
        return replace(self, frame=self.frame.slice(start, end - start), places=self.places.cut(start, end))

    def leave_out(self, rows: pl.Series, reason: str) -> EventLog:
        """The log without the events where the boolean `rows` is true, counted under `reason`."""
        kept = (~rows).arg_true().cast(pl.Int64).to_numpy()
        count = len(self) - len(kept)
        if not count:
            return self
        left_out = {**self.left_out, reason: self.left_out.get(reason, 0) + count}
        return replace(self, frame=self.frame[kept], places=self.places.take(kept), left_out=left_out)


def asking_role(log: EventLog) -> str | None:
    """The role that asks: "user", else "seed"; None where the log has neither."""
    return next((role for role in ("user", "seed") if role in log.frame.columns), None)


def read_events(config: Config) -> EventLog:
    """The events of `data.events`, checked, by role, sorted by time.

    Raises DataError naming file, column and row (or the nearest column), ConfigError where no column asks the query.
    """
    source = read_frame(config.data.events, what="events")
    column_of = _roles(config.columns)
    for role, name in column_of.items():
        source.column(name, role)
    context = [name for name in source.frame.columns if name not in column_of.values()]
    _refuse_colliding_names(source, column_of, context)
    columns = {role: _read_role(source, role, name) for role, name in column_of.items() if role != "time"}
    _refuse_other_id_types(source, column_of, columns)
    source.refuse_non_finite(context)
    facts: dict[str, object] = {}
    if "time" in column_of:
        columns["time"], facts = read_time(source, column_of["time"])
    frame = pl.DataFrame([columns[role].alias(role) for role in ROLES if role in columns] + [source.frame[name] for name in context])
    _refuse_events_without_query(source, frame, context)
    places = source.places
    if "time" in columns:
        frame, places, facts["rows_out_of_order"] = _sorted_by_time(frame, places)
    return EventLog(frame, places, source.source, column_of, {}, facts)


def read_ids(source: SourceFrame, name: str, role: str, *, nulls: bool = False) -> pl.Series:
    """The id column as String or Int64, values as they came. Raises DataError for other types, or for a null unless `nulls`."""
    series = source.column(name, role)
    if series.dtype == pl.Null:
        series = series.cast(pl.String)
    _refuse_other_than_ids(source, name, role, series.dtype)
    if not nulls:
        source.refuse(name, series.is_null(), f"plays the role {role} and must have a value in every row", "fill it in or drop the row")
    if series.dtype == pl.String:
        return series
    numbers = series.cast(pl.Int64, strict=False)
    source.refuse(name, numbers.is_null() & series.is_not_null(), "must fit signed 64-bit integers", "write the ids as strings")
    return numbers


def _roles(columns: ColumnSettings) -> dict[str, str]:
    """The file's column name by role. Raises ConfigError if one column plays two roles."""
    named = {role: getattr(columns, role) for role in ROLES}
    column_of = {role: name for role, name in named.items() if name is not None}
    for role, name in column_of.items():
        other = next(first for first, taken in column_of.items() if taken == name)
        if other != role:
            raise ConfigError(f"[columns] a column must play one role: got {name!r} for {other} and {role}; copy the column or drop a role")
    return column_of


def _refuse_colliding_names(source: SourceFrame, column_of: dict[str, str], context: list[str]) -> None:
    for name in context:
        if name in ROLES:
            asked = f"[columns] {name} = {column_of[name]!r}" if name in column_of else f"[columns] {name} is not set"
            raise DataError(
                f"{source.source}: column {name!r} is called like a role but does not play it ({asked}); "
                f"rename the column, or set [columns] {name} = {name!r}"
            )


def _read_role(source: SourceFrame, role: str, name: str) -> pl.Series:
    if role == "history":
        return _read_history(source, name)
    if role == "weight":
        return _read_weight(source, name)
    return read_ids(source, name, role, nulls=role != "item")


def _refuse_other_than_ids(source: SourceFrame, name: str, role: str, dtype: pl.DataType) -> None:
    if dtype == pl.String or dtype.is_integer():
        return
    fix = "write it as strings or integers"
    if dtype.is_float():
        fix = "integers beside a missing value are often written as 1.0: write nullable integers (pandas: astype('Int64')) or strings"
    raise DataError(f"{source.source}: column {name!r} plays the role {role} and must hold string or integer ids: got {dtype}; {fix}")


def _read_history(source: SourceFrame, name: str) -> pl.Series:
    series = source.column(name, "history")
    inner = inner_type(series.dtype)
    if inner is None:
        rule = "plays the role history and must be a list of ids"
        raise DataError(f"{source.source}: column {name!r} {rule}: got {series.dtype}; write lists in Parquet or Arrow")
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    if inner == pl.Null:
        inner = pl.String()
    _refuse_other_than_ids(source, name, "history", inner)
    source.refuse(name, lists.list.eval(pl.element().is_null()).list.any(), "must not hold nulls inside a list", "drop them from the list")
    if inner == pl.String:
        return lists.cast(pl.List(pl.String))
    numbers = lists.cast(pl.List(pl.Int64), strict=False)
    source.refuse(name, numbers.list.eval(pl.element().is_null()).list.any(), "must fit signed 64-bit integers", "write the ids as strings")
    return numbers


def _read_weight(source: SourceFrame, name: str) -> pl.Series:
    series = source.column(name, "weight")
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise DataError(f"{source.source}: column {name!r} plays the role weight and must hold numbers: got {series.dtype}; convert it")
    weight = series.cast(pl.Float64).cast(pl.Float32, strict=False)
    bad = weight.is_null() | ~weight.is_finite() | (weight < 0)
    source.refuse(name, bad, "plays the role weight and must be a finite number of 0 or more", "correct it, or drop the row")
    return weight


def _refuse_other_id_types(source: SourceFrame, column_of: dict[str, str], columns: dict[str, pl.Series]) -> None:
    """Seeds and histories name items: their ids must have the items' type."""
    item = columns["item"].dtype
    for role in ("seed", "history"):
        if role not in columns:
            continue
        if columns[role].null_count() == len(columns[role]):
            columns[role] = columns[role].cast(item if role == "seed" else pl.List(item))
        dtype = columns[role].dtype
        if (inner_type(dtype) or dtype) != item:
            raise DataError(
                f"{source.source}: {role} {column_of[role]!r} must hold ids of the type of item {column_of['item']!r}: "
                f"got {dtype} and {item}; write both as strings or both as integers"
            )


def _refuse_events_without_query(source: SourceFrame, frame: pl.DataFrame, context: list[str]) -> None:
    asking = [role for role in ("user", "seed", "history") if role in frame.columns]
    if not asking and not context:
        raise ConfigError(
            f"an event needs a query: {source.source} has neither user, seed nor any context column; name [columns] user or seed "
            f"(columns are {', '.join(map(repr, source.frame.columns))})"
        )
    if context:
        return
    empty = frame.select(pl.all_horizontal(pl.col(asking).is_null())).to_series().arg_true()
    if len(empty):
        raise DataError(
            f"{source.place(int(empty[0]))}: an event must have a value of {' or '.join(asking)}, since there is no context column: "
            f"got nothing ({counted(len(empty), 'such row')}); fill it in or drop the row"
        )


def _sorted_by_time(frame: pl.DataFrame, places: Places) -> tuple[pl.DataFrame, Places, int]:
    time = frame["time"].to_numpy()
    out_of_order = int(np.count_nonzero(time[1:] < time[:-1]))
    if not out_of_order:
        return frame, places, 0
    order: npt.NDArray[np.int64] = np.argsort(time, kind="stable").astype(np.int64, copy=False)
    return frame[order], places.take(order), out_of_order


def _facts(frame: pl.DataFrame) -> dict[str, object]:
    """What can be counted on the events themselves."""
    facts: dict[str, object] = {"rows": frame.height}
    facts["items"] = frame["item"].n_unique()
    if "user" in frame.columns:
        facts["users"] = frame["user"].drop_nulls().n_unique()
        facts["rows_without_user"] = frame["user"].null_count()
    if "seed" in frame.columns:
        facts["rows_without_seed"] = frame["seed"].null_count()
    if "weight" in frame.columns:
        facts["rows_of_weight_0"] = int((frame["weight"] == 0).sum())
    facts |= _span(frame)
    crowded = _at_shared_instants(frame)
    if "user" in frame.columns and "time" in frame.columns:
        facts["rows_sharing_an_instant"] = _in_groups(crowded.drop_nulls("user"), ["user", "time"])
    same = [role for role in ("user", "seed", "time", "item") if role in frame.columns]
    facts["repeated_rows"] = crowded.height - crowded.select(same).n_unique()
    return facts


def _span(frame: pl.DataFrame) -> dict[str, str]:
    if "time" not in frame.columns or not frame.height:
        return {}
    return {"first_time": as_text(int(frame["time"][0])), "last_time": as_text(int(frame["time"][-1]))}


def _at_shared_instants(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not alone at their time: few, as a rule, and the only ones that can repeat another. All, without times."""
    if "time" not in frame.columns:
        return frame
    same_as_above = (pl.col("time") == pl.col("time").shift(1)).fill_null(False)
    return frame.filter(same_as_above | same_as_above.shift(-1).fill_null(False))


def _in_groups(frame: pl.DataFrame, by: list[str]) -> int:
    """How many rows share their values of `by` with another row."""
    return int(frame.lazy().group_by(by).len().filter(pl.col("len") > 1).select(pl.col("len").sum()).collect().item())
