"""Tables larger than memory, written as Parquet block by block."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.id_places import ROWS_AT_ONCE


def write_parquet_blocks(path: Path, blocks: Iterable[pa.Table]) -> int:
    """The number of rows written: the blocks one after the other, small ones gathered in one row group. There is one block at least."""
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    rows = 0
    try:
        for block in blocks:
            waiting.append(block)
            rows += block.num_rows
            if sum(part.num_rows for part in waiting) >= ROWS_AT_ONCE:
                writer = _write_row_group(path, writer, waiting)
        if waiting:
            writer = _write_row_group(path, writer, waiting)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _write_row_group(path: Path, writer: pq.ParquetWriter | None, waiting: list[pa.Table]) -> pq.ParquetWriter:
    """The writer, opened if it was not yet; `waiting` is empty afterwards."""
    table = pa.concat_tables(waiting)
    waiting.clear()
    if writer is None:  # without Arrow's schema: a column of codes and a dictionary is read as the values it stands for
        writer = pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False)
    writer.write_table(table, row_group_size=2 * ROWS_AT_ONCE)
    return writer
