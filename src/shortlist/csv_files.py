"""CSV in two steps: a file becomes columns of text, and a column of text gets the type that every one of its values is written as.

A column is an integer column only if every value is written the way an integer prints: "007" and "85123A" keep it text. The two
steps are apart because the type is decided over all files of a table (files.py calls both).
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import NoReturn

import polars as pl

from shortlist.errors import DataError
from shortlist.instants import times_from_text

END_OF_FILE = "<shortlist: end of file>"  # a row put behind every CSV: an open quote swallows it
HEAD = 1000  # values tried before a whole column is
DECIMAL = r"^(?:-?(?:0|[1-9]\d*)?\.?\d*(?:[eE][+-]?\d+)?|NaN|nan|-?inf)$"
ONLY_DECIMAL = r"\.\d|\d\.|[eE][+-]|[nN]a[nN]|inf"  # "1E5" alone may be an id, "1.5" and "1e-05" are not


def read_csv_text(path: Path, separator: str = ",") -> pl.DataFrame:
    """The CSV file with every column as text, an empty field as null; a name that ends in .gz is unpacked.

    Raises DataError naming the row: too few or too many fields, other bytes than UTF-8, a quote that is never closed; or the file:
    empty, truncated, columns without a name or of one name.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

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
