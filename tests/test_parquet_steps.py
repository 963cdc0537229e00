"""What is read step by step is what polars reads at once, whatever the types; a file that was not written for it is one block."""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl
import pytest

from shortlist import parquet_blocks, parquet_steps
from shortlist.parquet_blocks import write_parquet_blocks
from shortlist.parquet_steps import ROWS_KEY, STEP_BYTES, STEP_ROWS, joined, read_in_steps, write_in_steps

ROWS = 2 * STEP_ROWS + 3
DAY = datetime.date(2020, 2, 29)
COLUMNS = {
    "string": pl.Series([f"é{row}" if row % 7 else None for row in range(ROWS)]),
    "int16": pl.Series([row % 30_000 for row in range(ROWS)], dtype=pl.Int16),
    "uint64": pl.Series([2**64 - 1 - row for row in range(ROWS)], dtype=pl.UInt64),
    "float32": pl.Series([row / 3 for row in range(ROWS)], dtype=pl.Float32),
    "boolean": pl.Series([row % 3 == 0 for row in range(ROWS)]),
    "nothing": pl.Series([None] * ROWS),
    "words": pl.Series([["a", None][: row % 3] if row % 5 else None for row in range(ROWS)], dtype=pl.List(pl.String)),
    "look": pl.Series([[1.5, row] if row % 7 else None for row in range(ROWS)], dtype=pl.Array(pl.Float32, 2)),
    "category": pl.Series([f"c{row % 5000}" for row in range(ROWS)], dtype=pl.Categorical),
    "enum": pl.Series([f"c{row % 5}" for row in range(ROWS)], dtype=pl.Enum([f"c{row}" for row in range(7)])),
    "date": pl.Series([DAY] * ROWS),
    "zoned": pl.Series([datetime.datetime(2020, 2, 29, 13)] * ROWS).dt.replace_time_zone("Europe/Berlin"),
    "duration": pl.Series([datetime.timedelta(hours=5)] * ROWS),
    "struct": pl.Series([{"a": row, "b": "x"} for row in range(ROWS)]),
    "int128": pl.Series(range(ROWS)).cast(pl.Int128),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"row": range(ROWS), name: COLUMNS[name]})
    write_in_steps(tmp_path / "table.parquet", frame)
    assert pl.read_parquet(tmp_path / "table.parquet").equals(frame)  # others may read it too
    blocks = list(read_in_steps(tmp_path / "table.parquet"))
    assert len(blocks) >= 3
    read = joined(blocks)
    assert read.schema == frame.schema and read.equals(frame)
    assert blocks == [] and read.n_chunks() == 1


def test_blocks_are_short_in_rows_and_bytes(tmp_path: Path) -> None:
    write_in_steps(tmp_path / "narrow.parquet", pl.DataFrame({"narrow": range(ROWS)}))
    wide = 512  # 2 KB a row
    looks = pl.Series([[float(row + column) for column in range(wide)] for row in range(1009)], dtype=pl.Array(pl.Float32, wide))
    write_in_steps(tmp_path / "wide.parquet", pl.DataFrame({"wide": looks}))
    assert [block.height for block in read_in_steps(tmp_path / "narrow.parquet")] == [STEP_ROWS, STEP_ROWS, 3]
    at_once = STEP_BYTES // (4 * wide)
    assert [block.height for block in read_in_steps(tmp_path / "wide.parquet")] == [at_once] * (1009 // at_once) + [1009 % at_once]


def test_a_table_without_rows_or_columns_is_one_empty_block(tmp_path: Path) -> None:
    write_in_steps(tmp_path / "rows.parquet", pl.DataFrame(schema={"id": pl.String, "look": pl.Array(pl.Float32, 2)}))
    write_in_steps(tmp_path / "columns.parquet", pl.DataFrame())
    (block,) = read_in_steps(tmp_path / "rows.parquet")
    assert block.schema == {"id": pl.String, "look": pl.Array(pl.Float32, 2)} and block.height == 0
    assert joined(list(read_in_steps(tmp_path / "columns.parquet"))).shape == (0, 0)


def test_a_block_is_a_step_and_so_is_a_joined_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list[int]()
    monkeypatch.setattr(parquet_steps, "step", lambda: steps.append(1))
    write_in_steps(tmp_path / "table.parquet", pl.DataFrame({"a": range(ROWS), "b": range(ROWS)}))
    blocks = list(read_in_steps(tmp_path / "table.parquet"))
    assert (len(blocks), len(steps)) == (3, 3)
    joined(blocks)
    assert len(steps) == 3 + 2


def test_a_file_that_names_no_rows_is_one_block_and_one_that_names_none_at_all_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(ROWS)})
    frame.write_parquet(tmp_path / "older.parquet")
    (block,) = read_in_steps(tmp_path / "older.parquet")
    assert block.equals(frame)
    frame.write_parquet(tmp_path / "wrong.parquet", metadata={ROWS_KEY: "0"})
    with pytest.raises(ValueError, match="at least 1: got 0"):
        next(read_in_steps(tmp_path / "wrong.parquet"))
    frame.write_parquet(tmp_path / "lies.parquet", metadata={ROWS_KEY: "1000"})  # slower, and right
    assert joined(list(read_in_steps(tmp_path / "lies.parquet"))).equals(frame)


@pytest.mark.parametrize("blocks", [[7, 60, 60, 1], [41], [0], [3, 0, 0], [40, 40]])
def test_a_table_larger_than_memory_is_written_in_groups_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: list[int]
) -> None:
    monkeypatch.setattr(parquet_blocks, "ROWS_AT_ONCE", 50)
    rows = sum(blocks)
    frame = pl.DataFrame({"id": [f"u{row}" for row in range(rows)], "history": [["a"] * (row % 3) for row in range(rows)]})
    frame = frame.cast({"id": pl.String, "history": pl.List(pl.String)})
    starts = [sum(blocks[:place]) for place in range(len(blocks))]
    tables = [
        frame[start : start + count].to_arrow(compat_level=pl.CompatLevel.oldest()) for start, count in zip(starts, blocks, strict=True)
    ]
    assert write_parquet_blocks(tmp_path / "table.parquet", tables, step_rows=20) == rows
    read = list(read_in_steps(tmp_path / "table.parquet"))
    assert [block.height for block in read] == ([20] * (rows // 20) + [rows % 20] * (rows % 20 > 0) or [0])
    file = parquet_blocks.pq.ParquetFile(tmp_path / "table.parquet").metadata
    assert [file.row_group(group).num_rows for group in range(file.num_row_groups)] == [block.height for block in read] or not rows
    assert joined(read).equals(frame)
