"""Tables in files: a file, a folder or a glob of Parquet, CSV or Arrow IPC becomes one frame that remembers its rows' origins.

What a file says comes through unchanged, and the same table in any format is the same frame. Damage is an error naming file
and row, never a shorter table. It knows nothing of roles: log.py and catalogue.py do. What is particular to CSV is in csv_files.py.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from shortlist.csv_files import read_csv_text, typed
from shortlist.errors import DataError
from shortlist.id_places import ROWS_AT_ONCE

FORMATS = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".tsv": "TSV",
    ".tsv.gz": "TSV",
    ".arrow": "Arrow IPC",
    ".feather": "Arrow IPC",
    ".ipc": "Arrow IPC",
}

if TYPE_CHECKING:
    import pyarrow as pa  # at run time where a file is read: a server reads what polars wrote, and holds 40 MB less

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of a frame stand in the user's files, also after the frame was sorted or filtered."""

    files: tuple[str, ...]
    starts: tuple[int, ...]  # the first row of each file in the concatenated frame
    rows: Rows | None = None  # the concatenated row behind each row of the frame; None: they follow each other from `first` on
    first: int = 0

    def of(self, row: int) -> str:
        """The place of row `row` of the frame, e.g. "events-2.csv row 17" (counted from 1 inside the file)."""
        source = int(self.first + row if self.rows is None else self.rows[row])
        file = int(np.searchsorted(self.starts, source, side="right")) - 1
        return f"{self.files[file]} row {source - self.starts[file] + 1}"

    def take(self, rows: Rows) -> Places:
        """The places after the frame was reduced or reordered to `rows`."""
        return replace(self, rows=self.first + rows if self.rows is None else self.rows[rows], first=0)

    def cut(self, start: int, end: int) -> Places:
        """The places after the frame was reduced to the rows from `start` to before `end`."""
        return replace(self, first=self.first + start) if self.rows is None else replace(self, rows=self.rows[start:end])


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A table as it was read, with what is needed to name file, column and row in an error."""

    frame: pl.DataFrame
    places: Places
    what: str  # "events", "items", "users"
    source: str  # the pattern it was read from

    def place(self, row: int) -> str:
        """The place of a row, e.g. "events-2.csv row 17"."""
        return self.places.of(row)

    def column(self, name: str, role: str) -> pl.Series:
        """The column that plays `role`. Raises DataError naming the nearest column where there is none of that name."""
        if name not in self.frame.columns:
            raise DataError(
                f"{self.source} must have the {role} column {name!r}: nearest is {nearest(name, self.frame.columns)!r}; "
                f"columns are {', '.join(map(repr, self.frame.columns))}"
            )
        return self.frame[name]

    def refuse(self, column: str, bad: pl.Series, rule: str, fix: str) -> None:
        """Raise DataError for the first row where `bad` is true, naming file, row, column, value and how many there are."""
        rows = bad.fill_null(False).arg_true()
        if len(rows):
            row = int(rows[0])
            got = f"{shown(self.frame[column][row])} ({counted(len(rows), 'such row')})"
            raise DataError(f"{self.place(row)}: column {column!r} {rule}: got {got}; {fix}")

    def refuse_non_finite(self, columns: Iterable[str]) -> None:
        """Raise DataError for NaN or infinity in a float column, or inside a column of float lists. Null is a missing value."""
        for name in columns:
            series = self.frame[name]
            inner = inner_type(series.dtype)
            if inner is None and series.dtype.is_float():
                finite = series.is_finite()
                if finite.all():
                    continue
                bad = ~finite
            elif inner is not None and inner.is_float():
                lists = _as_list(series)
                if lists.explode(empty_as_null=False, keep_nulls=False).is_finite().all():
                    continue
                bad = lists.list.eval(~pl.element().is_finite()).list.any()
            else:
                continue
            self.refuse(name, bad, "must hold finite numbers", "leave a missing value empty (null)")


def read_frame(pattern: str, *, what: str) -> SourceFrame:
    """The rows of the file, folder or glob `pattern`, in the order of the file names, knowing where each stands.

    what         the table's name in messages: "events", "items" or "users"
    Raises       DataError: nothing there, an unknown suffix, formats mixed, no rows or columns, a file that is damaged or cut
                 off, files whose columns or types differ
    Categorical columns come back as strings, zone-aware times in UTC. CSV has no lists and no empty strings (an empty field is null).
    """
    paths = _matching(pattern, what)
    tables = [_checked_header(_READERS[FORMATS[_suffix(path)]](path), path) for path in paths]
    names = _short_names(paths)
    _refuse_different_schemas(tables, names)
    starts = np.cumsum([0, *(table.height for table in tables)])
    frame = pl.concat([table.select(tables[0].columns) for table in tables])
    if frame.height == 0:
        raise DataError(f"{what} must have at least one row: {pattern} has a header and no rows")
    if FORMATS[_suffix(paths[0])] in ("CSV", "TSV"):
        frame = frame.select(typed(frame[name]) for name in frame.columns)
    return SourceFrame(frame, Places(tuple(names), tuple(int(start) for start in starts[:-1])), what, pattern)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`; empty if none is known."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)), "")


def shown(value: object) -> str:
    """The value as a message shows it, at most 80 characters."""
    text = repr(value.to_list() if isinstance(value, pl.Series) else value)
    return "nothing" if value is None else text if len(text) <= 80 else text[:77] + "..."


def counted(count: int, one: str, many: str | None = None) -> str:
    """The number with its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def inner_type(dtype: pl.DataType) -> pl.DataType | None:
    """The type of a list's or array's elements; None for other types."""
    if isinstance(dtype, (pl.List, pl.Array)):
        return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
    return None


