"""A project: log, items and users read and held against each other, and the features that its columns are used for.

The one place that sees all tables at once. What each table must be alone is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
import polars as pl

from shortlist.catalogue import Catalogue, read_items, read_users
from shortlist.config import config_tree
from shortlist.errors import ConfigError, DataError
from shortlist.files import counted, inner_type, nearest
from shortlist.log import ROLES, EventLog, read_events
from shortlist.repeats import repeats_of, with_seen_items
from shortlist.sections import CONTENT_KINDS, ColumnSettings, Config, FeatureKind, FeatureSettings, FeatureTable, feature_settings

Side = Literal["item", "query"]
Table = Literal["items", "users", "events", "derived"]
NOT_IN_ITEMS = "item not in the items table"
_OF_TABLES = ("bias", "bucket", "match", "output")  # NAME#bias is a table of the feature NAME
CATEGORY_SHARE = 0.05  # proposed: strings with at most this many distinct values per row are categories...
CATEGORY_VALUES = 10_000  # ...and at most this many
CATEGORY_INTEGERS = 50  # integers with at most this many distinct values are categories, others are numbers
FITTING = {
    "id": "a string, integer or boolean column",
    "category": "a string, integer or boolean column",
    "categories": "a list of strings or integers",
    "text": "a string column",
    "number": "a numeric or boolean column",
    "vector": "a list of floats of one length",
    "item": "item ids",
    "items": "a list of item ids",
}


class FeatureColumn(NamedTuple):
    """Where a feature's values come from. In "events" a role's column goes by its role; "derived" names seed or history."""

    table: Table
    column: str


@dataclass(frozen=True, eq=False)
class Project:
    """Everything a run starts from: tables that fit together, and settings without gaps.

    config       with features proposed where it named none, and `evaluate.seen_items` set
    log          the events kept; all their items are in `items`
    left_out     events left out, by reason
    facts        what the tables are like, for printing; counted when somebody asks, which takes as long as reading a large log
    proposed     were features of either side proposed?
    """

    config: Config
    log: EventLog
    items: Catalogue
    users: Catalogue | None
    left_out: dict[str, int]
    facts: Mapping[str, object]
    proposed: bool


class CountedWhenAsked(Mapping[str, object]):
    """Facts that are counted once, when the first of them is looked up."""

    def __init__(self, count: Callable[[], dict[str, object]]) -> None:
        self._count = count

    @cached_property
    def _counted(self) -> dict[str, object]:
        return self._count()

    def __getitem__(self, fact: str) -> object:
        return self._counted[fact]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counted)

    def __len__(self) -> int:
        return len(self._counted)


def open_project(config: Config) -> Project:
    """The tables of `config`, checked alone and together, with features proposed for a side that names none.

    What else of the settings follows from the log is set as well: may lists hold what a query knows (repeats.py)?

    Raises DataError naming file, column and row; ConfigError for a feature without a column, or of a kind its column does not fit.
    """
    read = read_events(config)
    items = read_items(config, read)
    users = read_users(config, read)
    log = _with_known_items(config, read, items)
    with_features = propose_features(log, items, users, config)
    complete = with_seen_items(with_features, log)
    _check_features(complete, log, items, users)
    unknown_items = _unknown_items(read, items) if log is not read else 0

    def count() -> dict[str, object]:
        across = _facts_across(log, items, users, unknown_items)
        unused = {"columns_not_used": _columns_not_used(complete, log, items, users)}
        return {**log.facts, **across, **_facts_of_repeats(log), "seen_items": complete.evaluate.seen_items, **unused}

    return Project(complete, log, items, users, log.left_out, CountedWhenAsked(count), proposed=with_features != config)


def propose_features(log: EventLog, items: Catalogue, users: Catalogue | None, config: Config) -> Config:
    """The config with features for each side that has none, chosen by the columns' types and number of distinct values.

    Items: the id, and every column by its type. Queries: seed and history (columns or derived), the users' and the context columns
    by their types; the user's id where there are no times. Columns of other types (dates, ...) are not used.
    """
    item, query = dict(config.item.features), dict(config.query.features)
    if not item:
        item = {items.id_column: "id", **dict(_by_type(items.frame.drop(items.id_column), ""))}
    if not query:
        query = _proposed_query(log, users, config)
    return msgspec.structs.replace(config, item=FeatureTable(features=item), query=FeatureTable(features=query))


def feature_column(name: str, settings: FeatureSettings, config: Config, *, side: Side) -> FeatureColumn:
    """The table and column that a feature is made from.

    Items: the column of that name. Queries: `users.X`, `events.X` or plain X (a context column, or a role by its role's or its
    column's name); `seed` of kind item and `history` of kind items are derived from the user's earlier events where no column
    plays them; in a log without times the history is what else the user, or the seed, chose. Raises ConfigError for what cannot
    be derived, and for the item, time or weight of the event itself.
    """
    wanted = settings.column or name
    if side == "item":
        return FeatureColumn("items", wanted)
    prefix, dot, rest = wanted.partition(".")
    if dot and prefix == "users":
        return FeatureColumn("users", rest)
    column = rest if dot and prefix == "events" else wanted
    role_of = {getattr(config.columns, role): role for role in ROLES if getattr(config.columns, role) is not None}
    role = role_of.get(column, column)
    if role in role_of.values():
        _refuse_answer(name, role)
        return FeatureColumn("events", role)
    if (role, settings.kind) in (("seed", "item"), ("history", "items")):
        _refuse_underivable(name, role, config)
        return FeatureColumn("derived", role)
    return FeatureColumn("events", column)


def content_columns(config: Config) -> tuple[tuple[str, str], ...]:
    """(column of the items table, how it is read: "text", "category" or "categories"): what the catalogue says of items."""
    features = feature_settings(config.item).items()
    said = [(feature_column(name, one, config, side="item").column, one.kind) for name, one in features if one.kind in CONTENT_KINDS]
    return tuple(dict.fromkeys(said))


def describe(project: Project) -> dict[str, object]:
    """What `shortlist check` prints, as plain values: tables, events left out by reason, facts, features by side."""
    config, users = project.config, project.users
    return {
        "events": {"source": project.log.source, "rows": len(project.log), "columns": dict(project.log.column_of)},
        "items": {"source": project.items.source, "rows": len(project.items), "id": project.items.id_column},
        "users": None if users is None else {"source": users.source, "rows": len(users), "id": users.id_column},
        "left_out": dict(project.left_out),
        "facts": dict(project.facts),
        "features_proposed": project.proposed,
        "features": {"item": list(_described(config, "item")), "query": list(_described(config, "query"))},
        "settings": config_tree(config),
    }


def _with_known_items(config: Config, log: EventLog, items: Catalogue) -> EventLog:
    unknown = pl.Series(items.rows32_of(log.frame["item"]) < 0)
    rows = unknown.arg_true()
    if not len(rows):
        return log
    first = int(rows[0])
    example = f"{log.frame['item'][first]!r} in {log.place(first)}"
    if config.data.unknown_items == "error":
        raise DataError(
            f"every event's item must be in {items.source}: got {example} ({counted(len(rows), 'such row')}); "
            'add the items, or set data.unknown_items = "leave_out"'
        )
    if len(rows) == len(log):
        raise DataError(
            f"no event is left: none of the items of {log.source} is in {items.source}: got {example}, where {items.id_column!r} holds "
            f"{items.ids[0]!r}; are these the same ids?"
        )
    return log.leave_out(unknown, NOT_IN_ITEMS)


def _unknown_items(read: EventLog, items: Catalogue) -> int:
    """How many distinct items of the log are not in the items table."""
    return int((items.rows32_of(read.frame["item"].unique()) < 0).sum())


def _by_type(frame: pl.DataFrame, prefix: str) -> Iterator[tuple[str, str | FeatureSettings]]:
    """A feature for every column whose type says how to use it."""
    for name in frame.columns:
        kind = _proposed_kind(frame[name])
        if kind is not None:
            yield prefix + name, kind


def _proposed_kind(series: pl.Series) -> FeatureKind | None:
    dtype, inner = series.dtype, inner_type(series.dtype)
    if series.null_count() == len(series):
        return None
    if dtype == pl.Boolean:
        return "category"
    if dtype == pl.String:
        distinct = series.drop_nulls().n_unique()
        return "category" if distinct <= min(CATEGORY_SHARE * len(series), CATEGORY_VALUES) else "text"
    if dtype.is_integer():
        return "category" if series.drop_nulls().n_unique() <= CATEGORY_INTEGERS else "number"
    if dtype.is_numeric():
        return "number"
    if inner is not None and (inner == pl.String or inner.is_integer()):
        return "categories"
    if inner is not None and inner.is_float() and not _uneven(series).any():
        return "vector"
    return None


def _proposed_query(log: EventLog, users: Catalogue | None, config: Config) -> dict[str, str | FeatureSettings]:
    columns = config.columns
    derivable = columns.user is not None and columns.time is not None
    query: dict[str, str | FeatureSettings] = {}
    if columns.seed is not None or derivable:
        query["seed"] = "item"
    if columns.history is not None or derivable or derives_other_choices(columns):
        query["history"] = "items"
    if columns.user is not None and not derivable and columns.history is None:
        query[columns.user] = "id"
    if users is not None:
        query.update(_by_type(users.frame.drop(users.id_column), "users."))
    query.update(_by_type(log.frame.select(log.context), "events."))
    if not query:
        raise ConfigError(f"a query needs a feature: no column of {log.source} could be used; name them under [query.features]")
    return query


def _refuse_answer(name: str, role: str) -> None:
    reason = {
        "item": "the chosen item is the answer, not the question",
        "weight": "the reward is known only after the choice",
        "time": "a model does not know times it was not trained on; make a context column such as the hour",
    }
    if role in reason:
        raise ConfigError(f"query.features.{name} must not use the event's {role}: {reason[role]}; take it out")


def _refuse_underivable(name: str, role: str, config: Config) -> None:
    if role == "history" and derives_other_choices(config.columns):
        return
    missing = [role for role in ("user", "time") if getattr(config.columns, role) is None]
    if missing:
        raise ConfigError(
            f"query.features.{name} is derived from the user's earlier events, which needs the roles user and time: "
            f"got no {' and no '.join(missing)}; name [columns] {' and '.join(missing)}, or a column that holds it"
        )


def derives_other_choices(columns: ColumnSettings) -> bool:
    """Can a history be what else the same user, or the same seed, chose? In logs without times."""
    return columns.time is None and columns.history is None and (columns.user is not None or columns.seed is not None)


def _check_features(config: Config, log: EventLog, items: Catalogue, users: Catalogue | None) -> None:
    """Raise for a feature with a name that a table beside it has, or whose column is missing or does not fit its kind."""
    for side, name, settings, (table, column) in _features(config):
        where = f"{side}.features.{name}"
        before, mark, after = name.rpartition("#")
        if mark and (not before or after in _OF_TABLES):
            ends = ", ".join(f"#{end}" for end in _OF_TABLES)
            raise ConfigError(
                f"{where} must not begin with '#' or end with one of {ends}: tables of a model are called so; give the feature another "
                f"name under [{side}.features], with column = {column!r}"
            )
        if table == "derived":
            continue
        source: EventLog | Catalogue = log
        if table == "items":
            source = items
        elif table == "users":
            if users is None:
                raise ConfigError(f"{where} needs the users table: got no [data] users; name it, or take the feature out")
            source = users
        _check_feature(where, settings, column, source, items)


def _check_feature(where: str, settings: FeatureSettings, column: str, source: EventLog | Catalogue, items: Catalogue) -> None:
    if column not in source.frame.columns:
        known = [name for name in source.frame.columns if name not in ("item", "time", "weight")]
        raise ConfigError(
            f"{where} must name a column of {source.source}: got {column!r}; nearest is {nearest(column, known)!r}; "
            f"columns are {', '.join(map(repr, known))}"
        )
    series = source.frame[column]
    if not _fits(settings.kind, series.dtype, items.ids.dtype):
        instead = _proposed_kind(series)
        fix = f"use kind {instead!r}" if instead and instead != settings.kind else "convert the column, or take the feature out"
        raise ConfigError(
            f"{where} of kind {settings.kind!r} needs {_needed(settings.kind, items)}: column {column!r} of {source.source} "
            f"is {series.dtype}; {fix}"
        )
    if settings.kind == "vector" and (uneven := _uneven(series).arg_true()).len():
        row = int(uneven[0])
        raise DataError(
            f"{source.place(row)}: column {column!r} must hold vectors of one length without nulls: got {len(series[row])} values, "
            f"{series[row].null_count()} of them null ({counted(len(uneven), 'such row')}; most have {_usual_length(series)}); "
            "write null where there is no vector"
        )


def _fits(kind: FeatureKind, dtype: pl.DataType, item_id: pl.DataType) -> bool:
    inner = inner_type(dtype)
    if kind in ("id", "category"):
        return dtype == pl.String or dtype.is_integer() or dtype == pl.Boolean
    if kind == "categories":
        return inner is not None and (inner == pl.String or inner.is_integer())
    if kind == "text":
        return dtype == pl.String
    if kind == "number":
        return dtype.is_numeric() or dtype == pl.Boolean
    if kind == "vector":
        return inner is not None and inner.is_float()
    ids = dtype if kind == "item" else inner
    return ids is not None and (ids == item_id or (ids.is_integer() and item_id.is_integer()))


def _needed(kind: FeatureKind, items: Catalogue) -> str:
    return f"{FITTING[kind]} ({items.ids.dtype} as in {items.source})" if kind in ("item", "items") else FITTING[kind]


def _lengths(series: pl.Series) -> pl.Series:
    return series.arr.to_list().list.len() if isinstance(series.dtype, pl.Array) else series.list.len()


def _usual_length(series: pl.Series) -> int:
    usual = _lengths(series).drop_nulls().mode(maintain_order=True)
    return int(usual[0]) if len(usual) else 0


def _uneven(series: pl.Series) -> pl.Series:
    """Which lists differ from the usual length, are empty, or hold a null. A null list is a missing vector."""
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    wrong = (_lengths(series) != max(_usual_length(series), 1)) | lists.list.eval(pl.element().is_null()).list.any()
    return wrong.fill_null(False)


def _facts_across(log: EventLog, items: Catalogue, users: Catalogue | None, unknown_items: int) -> dict[str, object]:
    """What shows only when the tables are held against each other."""
    chosen = items.rows_of(log.frame["item"].unique())
    facts: dict[str, object] = {"items_without_event": len(items) - int((chosen >= 0).sum())}
    if log.left_out:
        facts["unknown_items"] = unknown_items
    if "seed" in log.frame.columns:
        facts["rows_with_unknown_seed"] = _unknown(items, log.frame["seed"])
    if "history" in log.frame.columns:
        entries = log.frame["history"].explode(empty_as_null=False, keep_nulls=False)
        facts["unknown_history_entries"] = _unknown(items, entries)
    if users is not None:
        facts["users_without_row"] = _unknown(users, log.frame["user"].unique())
        facts["users_without_event"] = len(users) - int((users.rows_of(log.frame["user"].unique()) >= 0).sum())
    return facts


def _facts_of_repeats(log: EventLog) -> dict[str, object]:
    """What says whether lists may hold what a query knows; a share that the log does not show is absent."""
    found = repeats_of(log)
    named = {"share_chosen_again": found.of_any, "share_choosing_their_seed": found.of_seed}
    return {name: f"{share:.1%}" for name, share in named.items() if share is not None}


def _unknown(catalogue: Catalogue, ids: pl.Series) -> int:
    known = ids.drop_nulls()
    return int((catalogue.rows_of(known) < 0).sum())


def _features(config: Config) -> Iterator[tuple[Side, str, FeatureSettings, FeatureColumn]]:
    sides: tuple[tuple[Side, FeatureTable], ...] = (("item", config.item), ("query", config.query))
    for side, table in sides:
        for name, settings in feature_settings(table).items():
            yield side, name, settings, feature_column(name, settings, config, side=side)


def _columns_not_used(config: Config, log: EventLog, items: Catalogue, users: Catalogue | None) -> dict[str, str]:
    """The types of the columns that no feature reads, by "table.column"."""
    used = {(table, column) for _, _, _, (table, column) in _features(config)}
    frames: list[tuple[Table, pl.DataFrame]] = [("items", items.frame.drop(items.id_column)), ("events", log.frame.select(log.context))]
    if users is not None:
        frames.append(("users", users.frame.drop(users.id_column)))
    return {f"{table}.{name}": str(dtype) for table, frame in frames for name, dtype in frame.schema.items() if (table, name) not in used}


def _described(config: Config, wanted: Side) -> Iterator[dict[str, str]]:
    for side, name, settings, (table, column) in _features(config):
        if side == wanted:
            yield {"name": name, "kind": settings.kind, "table": table, "column": column}
