"""Online Retail (UCI dataset 352) as project tables: one event a line of an invoice, from a local file or the publisher's archive.

The publisher's archive holds a spreadsheet, which nothing here reads: it is fetched and unpacked, and the user told to save it as CSV.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console

from shortlist.datasets.download import download_zip, is_whole_zip, zip_member, zip_members
from shortlist.datasets.online_retail_texts import README, SETTINGS
from shortlist.datasets.project_folder import Project, file_sha256, write_whole
from shortlist.errors import DataError, FetchError
from shortlist.files import SourceFrame, read_frame, shown
from shortlist.log import read_ids

PUBLISHER = "https://archive.ics.uci.edu/static/public/352/online+retail.zip"
FILES = ("online_retail.parquet", "online_retail.csv")
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
SPREADSHEET_TIMES = ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M")  # as spreadsheet programs write them, by country


def fetch_online_retail(folder: Path, console: Console, *, files: Path | None = None) -> Project:
    """The tables and texts of Online Retail.

    files   a folder with online_retail.parquet or online_retail.csv; None: `folder`/download
    Raises  FetchError where there is no such file, or none could be made of what the publisher sends; DataError where it holds
            what it should not, naming the row
    """
    path = _published_table(folder / "download", console) if files is None else _local_table(files)
    source = f"{path.name} (SHA-256 {file_sha256(path)}), a copy of Online Retail, {PUBLISHER}"
    with console.status(f"reading {path.name}"):
        rows = read_rows(read_frame(str(path), what="events"))
        sold, counts = rows_sold(rows)
        if sold.is_empty():
            raise FetchError(f"{path} must hold sales to known customers; got none in {rows.height:,} rows ({counts}); copy the file again")
        tables, facts = online_retail_tables(sold)
    counts["stock_codes_of_left_out_rows_alone"] = rows["stock_code"].n_unique() - tables["items"].height
    return Project(tables, SETTINGS, README.format(source=source), source, counts | facts)


def read_rows(source: SourceFrame) -> pl.DataFrame:
    """The publisher's columns in one form: invoice, stock_code, description, country (strings), quantity, unit_price, customer_id
    (integer, or null), invoiced_at (datetime). Raises DataError naming the first row of what cannot be read.
    """
    for name in COLUMNS:
        source.column(name, "publisher's")
    return pl.DataFrame(
        {
            "customer_id": _whole_numbers(source, "CustomerID", nulls=True),
            "stock_code": read_ids(source, "StockCode", "item").cast(pl.String),
            "invoiced_at": _times(source, "InvoiceDate"),
            "invoice": read_ids(source, "InvoiceNo", "invoice").cast(pl.String),
            "quantity": _whole_numbers(source, "Quantity"),
            "unit_price": _numbers(source, "UnitPrice"),
            "description": source.frame["Description"].cast(pl.String),
            "country": source.frame["Country"].cast(pl.String),
        }
    )


def rows_sold(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows that are sales to a known customer, and how many were left out: each row for the first reason that holds."""
    reasons = {
        "cancellations_left_out": pl.col("invoice").str.to_uppercase().str.starts_with("C"),
        "rows_without_customer_left_out": pl.col("customer_id").is_null(),
        "rows_with_unit_price_of_0_or_less_left_out": pl.col("unit_price") <= 0,
        "rows_with_quantity_of_0_or_less_left_out": pl.col("quantity") <= 0,
    }
    counts = {}
    for reason, holds in reasons.items():
        kept = rows.filter(~holds)
        counts[reason] = rows.height - kept.height
        rows = kept
    return rows, counts