def _matching(pattern: str, what: str) -> list[Path]:
    """The files meant by `pattern`, by name, all of one format."""
    path = Path(pattern)
    if path.is_dir():
        listed = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith((".", "_")))
        paths = [entry for entry in listed if _suffix(entry) in FORMATS]
    else:
        paths = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))
        for unknown in (entry for entry in paths if _suffix(entry) not in FORMATS):
            raise DataError(f"{what}: a file's name must end in one of {', '.join(FORMATS)}: got {unknown}; rename or convert it")
    if not paths:
        raise DataError(
            f"{what}: nothing matches {pattern}: looked for a file, a folder or a glob of files ending in {', '.join(FORMATS)} "
            f"{_state_of_folder(path)}; correct [data] {what}"
        )
    formats = {FORMATS[_suffix(entry)]: entry.name for entry in reversed(paths)}
    if len(formats) > 1:
        raise DataError(f"{what}: {pattern} must hold files of one format: got {' and '.join(formats.values())}; name one kind by a glob")
    return paths


def _state_of_folder(path: Path) -> str:
    if path.is_dir():
        return f"and found {counted(len(list(path.iterdir())), 'other entry', 'other entries')} in that folder"
    return f"in {path.parent}" + ("" if path.parent.is_dir() or "*" in str(path.parent) else ", a folder that is not there")


def _suffix(path: Path) -> str:
    last = path.suffix.lower()
    return "".join(path.suffixes[-2:]).lower() if last == ".gz" else last


def _short_names(paths: list[Path]) -> list[str]:
    parent = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, parent) for path in paths]


def _read_parquet(path: Path) -> pl.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def blocks() -> Iterator[pa.Table]:
        with pq.ParquetFile(
            path, page_checksum_verification=True
        ) as file:  # not read_table: it would add columns from folder names such as day=1
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])

    return _from_arrow(blocks, path, "Parquet")


def _read_ipc(path: Path) -> pl.DataFrame:
    import pyarrow as pa

    def blocks() -> Iterator[pa.Table]:
        with pa.OSFile(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            yield pa.ipc.open_file(file).read_all() if is_file else pa.ipc.open_stream(file).read_all()

    return _from_arrow(blocks, path, "Arrow IPC")


def _from_arrow(blocks: Callable[[], Iterator[pa.Table]], path: Path, kind: str) -> pl.DataFrame:
    """The blocks of rows as one frame; what a block needs while it is converted is gone before the next one is read."""
    import pyarrow as pa

    frames = []
    try:
        for block in blocks():
            table = block.replace_schema_metadata(None)  # polars panics on damaged metadata, and needs none
            table.validate(full=True)  # damaged offsets and text that is not UTF-8 would be followed blindly
            table.schema.to_string()  # decodes every name, nested ones too
            names = table.column_names
            if len(set(names)) < len(names):
                raise DataError(f"{path} must have columns of different names: got {names}; rename one")
            frames.append(_frame_of(table))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path} is truncated or not {_article(kind)} file ({reason}); write or copy it again") from None
    return pl.concat([frame for frame in frames if frame.height] or frames[:1])


def _frame_of(table: pa.Table) -> pl.DataFrame:
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is not None:  # the zone is a label: the instants are UTC already
            table = table.set_column(place, field.name, table[place].cast(pa.timestamp(field.type.unit, "UTC")))
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(_text_for_categories(name, dtype) for name, dtype in frame.schema.items())


def _text_for_categories(name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return pl.col(name).cast(pl.String)
    if isinstance(inner_type(dtype), (pl.Categorical, pl.Enum)):
        return pl.col(name).cast(pl.List(pl.String))
    return pl.col(name)


def _read_tsv(path: Path) -> pl.DataFrame:
    return read_csv_text(path, "\t")


def _checked_header(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    if frame.width == 0:
        raise DataError(f"{path} must have at least one column: got none; write or copy it again")
    return frame


def _refuse_different_schemas(frames: list[pl.DataFrame], names: list[str]) -> None:
    first = frames[0].schema
    for frame, name in zip(frames[1:], names[1:], strict=True):
        for column in [*first, *frame.schema]:
            here, there = first.get(column), frame.schema.get(column)
            if here != there:
                raise DataError(
                    f"files of one table must have the same columns: {column!r} is {here or 'missing'} in {names[0]} "
                    f"and {there or 'missing'} in {name}; write them with one schema"
                )


def _as_list(series: pl.Series) -> pl.Series:
    return series.arr.to_list() if isinstance(series.dtype, pl.Array) else series


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "Parquet": _read_parquet,
    "Arrow IPC": _read_ipc,
    "CSV": read_csv_text,
    "TSV": _read_tsv,
}
