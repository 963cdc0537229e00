"""The item and user tables: one row per id, in the order of the ids. The item table is the corpus, chosen from or not.

Rows are dense: row r of the frame is row r of every array made from it, and a tie by row is a tie by id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shortlist.errors import ConfigError, DataError
from shortlist.files import Places, SourceFrame, counted, read_frame
from shortlist.id_places import places_among
from shortlist.log import EventLog, read_ids
from shortlist.parquet_steps import joined, read_in_steps
from shortlist.sections import Config

SHOWN = 3  # examples in a message


@dataclass(frozen=True, eq=False)
class Catalogue:
    """One row per id, ascending: strings by their UTF-8 bytes, integers by value.

    frame       all columns of the table; `id_column` is String or Int64, unique, without nulls
    source      the pattern it was read from
    places      the file and row of each row; None where the rows were not read from a table of their own
    """

    frame: pl.DataFrame
    id_column: str
    source: str
    places: Places | None = None

    def __len__(self) -> int:
        return self.frame.height

    @property
    def ids(self) -> pl.Series:
        """The ids by row."""
        return self.frame[self.id_column]

    def place(self, row: int) -> str:
        """Where a row stands in the user's files, e.g. "items.csv row 17"."""
        return f"{self.source}, {self.id_column} {self.ids[row]!r}" if self.places is None else self.places.of(row)

    def rows_of(self, ids: pl.Series) -> npt.NDArray[np.int64]:
        """The dense row of each id, -1 for an unknown id or a null. Raises DataError if the ids are not of the catalogue's type."""
        return self.rows32_of(ids).astype(np.int64)

    def rows32_of(self, ids: pl.Series) -> npt.NDArray[np.int32]:
        """The same rows in half the memory, for whole logs."""
        return places_among(self.ids, self._of_own_type(ids))

    def row_of(self, item_id: object) -> int:
        """The dense row of one id, -1 if it is unknown (as an id of another type is)."""
        known_type = str if self.ids.dtype == pl.String else Integral
        is_id = isinstance(item_id, known_type) and not isinstance(item_id, bool)  # True equals 1, and would find it
        return self._row_by_id.get(item_id, -1) if is_id else -1

    @cached_property
    def _row_by_id(self) -> Mapping[object, int]:
        return {item_id: row for row, item_id in enumerate(self.ids.to_list())}

    def _of_own_type(self, ids: pl.Series) -> pl.Series:
        dtype = self.ids.dtype
        if ids.dtype == dtype or ids.dtype == pl.Null:
            return ids.cast(dtype)
        if dtype == pl.String and isinstance(ids.dtype, (pl.Categorical, pl.Enum)):
            return ids.cast(pl.String)
        if dtype == pl.Int64 and ids.dtype.is_integer():
            return ids.cast(pl.Int64, strict=False)  # what does not fit is unknown
        raise DataError(f"ids of {self.source} are {dtype}: got {ids.name!r} of {ids.dtype}; convert it")


def read_catalogue(path: str, id_column: str, *, what: str = "items") -> Catalogue:
    """The table in a file, folder or glob, checked and sorted by id; any snapshot of a corpus will do.

    Raises DataError: no such column (naming the nearest), an id that is null, double, or neither string nor integer, NaN or
    infinity in a column of floats or of float lists. All name file and row.
    """
    source = read_frame(path, what=what)
    ids = read_ids(source, id_column, "id")
    source.refuse_non_finite(source.frame.columns)
    frame, places = source.frame.with_columns(ids.alias(id_column)), source.places
    if not frame[id_column].is_sorted():  # a published table is, and is not copied
        order = frame[id_column].arg_sort().cast(pl.Int64).to_numpy()
        frame, places = frame[order], places.take(order)
    frame = frame.with_columns(pl.col(id_column).set_sorted())
    _refuse_double_ids(frame[id_column], places, source)
    return Catalogue(frame, id_column, path, places)


