"""Tables in files: a file, a folder or a glob of Parquet, CSV or Arrow IPC becomes one frame that remembers its rows' origins.

What a file says comes through unchanged: a CSV column is an integer column only if every value is written the way an
integer prints ("007" and "85123A" keep a column text). Damage is an error naming file and row, never a shorter table.
It knows nothing of roles: log.py and catalogue.py do. One file for three formats, since what they promise is one thing: the
same table in any of them is the same frame (CSV's part, `typed` and below, is half of it).
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from shortlist.errors import DataError

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
END_OF_FILE = "<shortlist: end of file>"  # a row put behind every CSV: an open quote swallows it
HEAD = 1000  # values tried before a whole column is
INSTANT = re.compile(r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)? ?(Z|UTC|[+-]\d\d:?(?:\d\d)?)?$")
DECIMAL = r"^(?:-?(?:0|[1-9]\d*)?\.?\d*(?:[eE][+-]?\d+)?|NaN|nan|-?inf)$"
ONLY_DECIMAL = r"\.\d|\d\.|[eE][+-]|[nN]a[nN]|inf"  # "1E5" alone may be an id, "1.5" and "1e-05" are not

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of a frame stand in the user's files, also after the frame was sorted or filtered."""

    files: tuple[str, ...]
    starts: tuple[int, ...]  # the first row of each file in the concatenated frame
    rows: Rows | None = None  # the concatenated row behind each row of the frame; None: the frame is as it was read

    def of(self, row: int) -> str:
        """The place of row `row` of the frame, e.g. "events-2.csv row 17" (counted from 1 inside the file)."""
        source = int(row if self.rows is None else self.rows[row])
        file = int(np.searchsorted(self.starts, source, side="right")) - 1
        return f"{self.files[file]} row {source - self.starts[file] + 1}"

    def take(self, rows: Rows) -> Places:
        """The places after the frame was reduced or reordered to `rows`."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])


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
                bad = ~series.is_finite()
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


def typed(text: pl.Series) -> pl.Series:
    """The CSV column as integers, floats, booleans, dates or UTC times if every value is written as one; else as it came.

    A column without values has type Null. Integers too large for 64 bits stay text.
    """
    if text.null_count() == len(text):
        return text.cast(pl.Null)
    for convert in (_integers, _floats, _booleans, times_from_text):
        if convert(text.drop_nulls().head(HEAD)) is not None:
            series = convert(text)
            if series is not None:
                return series
    return text


def times_from_text(text: pl.Series) -> pl.Series | None:
    """ISO 8601 text as Date, as Datetime, or as Datetime in UTC if every value has an offset; None if any value is otherwise.

    Digits below a microsecond are cut off (times are whole microseconds).
    """
    parts = text.str.extract_groups(INSTANT.pattern).struct.unnest()
    parts.columns = ["day", "hour", "minute", "second", "fraction", "offset"]
    missing = text.null_count()
    day = parts["day"].str.to_date("%Y-%m-%d", strict=False)
    offsets = len(text) - parts["offset"].null_count()
    if day.null_count() > missing or (offsets and offsets < len(text) - missing):
        return None
    if parts["hour"].null_count() == len(text) and not offsets:
        return day.alias(text.name)
    times = parts.select(_instant(day)).to_series().alias(text.name)
    if times.null_count() > missing:  # an hour of 25
        return None
    return times.dt.replace_time_zone("UTC") if offsets else times


def _instant(day: pl.Series) -> pl.Expr:
    hour, minute, second = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second"))
    micros = pl.col("fraction").str.pad_end(6, "0").str.head(6).cast(pl.Int64).fill_null(0)
    sign = pl.when(pl.col("offset").str.starts_with("-")).then(-1).otherwise(1)
    digits = pl.col("offset").str.replace_all("[^0-9]", "").str.pad_end(4, "0")  # "+05:30" -> "0530", "+05" -> "0500", "Z" -> "0000"
    offset = (sign * (digits.str.head(2).cast(pl.Int64) * 60 + digits.str.slice(2, 2).cast(pl.Int64))).fill_null(0)
    valid = (hour < 24) & (minute < 60) & (second < 60) & (offset.abs() < 24 * 60)
    elapsed = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros
    return pl.when(valid).then(pl.lit(day).cast(pl.Datetime("us")) + pl.duration(microseconds=elapsed))


def _integers(text: pl.Series) -> pl.Series | None:
    numbers = text.cast(pl.Int64, strict=False)
    same = numbers.null_count() == text.null_count() and (numbers.cast(pl.String) == text).all()
    return numbers if same else None  # canonical: it prints as it was written


def _floats(text: pl.Series) -> pl.Series | None:
    if not text.str.contains(DECIMAL).all() or not text.str.contains(ONLY_DECIMAL).any():
        return None
    numbers = text.cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() == text.null_count() else None


def _booleans(text: pl.Series) -> pl.Series | None:
    return text == "true" if text.is_in(["true", "false"]).all() else None


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
    def read() -> pa.Table:
        with pq.ParquetFile(
            path, page_checksum_verification=True
        ) as file:  # not read_table: it would add columns from folder names such as day=1
            return file.read()

    return _from_arrow(read, path, "Parquet")


def _read_ipc(path: Path) -> pl.DataFrame:
    def read() -> pa.Table:
        with pa.OSFile(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            return pa.ipc.open_file(file).read_all() if is_file else pa.ipc.open_stream(file).read_all()

    return _from_arrow(read, path, "Arrow IPC")


def _from_arrow(read: Callable[[], pa.Table], path: Path, kind: str) -> pl.DataFrame:
    try:
        table = read().replace_schema_metadata(None)  # polars panics on damaged metadata, and needs none
        table.validate(full=True)  # damaged offsets and text that is not UTF-8 would be followed blindly
        table.schema.to_string()  # decodes every name, nested ones too
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path} is truncated or not {_article(kind)} file ({reason}); write or copy it again") from None
    if len(set(names)) < len(names):
        raise DataError(f"{path} must have columns of different names: got {names}; rename one")
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


def _read_csv(path: Path, separator: str = ",") -> pl.DataFrame:
    """The CSV file with every column as text."""
    data = _bytes_of(path)
    header = _csv_header(data, path, separator)
    if not data.endswith(b"\n"):
        data += b"\n"
    data += (END_OF_FILE + separator * (len(header) - 1) + "\n").encode()
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=1 << 24),  # threads would lose the row numbers
            parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.large_string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        _explain_csv(str(error), header, data, path, separator)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    if frame[header[0]][-1] != END_OF_FILE:
        raise DataError(f"{path.name} row {frame.height}: a quote is opened and never closed: the file is cut off; write or copy it again")
    return frame.head(-1)


def _read_tsv(path: Path) -> pl.DataFrame:
    return _read_csv(path, "\t")


def _bytes_of(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a gzip file ({error}); write or copy it again") from None


def _csv_header(data: bytes, path: Path, separator: str) -> list[str]:
    first = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace", newline="")
    header = next((row for row in csv.reader(first, delimiter=separator) if row), None)
    if not data.strip() or header is None:
        raise DataError(f"{path} is empty: a CSV file starts with a line of column names; write or copy it again")
    for place, name in enumerate(header):
        if "\ufffd" in name:
            raise DataError(f"{path}: column names must be UTF-8 text: got {name!r}; save the file as UTF-8")
        if not name:
            raise DataError(f"{path}: column {place + 1} has no name; name it in the first line, or leave it out (pandas: index=False)")
        if name in header[:place]:
            raise DataError(f"{path} must have columns of different names: got {name!r} twice; rename one")
    return header


def _explain_csv(message: str, header: list[str], data: bytes, path: Path, separator: str) -> NoReturn:
    """Raise the DataError that says in our words and our row numbers what Arrow found in the file."""
    if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        row, expected, got = map(int, found.groups())
        cause = "the line is cut off, or a quote is never closed" if got < expected else "a separator inside a value must stand in quotes"
        raise DataError(f"{path.name} row {row - 1}: must have {expected} fields as the header has: got {got}; {cause}")
    if found := re.search(r"CSV column #(\d+): Row #(\d+).*invalid UTF8", message):
        column, row = int(found[1]), int(found[2])
        raise DataError(f"{path.name} row {row - 1}: column {header[column]!r} must be UTF-8 text: got other bytes; save the file as UTF-8")
    if "straddl" in message:
        row = _rows_before_open_quote(data, separator)
        raise DataError(f"{path.name} row {row}: a quote is opened and never closed; close it, or write or copy the file again")
    raise DataError(f"{path} must be a CSV file: {message[:200]}")


def _rows_before_open_quote(data: bytes, separator: str) -> int:
    """The row that never ends, by a slow second reading."""
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace", newline=""), delimiter=separator)
    count = 0
    try:
        count = sum(1 for row in lines if row) - 1  # the last one is the open one
    except csv.Error:
        return count
    return count


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
    "CSV": _read_csv,
    "TSV": _read_tsv,
}
