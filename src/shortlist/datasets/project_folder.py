"""A project folder on disk: tables, settings, readme and `fetch.json`, the record that says a fetch is complete.

Written so that a killed fetch can be run again and a finished one is recognised. Where the data comes from is not known here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
from rich.console import Console

from shortlist.errors import FetchError
from shortlist.parquet_blocks import write_parquet_blocks

RECORD = "fetch.json"
SETTINGS = "shortlist.toml"
README = "README.txt"
TABLES = ("events", "items", "users")

Options = Mapping[str, bool | int]


class TableRecord(msgspec.Struct, frozen=True):
    """One table of a finished fetch."""

    rows: int
    sha256: str


class Record(msgspec.Struct, frozen=True):
    """What `fetch.json` holds. Not complete: a fetch began to write here and was cut short."""

    dataset: str
    options: dict[str, bool | int]
    complete: bool
    source: str
    fetched_at: str = ""  # UTC
    tables: dict[str, TableRecord] = {}
    counts: dict[str, int] = {}


@dataclass(frozen=True)
class Project:
    """What a fetcher hands over: tables by name (`events`, `items`, perhaps `users`) and the texts that go with them.

    A table that is larger than memory comes as blocks of rows, which are asked for as they are written.
    """

    tables: Mapping[str, pl.DataFrame | Iterable[pl.DataFrame]]
    settings: str  # the text of shortlist.toml
    readme: str  # the text of README.txt
    source: str  # where the data came from, in one line
    counts: dict[str, int] = field(default_factory=dict)  # what was left out and why, for the record


def finished_fetch(folder: Path, name: str, options: Options) -> bool:
    """True where `folder` holds a complete fetch of `name` with these options and every table still has its recorded hash.

    Raises FetchError where the folder belongs to something else: another dataset, or tables that no fetch wrote.
    """
    record = _read_record(folder)
    if record is None:
        _refuse_foreign_tables(folder)
        return False
    if record.dataset != name:
        raise FetchError(f"{folder} must be empty or hold {name}; it holds {record.dataset}; name another folder")
    if not record.complete or record.options != dict(options) or not (folder / SETTINGS).is_file():
        return False
    return all(_holds(folder / file, entry.sha256) for file, entry in record.tables.items())


def write_project(folder: Path, name: str, options: Options, project: Project, console: Console) -> Path:
    """The path of the shortlist.toml of the folder now written: tables first, `fetch.json` last, each file whole or not at all.

    A shortlist.toml that is already there is the user's and stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = Record(name, dict(options), complete=False, source=project.source)
    _write_record(folder, begun)  # from here on the folder is known as ours, even if the fetch is killed
    tables = {}
    for table in TABLES:
        file = folder / f"{table}.parquet"
        if table in project.tables:
            tables[file.name] = _write_table(file, project.tables[table])
        else:
            file.unlink(missing_ok=True)
    write_whole(folder / README, project.readme.encode())
    _write_settings(folder / SETTINGS, project.settings, console)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write_record(folder, msgspec.structs.replace(begun, complete=True, fetched_at=now, tables=tables, counts=project.counts))
    return folder / SETTINGS


def write_whole(path: Path, content: bytes) -> None:
    """Nothing; `path` holds `content`, or what it held before if the program is killed meanwhile."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_table(path: Path, table: pl.DataFrame | Iterable[pl.DataFrame]) -> TableRecord:
    temporary = path.with_name(f"{path.name}.tmp")
    if isinstance(table, pl.DataFrame):
        table.write_parquet(temporary, compression="zstd")
        rows = table.height
    else:
        rows = write_parquet_blocks(temporary, (block.to_arrow(compat_level=pl.CompatLevel.oldest()) for block in table))
    os.replace(temporary, path)
    return TableRecord(rows, file_sha256(path))


def _write_settings(path: Path, settings: str, console: Console) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") != settings:
        message = f"{path} was already there with other content and was left as it is; delete it and run again for the proposed one"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        return
    write_whole(path, settings.encode())


def _write_record(folder: Path, record: Record) -> None:
    write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def _read_record(folder: Path) -> Record | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FetchError(
            f"{path} must be the record of a fetch; got something else ({error}); move it away or name another folder"
        ) from None


def _refuse_foreign_tables(folder: Path) -> None:
    ours = [f"{table}.parquet" for table in TABLES] + [SETTINGS]
    found = [file for file in ours if (folder / file).exists()]
    if found:
        raise FetchError(
            f"{folder} must hold nothing that a fetch would overwrite; got {', '.join(found)} and no {RECORD}; name another folder"
        )


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
