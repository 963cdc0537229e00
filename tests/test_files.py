"""What a file says comes through unchanged, in any format; damage is an error that names file and row."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from shortlist.errors import DataError
from shortlist.files import SourceFrame, read_frame

TITLES = ["Fantômas, l'été", 'a "quoted" title', "two\nlines", "日本語", "O'Brien"]
TABLE = pl.DataFrame(
    {
        "id": ["007", "85123A", "10", "0", "x y"],
        "title": TITLES,
        "count": [1, -2, None, 4, 5],
        "price": [0.5, 1e-05, 2.0, None, -3.25],
        "flag": [True, False, None, True, True],
        "day": [date(2024, 2, 29), None, date(1970, 1, 1), date(2024, 5, 31), date(2024, 6, 1)],
        "at": [datetime(2024, 1, 1, 12, 0, 0, 123456), datetime(1969, 12, 31), None, datetime(2024, 1, 2), datetime(2024, 1, 3)],
    }
)


def read(path: Path | str) -> pl.DataFrame:
    return read_frame(str(path), what="events").frame


def write(table: pl.DataFrame, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    name = path.name
    if name.endswith((".parquet", ".pq")):
        table.write_parquet(path)
    elif name.endswith((".arrow", ".feather", ".ipc")):
        table.write_ipc(path)
    else:
        data = table.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def write_text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.arrow", "t.feather", "t.ipc", "t.csv", "t.CSV", "t.tsv", "t.csv.gz", "t.tsv.gz"])
def test_every_format_gives_back_the_same_table(tmp_path: Path, name: str) -> None:
    assert_frame_equal(read(write(TABLE, tmp_path / name)), TABLE)


def test_an_arrow_stream_is_read_like_an_arrow_file(tmp_path: Path) -> None:
    TABLE.write_ipc_stream(tmp_path / "t.arrow")
    assert_frame_equal(read(tmp_path / "t.arrow"), TABLE)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow"])
def test_a_folder_and_a_glob_give_the_rows_of_their_files_by_name(tmp_path: Path, suffix: str) -> None:
    write(TABLE.slice(3, 2), tmp_path / "d" / f"part-2{suffix}")
    write(TABLE.slice(0, 3), tmp_path / "d" / f"part-1{suffix}")
    (tmp_path / "d" / "README.md").write_text("not a table")
    (tmp_path / "d" / f"_old{suffix}").write_text("hidden, as writers mark files in progress")
    assert_frame_equal(read(tmp_path / "d"), TABLE)
    assert_frame_equal(read(f"{tmp_path}/d/part-*{suffix}"), TABLE)
    assert_frame_equal(read(f"{tmp_path}/**/part-*{suffix}"), TABLE)


def test_a_row_is_named_by_its_file_and_its_place_there_also_after_sorting(tmp_path: Path) -> None:
    for number, rows in enumerate([2, 3, 5], start=1):  # rows 0-1, 2-4, 5-9
        write_text(tmp_path / f"events-{number}.csv", "a\n" + "7\n" * rows)
    source = read_frame(str(tmp_path / "events-*.csv"), what="events")
    assert [source.place(row) for row in (0, 1, 2, 4, 5, 9)] == [
        "events-1.csv row 1",
        "events-1.csv row 2",
        "events-2.csv row 1",
        "events-2.csv row 3",
        "events-3.csv row 1",
        "events-3.csv row 5",
    ]
    order = pl.Series([9, 2, 0]).to_numpy()
    assert source.places.take(order).take(pl.Series([1]).to_numpy()).of(0) == "events-2.csv row 1"


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for day in ("day=1", "day=2"):
        write(TABLE, tmp_path / day / "part.parquet")
    source = read_frame(f"{tmp_path}/*/part.parquet", what="events")
    assert source.place(6) == "day=2/part.parquet row 2"
    assert source.frame.columns == TABLE.columns  # no column made from the folder's name


def test_types_are_decided_over_all_files_of_a_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "id\n1\n2\n")
    write_text(tmp_path / "b.csv", "id\n85123A\n")
    assert read(tmp_path)["id"].to_list() == ["1", "2", "85123A"]


def test_categories_become_text_and_zones_become_utc(tmp_path: Path) -> None:
    times = pl.Series([datetime(2024, 7, 1, 10)]).dt.replace_time_zone("Asia/Kolkata")  # UTC+5:30
    pl.DataFrame({"c": pl.Series(["x"], dtype=pl.Categorical), "t": times}).write_parquet(tmp_path / "t.parquet")
    frame = read(tmp_path / "t.parquet")
    assert frame["c"].to_list() == ["x"] and frame["c"].dtype == pl.String
    assert frame["t"].to_list() == [datetime(2024, 7, 1, 4, 30, tzinfo=UTC)]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv.gz"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, kept: float) -> None:
    path = write(pl.DataFrame({"a": range(1009), "b": [str(7919 * row) for row in range(1009)]}), tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if 0 < kept < 1 else int(kept)])
    kind = {"t.parquet": "a Parquet", "t.arrow": "an Arrow IPC", "t.csv.gz": "a gzip"}[name]
    with pytest.raises(DataError, match=rf"{name} is truncated or not {kind} file|{name} is empty"):
        read(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_file_with_a_changed_byte_is_refused_or_read_but_nothing_else_happens(tmp_path: Path, name: str) -> None:
    path = write(pl.DataFrame({"a": range(13), "b": [f"é{row}" for row in range(13)], "c": [[row] for row in range(13)]}), tmp_path / name)
    data = path.read_bytes()
    refused = 0
    for place in range(0, len(data), 11):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x95]) + data[place + 1 :])
        try:
            read(path)
        except DataError as error:
            assert name in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"is truncated or not an? "):
        read(write_text(tmp_path / name, "a,b\n1,2\n"))


def test_a_table_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    pl.DataFrame(schema={"a": pl.Int64}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="at least one row"):
        read(tmp_path / "rows.parquet")
    pl.DataFrame().write_parquet(tmp_path / "columns.parquet")
    with pytest.raises(DataError, match="at least one column"):
        read(tmp_path / "columns.parquet")


def test_what_is_not_there_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events: nothing matches .*e\.parquet: looked for .*\.parquet.*correct \[data\] events"):
        read(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="a folder that is not there"):
        read(tmp_path / "nowhere" / "e.parquet")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="found 1 other entry in that folder"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["events", "events.xlsx", "events.parquet.gz"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"must end in one of \.parquet, \.pq, \.csv, .*\.ipc: got .*{name}"):
        read(write_text(tmp_path / name, "a\n1\n"))


def test_formats_must_not_be_mixed_in_a_folder(tmp_path: Path) -> None:
    write(TABLE, tmp_path / "a.csv")
    write(TABLE, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"files of one format: got .*b\.parquet.*a\.csv|files of one format: got .*a\.csv.*b\.parquet"):
        read(tmp_path)


def test_files_of_different_types_or_columns_are_refused_by_both_names(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1], "x": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"id": ["1"], "x": [1]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"'id' is Int64 in a\.parquet and String in b\.parquet"):
        read(tmp_path)
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"'x' is Int64 in a\.parquet and missing in b\.parquet"):
        read(tmp_path)


def test_files_whose_columns_stand_in_another_order_are_one_table(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "x,y\n1,2\n")
    write_text(tmp_path / "b.csv", "y,x\n4,3\n")
    assert read(tmp_path).to_dict(as_series=False) == {"x": [1, 3], "y": [2, 4]}


@pytest.mark.parametrize("values", [[1.0, None, float("nan")], [[0.5], None, [0.5, float("inf")]], [[], [1.0], [-float("inf")]]])
def test_a_number_that_is_not_finite_is_named_by_row_and_column(tmp_path: Path, values: list[object]) -> None:
    pl.DataFrame({"x": values}).write_parquet(tmp_path / "t.parquet")
    source = read_frame(str(tmp_path / "t.parquet"), what="items")
    with pytest.raises(
        DataError, match=r"t\.parquet row 3: column 'x' must hold finite numbers: got .*1 such row.*leave a missing value empty"
    ):
        source.refuse_non_finite(["x"])


def test_a_missing_column_is_named_with_its_nearest(tmp_path: Path) -> None:
    source: SourceFrame = read_frame(str(write_text(tmp_path / "e.csv", "userid,movie\n1,2\n")), what="events")
    with pytest.raises(DataError, match=r"e\.csv must have the user column 'user_id': nearest is 'userid'; columns are 'userid', 'movie'"):
        source.column("user_id", "user")
