"""Retrieve -> filter -> rank: questions as a table in, lists of item ids out."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.bundle import Bundle, asking_column
from shortlist.errors import DataError
from shortlist.files import read_frame
from shortlist.queries import Queries

_ROLES = ("user", "seed", "history")
_BLOCK = 4096  # queries answered at a time
_KNOWN = "\x00known history"  # no file has such a column


def recommend(bundle: Bundle, questions: pl.DataFrame, k: int, *, exclude_seen: bool = False) -> pl.DataFrame:
    """One row a row of `questions`, in order: query_row (int64), items (list of ids, best first), scores (list of float32).

    questions     columns as in the events (user, seed, history as a list, context), by role or by their name there; any may
                  be missing or null. A known user without a history has the one that training ended with.
                  `exclude`: an optional list column of item ids to leave out; k results still come while k are eligible.
    exclude_seen  leave out the query's seed and history as well
    Raises        DataError for columns that contradict each other or are of the wrong type; ValueError for k < 1
    """
    frame = by_role(bundle, questions)
    _refuse_unfit(bundle, frame)
    frame = with_known_histories(bundle, frame)
    k = min(k, len(bundle.items)) if k >= 1 else k  # what is longer would be padding
    blocks = [_answer(bundle, frame.slice(start, _BLOCK), k, exclude_seen, start) for start in range(0, max(frame.height, 1), _BLOCK)]
    return pl.concat(blocks)


def read_questions(one: str | None, pattern: str | None) -> pl.DataFrame:
    """The questions as a table: `one` JSON object, or the tables that match `pattern`. Raises DataError for anything else."""
    if one is None:
        assert pattern is not None
        return read_frame(pattern, what="queries").frame
    try:
        question = msgspec.json.decode(one.encode(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise DataError(f'a query must be one JSON object, e.g. {{"user": 1}}: {error}; got {one!r}') from None
    columns = {}
    for name, value in (question or {"user": None}).items():  # {} asks nothing
        try:
            columns[name] = pl.Series(name, [value], strict=True)
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{name!r} of a query must be one value, or a list of values of one type: got {value!r} ({error})") from None
    return pl.DataFrame(columns)


def by_role(bundle: Bundle, questions: pl.DataFrame) -> pl.DataFrame:
    """The same table with the events' column names turned into roles (`user_id` -> `user`)."""
    columns = bundle.config.columns
    renamed = {}
    for role in _ROLES:
        name = getattr(columns, role)
        if name is None or name == role or name not in questions.columns:
            continue
        if role in questions.columns:
            raise DataError(f"the questions must name the {role} once: got columns {name!r} and {role!r}; drop one")
        renamed[name] = role
    return questions.rename(renamed)


def with_known_histories(bundle: Bundle, frame: pl.DataFrame) -> pl.DataFrame:
    """The table with missing histories of known users filled in; of known seeds, where the log had seeds that ask and no users."""
    asker = None if bundle.histories is None else asking_column(bundle.histories)
    if bundle.histories is None or asker not in frame.columns or frame[asker].dtype == pl.Null:
        return frame
    known = bundle.histories.rename({"history": _KNOWN})
    if known[asker].dtype != frame[asker].dtype:  # integers of another width, or categories: `_refuse_unfit` let nothing else pass
        frame = frame.with_columns(pl.col(asker).cast(known[asker].dtype, strict=False))
    frame = frame.join(known, on=asker, how="left", maintain_order="left")
    given = pl.col("history").cast(known[_KNOWN].dtype) if "history" in frame.columns else pl.lit(None)
    return frame.with_columns(pl.coalesce(given, pl.col(_KNOWN)).alias("history")).drop(_KNOWN)


def ids_from_text(bundle: Bundle, questions: pl.DataFrame) -> pl.DataFrame:
    """The questions of a CSV file, by role, with ids of the version's type: text says not whether 17 is a number or a name.

    Only numbers without leading zeros were read as such, so writing them back as strings loses nothing.
    """
    frame = by_role(bundle, questions)
    names = [
        role for role, dtype in _id_types(bundle).items() if role in frame.columns and frame[role].dtype == pl.Int64 and dtype == pl.String
    ]
    return frame.with_columns(pl.col(names).cast(pl.String)) if names else frame


