"""Tables larger than memory, written as Parquet block by block."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.id_places import ROWS_AT_ONCE
from shortlist.parquet_steps import ROWS_KEY


def write_parquet_blocks(path: Path, blocks: Iterable[pa.Table], *, step_rows: int | None = None) -> int:
    """The number of rows written: the blocks one after the other, small ones gathered in one row group. There is one block at least.

    step_rows  rows of each row group, for a file that `read_in_steps` reads; None = as many as are gathered
    """
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    rows = 0
    try:
        for block in blocks:
            waiting.append(block)
            rows += block.num_rows
            if sum(part.num_rows for part in waiting) >= ROWS_AT_ONCE:
                writer = writer or _writer(path, block.schema, step_rows)
                waiting = [_write_whole_groups(writer, pa.concat_tables(waiting), step_rows)]
        if writer is None or sum(part.num_rows for part in waiting):
            writer = writer or _writer(path, waiting[0].schema, step_rows)
            writer.write_table(pa.concat_tables(waiting), row_group_size=step_rows or 2 * ROWS_AT_ONCE)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _writer(path: Path, schema: pa.Schema, step_rows: int | None) -> pq.ParquetWriter:
    # Without Arrow's schema: a column of codes and a dictionary is read as the values it stands for.
    writer = pq.ParquetWriter(path, schema, compression="zstd", store_schema=False)
    if step_rows is not None:
        writer.add_key_value_metadata({ROWS_KEY: str(step_rows)})
    return writer


def _write_whole_groups(writer: pq.ParquetWriter, table: pa.Table, step_rows: int | None) -> pa.Table:
    """The rows that are left over: without `step_rows` none, else fewer than a group."""
    count = table.num_rows if step_rows is None else table.num_rows // step_rows * step_rows
    writer.write_table(table.slice(0, count), row_group_size=step_rows or 2 * ROWS_AT_ONCE)
    return table.slice(count)