def online_retail_tables(sold: pl.DataFrame) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """The tables `events`, `items` and `users`, and what was ambiguous in them.

    events  the rows by time, and within one instant in the order of the file
    items   of each stock code the description that most of its rows carry (of equally many, the first in the alphabet; blanks put
            right) and the median of its unit prices: facts of the whole log, not of a training window
    users   of each customer the country of the first row
    """
    sold = sold.sort("invoiced_at", maintain_order=True).with_columns(
        description=pl.col("description").str.replace_all(r"\s+", " ").str.strip_chars().replace("", None)
    )
    descriptions = sold.drop_nulls("description").group_by("stock_code", "description").len()
    most_frequent = descriptions.sort(["stock_code", "len", "description"], descending=[False, True, False]).unique(
        "stock_code", keep="first", maintain_order=True
    )
    prices = sold.group_by("stock_code").agg(price=pl.col("unit_price").median())
    items = prices.join(most_frequent, on="stock_code", how="left").select("stock_code", "description", "price").sort("stock_code")
    countries = sold.group_by("customer_id").agg(pl.col("country").first(), countries=pl.col("country").n_unique())
    events = sold.select("customer_id", "stock_code", "invoiced_at", "invoice", "quantity", "unit_price")
    facts = {
        "stock_codes_without_description": items["description"].null_count(),
        "stock_codes_of_several_descriptions": descriptions.height - most_frequent.height,
        "customers_of_several_countries": int((countries["countries"] > 1).sum()),
    }
    users = countries.select("customer_id", "country").sort("customer_id")
    return {"events": events, "items": items, "users": users}, facts


def _local_table(folder: Path) -> Path:
    table = _table_in(folder)
    if table is None:
        raise FetchError(f"{folder} must hold {' or '.join(FILES)}; {_holdings(folder)}; {_how_to_save()}")
    return table


def _published_table(folder: Path, console: Console) -> Path:
    """The table put into the download folder by hand; else the archive is fetched there, and FetchError says what to do with it."""
    table = _table_in(folder)
    if table is not None:
        return table
    archive = folder / "online_retail.zip"
    if not is_whole_zip(archive):
        try:
            download_zip(PUBLISHER, archive, console)
        except FetchError as error:
            raise FetchError(f"{error}. By hand: name a folder that holds {' or '.join(FILES)} with --from") from None
    raise FetchError(f"the publisher sends a spreadsheet, which shortlist does not read: {_unpacked(archive)}; {_how_to_save()}")


def _unpacked(archive: Path) -> Path:
    """The spreadsheet in the archive, now beside it."""
    spreadsheet = next((name for name in zip_members(archive) if name.lower().endswith(".xlsx")), None)
    if spreadsheet is None:
        raise FetchError(f"{archive} must hold a spreadsheet (.xlsx); it holds {', '.join(zip_members(archive)[:5])}; {_how_to_save()}")
    path = archive.with_suffix(".xlsx")
    write_whole(path, zip_member(archive, spreadsheet))
    return path


def _table_in(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _holdings(folder: Path) -> str:
    if not folder.is_dir():
        return "it is no folder"
    return f"it holds {', '.join(sorted(entry.name for entry in folder.iterdir())[:5]) or 'nothing'}"


def _how_to_save() -> str:
    columns = ", ".join(COLUMNS)
    return f"save the spreadsheet as CSV (UTF-8, commas) named {FILES[1]}, with the columns {columns}, and name its folder with --from"


def _numbers(source: SourceFrame, name: str) -> pl.Series:
    numbers = source.frame[name].cast(pl.Float64, strict=False)
    source.refuse(name, ~numbers.is_finite().fill_null(False), "must hold a number in every row", "copy the file again")
    return numbers


def _whole_numbers(source: SourceFrame, name: str, *, nulls: bool = False) -> pl.Series:
    """The column as Int64, though it may hold floats: whole numbers beside missing ones are often written as 1.0."""
    values = source.frame[name].cast(pl.Float64, strict=False)
    numbers = values.cast(pl.Int64, strict=False)
    missing = source.frame[name].is_null() & nulls
    source.refuse(name, (numbers != values).fill_null(True) & ~missing, "must hold whole numbers", "copy the file again")
    return numbers


def _times(source: SourceFrame, name: str) -> pl.Series:
    """The column as datetimes: as they came, or read from text in the one order of day and month that all of them allow."""
    series = source.frame[name]
    source.refuse(name, series.is_null(), "must hold a time in every row", "copy the file again")
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.cast_time_unit("us")
    read = [series.cast(pl.String).str.to_datetime(form, time_unit="us", strict=False) for form in SPREADSHEET_TIMES]
    whole = [times for times in read if not times.null_count()]
    if len(whole) == 1:
        return whole[0]
    readings = "days and months cannot be told apart" if whole else "not all are"
    raise DataError(
        f"{source.source}: column {name!r} must hold times as 2010-12-01 08:26:00, or all as 12/31/2010 08:26 or all as 31/12/2010 08:26; "
        f"got {shown(series[0])} in the first row, and {readings}; write them the first way"
    )
