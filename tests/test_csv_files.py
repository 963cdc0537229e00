"""CSV: a column has the type that all its values are written as, and damage is an error that names file and row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from shortlist.csv_files import read_csv_text, typed
from shortlist.errors import DataError
from shortlist.files import read_frame

STEADY = property_settings(deadline=None, derandomize=True)


def read(path: Path | str) -> pl.DataFrame:
    return read_frame(str(path), what="events").frame


def write_text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_every_value_of_a_file_is_text_until_its_column_is_typed(tmp_path: Path) -> None:
    frame = read_csv_text(write_text(tmp_path / "t.csv", 'a,b\n1,\n007,"x,y"\n'))
    assert frame.to_dict(as_series=False) == {"a": ["1", "007"], "b": [None, "x,y"]}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (["1", "-2", None], [1, -2, None]),
        (["007", "8"], ["007", "8"]),
        (["+1", "2"], ["+1", "2"]),
        (["-0", "2"], ["-0", "2"]),
        (["85123A", "85123"], ["85123A", "85123"]),
        (["1E5", "20"], ["1E5", "20"]),  # an article number, not 100000
        (["99999999999999999999", "1"], ["99999999999999999999", "1"]),
        (["1.5", "2", "1E5"], [1.5, 2.0, 100000.0]),
        (["007.5", "1.5"], ["007.5", "1.5"]),
        (["1e-05", None], [1e-05, None]),
        (["true", "false", None], [True, False, None]),
        (["True", "false"], ["True", "false"]),
        (["NA", "1"], ["NA", "1"]),
        (["2024-02-29"], [date(2024, 2, 29)]),
        (["2023-02-29"], ["2023-02-29"]),
        (["2024-01-01T24:00:00"], ["2024-01-01T24:00:00"]),
        (["2024-01-01", "2024-01-01 10:30"], [datetime(2024, 1, 1), datetime(2024, 1, 1, 10, 30)]),
        (["2024-01-01T10:00:00.5Z"], [datetime(2024, 1, 1, 10, 0, 0, 500000, tzinfo=UTC)]),
        (["2024-01-01T10:00+05:30"], [datetime(2024, 1, 1, 4, 30, tzinfo=UTC)]),  # 10:00 - 5:30
        (["2024-01-01 10:00:00-0130"], [datetime(2024, 1, 1, 11, 30, tzinfo=UTC)]),
        (["2024-01-01 10:00:00 UTC", "2024-01-01 10:00+01"], [datetime(2024, 1, 1, 10, tzinfo=UTC), datetime(2024, 1, 1, 9, tzinfo=UTC)]),
        (["2024-01-01T10:00Z", "2024-01-01T10:00"], ["2024-01-01T10:00Z", "2024-01-01T10:00"]),
        ([None, None], [None, None]),
    ],
)
def test_a_csv_column_is_typed_only_if_every_value_is_written_so(text: list[str | None], values: list[object]) -> None:
    assert typed(pl.Series("c", text, dtype=pl.String)).to_list() == values


def test_the_last_value_of_a_long_column_decides_as_much_as_the_first() -> None:
    text = pl.Series([str(number) for number in range(5_003)] + ["007"])
    assert typed(text).dtype == pl.String
    assert typed(text.head(5_003)).dtype == pl.Int64


@STEADY
@given(st.lists(st.one_of(st.none(), st.text("0123456789+-. eEAxZ:T", min_size=1, max_size=6)), min_size=1, max_size=7))
def test_a_column_that_became_integers_prints_as_it_was_written(text: list[str | None]) -> None:
    series = typed(pl.Series(text, dtype=pl.String))
    if series.dtype in (pl.Int64, pl.String):
        assert series.cast(pl.String).to_list() == text
    assert series.is_null().to_list() == [value is None for value in text]


def test_byte_order_mark_blank_lines_and_crlf_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n\r\n2,\r\n')
    assert read(path).to_dict(as_series=False) == {"a": [1, 2], "b": ["x\r\ny", None]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,c\n1,2,3\n4,5", "t.csv row 2: must have 3 fields as the header has: got 2; the line is cut off"),
        ("a,b,c\n1,2,3\n4,5,6,7\n", "t.csv row 2: must have 3 fields as the header has: got 4; a separator inside"),
        ('a,b,c\n"1\n1",2,3\n\n4,5', "t.csv row 2: must have 3 fields"),  # rows are counted, not lines
        ('a,b,c\n1,2,3\n4,5,"x', "t.csv row 2: a quote is opened and never closed"),
        ('a,b,c\n1,2,3\n4,5,"x""', "t.csv row 2: a quote is opened and never closed"),
        ('a,b,c\n1,2,3\n4,"5', "t.csv row 2: must have 3 fields as the header has: got 2; the line is cut off, or a quote"),
        ('a\n1\n"2', "t.csv row 2: a quote is opened and never closed"),
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty"),
        ("a,b\n", "events must have at least one row"),
        ("a,b,a\n1,2,3\n", "columns of different names: got 'a' twice"),
        (",a\n0,1\n", "column 1 has no name; name it in the first line, or leave it out (pandas: index=False)"),
    ],
)
def test_a_broken_csv_file_is_refused_by_file_and_row(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(write_text(tmp_path / "t.csv", text))
    assert said in str(caught.value)


def test_a_quote_open_over_many_blocks_is_named_by_its_row(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "a,b\n1,2\n1,2\n" + '5,"x\n' + "1,2\n" * 5_000_000)
    with pytest.raises(DataError, match=r"t\.csv row 3: a quote is opened and never closed"):
        read(path)


def test_other_bytes_than_utf8_are_named_by_row_and_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a,title\n1,x\n2,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv row 2: column 'title' must be UTF-8 text"):
        read(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_bytes("a,title\n1,x\n".encode("utf-16"))
    with pytest.raises(DataError, match="column names must be UTF-8"):
        read(tmp_path / "u.csv")
