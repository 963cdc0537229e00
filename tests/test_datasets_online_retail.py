"""Online Retail in the publisher's columns: hand-made tables, a slow second reading, and what a user without a table is told."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_fetch import Publisher, put, quiet, said, zip_bytes

from shortlist.config import load_config
from shortlist.datasets import fetch
from shortlist.datasets.online_retail import COLUMNS, PUBLISHER, fetch_online_retail, online_retail_tables, rows_sold
from shortlist.errors import DataError, FetchError
from shortlist.project import describe, open_project
from shortlist.sections import feature_settings

AT = datetime(2010, 12, 1, 8, 26)
LATER = AT + timedelta(days=1)
ROWS = [  # in the publisher's order of columns
    ("536366", "22633", "HAND WARMER ", 6, LATER, 1.85, 17850.0, "United Kingdom"),  # stands above what happened before it
    ("536365", "85123A", "WHITE  HEART", 6, AT, 2.55, 17850.0, "United Kingdom"),
    ("536365", "22633", "HAND WARMER UNION", 2, AT, 2.10, 17850.0, "United Kingdom"),
    ("536365", "85123A", "CREAM HEART", 1, AT, 2.95, 17850.0, "United Kingdom"),  # twice on one invoice
    ("C536379", "85123A", "WHITE HEART", -1, AT, 2.75, 17850.0, "United Kingdom"),  # a cancellation; -1 counts no second time
    ("c536380", "D", "Discount", -1, AT, 27.5, None, "United Kingdom"),  # a cancellation without customer: the first reason counts
    ("536367", "22633", None, 56, AT, 0.0, None, "United Kingdom"),  # no customer, and no price either
    ("536368", "22633", "WHITE HEART", 3, AT, 0.0, 13047.0, "France"),  # a present
    ("536369", "POST", "POSTAGE", 0, AT, 18.0, 12583.0, "France"),
    ("536370", "POST", "POSTAGE", 1, AT, 18.0, 12583.0, "France"),
    ("536371", "POST", "  ", 1, LATER, 20.0, 12583.0, "Spain"),  # the customer has moved
    ("536371", "22633", "HAND WARMER UNION", 1, LATER, 2.0, 12583.0, "Spain"),
]


def publisher_rows(rows: list[tuple[Any, ...]] = ROWS) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=list(COLUMNS), orient="row")


def retail(folder: Path, rows: pl.DataFrame, *, form: str = "parquet") -> Path:
    """A folder that holds the rows as online_retail.parquet or .csv."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        rows.write_parquet(folder / "online_retail.parquet")
    else:
        rows.write_csv(folder / "online_retail.csv", datetime_format=form)
    return folder


def test_the_publishers_rows_give_these_tables(tmp_path: Path) -> None:
    project = fetch_online_retail(tmp_path / "project", quiet(), files=retail(tmp_path / "files", publisher_rows()))
    assert project.tables["events"].rows() == [  # by time; lines of one instant in the order of the file
        (17850, "85123A", AT, "536365", 6, 2.55),
        (17850, "22633", AT, "536365", 2, 2.10),
        (17850, "85123A", AT, "536365", 1, 2.95),
        (12583, "POST", AT, "536370", 1, 18.0),
        (17850, "22633", LATER, "536366", 6, 1.85),
        (12583, "POST", LATER, "536371", 1, 20.0),
        (12583, "22633", LATER, "536371", 1, 2.0),
    ]
    assert project.tables["items"].rows() == [
        ("22633", "HAND WARMER UNION", 2.0),  # twice of three; the median of 1.85, 2.0, 2.1
        ("85123A", "CREAM HEART", 2.75),  # one each: the first in the alphabet; (2.55 + 2.95) / 2
        ("POST", "POSTAGE", 19.0),  # the blank is no description
    ]
    assert project.tables["users"].rows() == [(12583, "France"), (17850, "United Kingdom")]
    assert project.counts == {
        "cancellations_left_out": 2,
        "rows_without_customer_left_out": 1,
        "rows_with_unit_price_of_0_or_less_left_out": 1,
        "rows_with_quantity_of_0_or_less_left_out": 1,
        "stock_codes_of_left_out_rows_alone": 1,  # D
        "stock_codes_without_description": 0,
        "stock_codes_of_several_descriptions": 2,  # 22633 and 85123A
        "customers_of_several_countries": 1,
    }
    assert project.tables["events"].schema["customer_id"] == pl.Int64 and project.tables["events"].schema["quantity"] == pl.Int64


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"])
def test_a_csv_gives_the_same_tables(tmp_path: Path, form: str) -> None:
    rows = publisher_rows().with_columns(pl.col("InvoiceDate") + timedelta(days=20))  # the 21st: no month is so late
    wanted = fetch_online_retail(tmp_path / "a", quiet(), files=retail(tmp_path / "parquet", rows))
    got = fetch_online_retail(tmp_path / "b", quiet(), files=retail(tmp_path / "csv", rows, form=form))
    for table, frame in wanted.tables.items():
        assert frame.equals(got.tables[table]), table
    assert got.counts == wanted.counts