def open_catalogue(path: Path, id_column: str) -> Catalogue:
    """The table that a catalogue's frame was written to, in the order of its ids: read and checked in steps beside requests (pace.py).

    Raises DataError for what no catalogue is written as.
    """
    blocks: list[pl.DataFrame] = []
    rows, last = 0, None
    try:
        for block in read_in_steps(path):
            ids = block[id_column] if id_column in block.columns else pl.Series(dtype=pl.Null)
            are_ids = ids.dtype in (pl.String, pl.Int64) and not ids.null_count()
            if not are_ids or not (ids[1:] > ids[:-1]).all() or (last is not None and ids[0] <= last):
                rule = f"must hold rising ids in column {id_column!r}, none twice, none null"
                raise DataError(f"{path} {rule}: got {ids.dtype}; write it again")
            SourceFrame(block, Places((path.name,), (0,), first=rows), "items", str(path)).refuse_non_finite(block.columns)
            blocks.append(block)
            rows, last = rows + block.height, ids[-1] if block.height else None
        frame = joined(blocks)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DataError(f"{path} is truncated or not a Parquet file ({str(error).splitlines()[0][:200]}); write or copy it again") from None
    return Catalogue(frame.with_columns(pl.col(id_column).set_sorted()), id_column, str(path))


def read_items(config: Config, log: EventLog | None) -> Catalogue:
    """The corpus: the items table, or every item of the log where there is no table.

    log      checked for ids of another type; None where there is none to compare with
    Raises   DataError as `read_catalogue` does, and for ids of another type than the log's
    """
    columns = config.columns
    if config.data.items is None:
        if log is None:
            raise ConfigError("a corpus needs [data] items or a log: got neither; name the items table")
        ids = log.frame["item"].unique().sort().alias(columns.item)
        return Catalogue(ids.to_frame(), columns.item, log.source)
    items = read_catalogue(config.data.items, columns.item_id or columns.item)
    if log is not None:
        _refuse_other_type(items, log, "item")
    return items


def read_users(config: Config, log: EventLog | None = None) -> Catalogue | None:
    """The users table; None where there is none. Raises as `read_items` does; ConfigError if no column of the log names users."""
    if config.data.users is None:
        return None
    user_id = config.columns.user_id or config.columns.user
    if user_id is None or config.columns.user is None:
        raise ConfigError(f"[data] users = {config.data.users!r} needs the log's user column: name [columns] user, or leave users out")
    users = read_catalogue(config.data.users, user_id, what="users")
    if log is not None:
        _refuse_other_type(users, log, "user")
    return users


def _refuse_double_ids(ids: pl.Series, places: Places, source: SourceFrame) -> None:
    """Raise for ids that stand twice. `ids` are sorted, equal ones in no certain order."""
    double = (ids == ids.shift(1)).fill_null(False).arg_true()
    if not len(double):
        return
    examples = []
    file_rows = np.arange(len(ids)) if places.rows is None else places.rows
    for value in ids[double].unique(maintain_order=True).head(SHOWN):
        rows = (ids == value).arg_true().to_numpy()
        in_file = rows[np.argsort(file_rows[rows])][:SHOWN]
        examples.append(f"{value!r} in {' and '.join(places.of(int(row)) for row in in_file)}")
    got = f"{counted(len(double), 'double row')} ({'; '.join(examples)})"
    raise DataError(f"{source.what} must have one row per id in {ids.name!r}: got {got}; keep one of each")


def _refuse_other_type(catalogue: Catalogue, log: EventLog, role: str) -> None:
    if role not in log.frame.columns or log.frame[role].null_count() == len(log):
        return
    theirs, ours = log.frame[role].dtype, catalogue.ids.dtype
    if theirs != ours:
        raise DataError(
            f"{role} ids must be of one type: got {ours} in {catalogue.source} ({catalogue.id_column!r}, e.g. {catalogue.ids[0]!r}) and "
            f"{theirs} in {log.source} ({log.column_of[role]!r}, e.g. {log.frame[role].drop_nulls()[0]!r}); "
            "write both as strings or both as integers"
        )