def _id_types(bundle: Bundle) -> dict[str, pl.DataType]:
    """The type of the ids that each role holds, as far as the version knows."""
    types = {"seed": bundle.items.ids.dtype, "history": bundle.items.ids.dtype}
    histories, known_users = bundle.histories, None
    if bundle.users is not None:
        known_users = bundle.users.ids
    elif histories is not None and asking_column(histories) == "user":
        known_users = histories["user"]
    return types if known_users is None else {**types, "user": known_users.dtype}


def _refuse_unfit(bundle: Bundle, frame: pl.DataFrame) -> None:
    """Raise for ids of another type than the version's: 1.5 is no user 1, and "7" no item 7."""
    for role, dtype in _id_types(bundle).items():
        if role not in frame.columns or frame[role].dtype == pl.Null:
            continue
        got: pl.DataType = frame[role].dtype
        if role == "history":
            if not isinstance(got, (pl.List, pl.Array)):
                raise DataError(f"the history must be a list column: got {got}; write a list of item ids for each query")
            got = got.inner  # type: ignore[assignment]  # polars types it as the class or an instance
        fits = got == pl.Null or (got.is_integer() if dtype == pl.Int64 else got in (pl.String, pl.Categorical, pl.Enum))
        if not fits:
            raise DataError(f"{role} ids are {dtype} in version {bundle.name}: got {got}; convert them")
    asked = {*_ROLES, "exclude", *(feature.column for feature in bundle.query_encoder.context.features.values())}
    events = {name for role in (*_ROLES, "item", "time", "weight") if (name := getattr(bundle.config.columns, role))}
    if not set(frame.columns) & (asked | events):
        raise DataError(
            f"a query needs a column that version {bundle.name} knows: got {', '.join(map(repr, frame.columns)) or 'none'}; "
            f"it knows {', '.join(sorted(asked))}"
        )


def _answer(bundle: Bundle, frame: pl.DataFrame, k: int, exclude_seen: bool, first_row: int) -> pl.DataFrame:
    queries = bundle.query_encoder.encode(frame, bundle.items, bundle.users)
    rows, scores = bundle.index.search(bundle.encode_queries(queries), k, exclude=_excluded(bundle, frame, queries, exclude_seen))
    found = rows >= 0  # (n, k); what is padded stands at the end
    lengths = found.sum(axis=1)
    ids = bundle.items.ids.gather(pl.Series(rows[found]))
    return pl.DataFrame(
        {
            "query_row": np.arange(first_row, first_row + frame.height, dtype=np.int64),
            "items": _lists(ids, lengths),
            "scores": _lists(pl.Series(scores[found]), lengths),
        }
    )


def _excluded(bundle: Bundle, frame: pl.DataFrame, queries: Queries, exclude_seen: bool) -> list[NDArray[Any]] | None:
    named = "exclude" in frame.columns and frame["exclude"].dtype != pl.Null
    if not named and not exclude_seen:
        return None
    excluded: list[NDArray[Any]] = [np.zeros(0, np.int64) for _ in range(frame.height)]
    if named:
        if not isinstance(frame["exclude"].dtype, (pl.List, pl.Array)):
            raise DataError(f"column 'exclude' must be a list of item ids: got {frame['exclude'].dtype}; wrap each value in a list")
        flat = frame.select("exclude").with_row_index("query").explode("exclude", empty_as_null=False, keep_nulls=False)
        rows, query = bundle.items.rows_of(flat["exclude"]), flat["query"].to_numpy()
        bounds = np.searchsorted(query, np.arange(frame.height + 1))
        excluded = [rows[bounds[i] : bounds[i + 1]] for i in range(frame.height)]
    if exclude_seen:
        excluded = [
            np.concatenate([rows, queries.history(i), queries.seed_row[i : i + 1]]).astype(np.int64) for i, rows in enumerate(excluded)
        ]
    return excluded


def _lists(values: pl.Series, lengths: NDArray[np.integer]) -> pl.Series:
    """The values as one list a row, `lengths` of them each."""
    owner = pl.Series("row", np.repeat(np.arange(len(lengths)), lengths))
    grouped = pl.DataFrame({"row": owner, "value": values}).group_by("row", maintain_order=True).agg("value")
    every = pl.DataFrame({"row": np.arange(len(lengths))}).join(grouped, on="row", how="left", maintain_order="left")
    return every["value"].fill_null(pl.lit([], dtype=pl.List(values.dtype)))