def test_a_csv_whose_days_could_be_months_is_refused(tmp_path: Path) -> None:
    files = retail(tmp_path, publisher_rows(), form="%m/%d/%Y %H:%M")  # 12/01/2010 and 12/02/2010
    with pytest.raises(DataError, match=r"'12/02/2010 08:26' in the first row, and days and months cannot be told apart"):
        fetch_online_retail(tmp_path / "project", quiet(), files=files)


def test_codes_that_are_all_numbers_stay_text(tmp_path: Path) -> None:
    rows = publisher_rows([("536365", "22633", "7", 1, AT, 2.0, 17850.0, "1"), ("536365", "22634", "8", 1, AT, 3.0, 17850.0, "1")])
    tables = fetch_online_retail(tmp_path / "project", quiet(), files=retail(tmp_path, rows, form="%Y-%m-%d %H:%M:%S")).tables
    assert tables["items"].rows() == [("22633", "7", 2.0), ("22634", "8", 3.0)] and tables["events"]["invoice"][0] == "536365"
    assert tables["users"].rows() == [(17850, "1")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            pl.lit("x").alias("Quantity"),
            r"online_retail\.parquet row 1: column 'Quantity' must hold whole numbers: got 'x' \(12 such rows\)",
        ),
        (pl.lit(None, pl.Int64).alias("Quantity"), "column 'Quantity' must hold whole numbers: got nothing"),
        (pl.lit(1.5).alias("Quantity"), r"column 'Quantity' must hold whole numbers: got 1\.5"),
        (pl.lit(None, pl.Float64).alias("UnitPrice"), "column 'UnitPrice' must hold a number in every row: got nothing"),
        (pl.lit(float("nan")).alias("UnitPrice"), "column 'UnitPrice' must hold a number in every row: got nan"),
        (pl.col("CustomerID") + 0.5, r"row 1: column 'CustomerID' must hold whole numbers: got 17850\.5 \(10 such rows\)"),
        (pl.lit(None, pl.String).alias("StockCode"), "column 'StockCode' plays the role item and must have a value in every row"),
        (pl.lit(5.0).alias("InvoiceNo"), "column 'InvoiceNo' plays the role invoice and must hold string or integer ids"),
        (pl.lit(None, pl.Datetime).alias("InvoiceDate"), "column 'InvoiceDate' must hold a time in every row"),
        (pl.lit("yesterday").alias("InvoiceDate"), "must hold times as 2010-12-01 08:26:00.* got 'yesterday' in the first row"),
    ],
)
def test_a_column_that_cannot_be_read_is_refused_by_row(tmp_path: Path, change: pl.Expr, message: str) -> None:
    files = retail(tmp_path, publisher_rows().with_columns(change))
    with pytest.raises(DataError, match=message):
        fetch_online_retail(tmp_path / "project", quiet(), files=files)


def test_a_file_without_a_sale_to_a_known_customer_is_refused(tmp_path: Path) -> None:
    files = retail(tmp_path, publisher_rows(ROWS[4:7]))
    with pytest.raises(FetchError, match=r"must hold sales to known customers; got none in 3 rows .*'cancellations_left_out': 2"):
        fetch_online_retail(tmp_path / "project", quiet(), files=files)


def test_a_missing_column_is_named_with_its_nearest(tmp_path: Path) -> None:
    files = retail(tmp_path, publisher_rows().rename({"CustomerID": "Customer ID"}))
    with pytest.raises(DataError, match="must have the publisher's column 'CustomerID': nearest is 'Customer ID'"):
        fetch_online_retail(tmp_path / "project", quiet(), files=files)


SMALL_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "C3", "c4"]),
        st.sampled_from(["A", "B", "POST"]),
        st.sampled_from([None, "", "x", " x ", "y", "a  b"]),
        st.integers(-1, 2),
        st.sampled_from([AT, LATER]),
        st.sampled_from([-1.0, 0.0, 0.25, 0.5, 8.0]),
        st.sampled_from([None, 5.0, 7.0]),
        st.sampled_from(["F", "G"]),
    ),
    max_size=13,
)
FORM = {
    "invoice": pl.String,
    "stock_code": pl.String,
    "description": pl.String,
    "quantity": pl.Int64,
    "invoiced_at": pl.Datetime("us"),
    "unit_price": pl.Float64,
    "customer_id": pl.Int64,
    "country": pl.String,
}


@given(SMALL_ROWS)
def test_a_slow_second_reading_agrees(rows: list[tuple[Any, ...]]) -> None:
    sold, counts = rows_sold(pl.DataFrame(rows, schema=FORM, orient="row"))
    tables, _ = online_retail_tables(sold)
    kept = sorted(
        (row for row in rows if row[0][0] not in "Cc" and row[6] is not None and row[5] > 0 and row[3] > 0), key=lambda row: row[4]
    )
    assert sum(counts.values()) == len(rows) - len(kept)
    assert tables["events"].rows() == [(row[6], row[1], row[4], row[0], row[3], row[5]) for row in kept]
    assert tables["users"].rows() == sorted({row[6]: row[7] for row in reversed(kept)}.items())
    wanted = []
    for code in sorted({row[1] for row in kept}):
        texts = Counter(" ".join(row[2].split()) for row in kept if row[1] == code and row[2] and row[2].strip())
        description = min(texts, key=lambda text: (-texts[text], text)) if texts else None
        wanted.append((code, description, statistics.median(row[5] for row in kept if row[1] == code)))
    assert tables["items"].rows() == wanted


def test_the_project_opens_with_ties_in_order_and_days_of_trade(tmp_path: Path) -> None:
    console = quiet()
    path = fetch.fetch_project("online-retail", tmp_path / "project", console=console, files=retail(tmp_path / "files", publisher_rows()))
    config = load_config(path)
    assert config.columns.ties == "in_order" and config.evaluate.days == "active"
    assert (config.evaluate.protocol, config.evaluate.train_days, config.evaluate.test_days, config.evaluate.shifts) == (
        "rolling",
        30,
        1,
        7,
    )
    assert set(feature_settings(config.query)) == {"seed", "history", "users.country"}
    facts = describe(open_project(config))
    assert facts["events"]["rows"] == 7 and facts["users"]["rows"] == 2
    assert "2  cancellations left out" in said(console)
    record = json.loads((tmp_path / "project" / "fetch.json").read_text())
    assert record["counts"]["cancellations_left_out"] == 2 and str(tmp_path) not in record["source"]
    readme = (tmp_path / "project" / "README.txt").read_text()
    assert "not merchandise" in readme and "over the rows kept of the whole file" in readme


def test_a_folder_without_a_table_says_what_it_holds_and_how_to_make_one(tmp_path: Path) -> None:
    put(tmp_path / "Online Retail.xlsx", b"a spreadsheet")
    with pytest.raises(FetchError) as caught:
        fetch_online_retail(tmp_path / "project", quiet(), files=tmp_path)
    for part in ("online_retail.parquet or online_retail.csv", "it holds Online Retail.xlsx", *COLUMNS, "with --from"):
        assert part in str(caught.value)
    with pytest.raises(FetchError, match="it is no folder"):
        fetch_online_retail(tmp_path / "project", quiet(), files=tmp_path / "Online Retail.xlsx")


def test_the_publishers_spreadsheet_is_unpacked_and_the_user_told_to_save_it_as_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(monkeypatch)
    publisher.files["online+retail.zip"] = zip_bytes({"Online Retail.xlsx": b"a spreadsheet"})
    spreadsheet = tmp_path / "download" / "online_retail.xlsx"
    for _ in range(2):  # the second time without another download
        with pytest.raises(FetchError) as caught:
            fetch.fetch_project("online-retail", tmp_path, console=quiet())
        assert f"which shortlist does not read: {spreadsheet}; save the spreadsheet as CSV" in str(caught.value)
    assert publisher.asked == [PUBLISHER] and spreadsheet.read_bytes() == b"a spreadsheet"
    retail(tmp_path / "download", publisher_rows(), form="%Y-%m-%d %H:%M:%S")  # saved beside it
    fetch.fetch_project("online-retail", tmp_path, console=quiet())
    assert pl.read_parquet(tmp_path / "events.parquet").height == 7 and publisher.asked == [PUBLISHER]


def test_an_archive_without_spreadsheet_and_a_publisher_out_of_reach_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(monkeypatch)
    with pytest.raises(FetchError, match=r"zip must be reachable; got: no route to host\. By hand: name a folder .* with --from"):
        fetch.fetch_project("online-retail", tmp_path, console=quiet())
    publisher.files["online+retail.zip"] = zip_bytes({"readme.txt": b""})
    with pytest.raises(FetchError, match=r"must hold a spreadsheet \(\.xlsx\); it holds readme\.txt"):
        fetch.fetch_project("online-retail", tmp_path, console=quiet())
