"""Tables larger than memory, written as Parquet block by block."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from shortlist.id_places import ROWS_AT_ONCE


def write_parquet_blocks(path: Path, blocks: Iterable[pl.DataFrame]) -> int:
    """The number of rows written: the blocks one after the other, small ones gathered in one row group. There is one block at least."""
    writer: pq.ParquetWriter | None = None
    waiting: list[pl.DataFrame] = []
    rows = 0
    try:
        for block in blocks:
            waiting.append(block)
            rows += block.height
            if sum(part.height for part in waiting) >= ROWS_AT_ONCE:
                writer = _write_row_group(path, writer, waiting)
        if waiting:
            writer = _write_row_group(path, writer, waiting)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _write_row_group(path: Path, writer: pq.ParquetWriter | None, waiting: list[pl.DataFrame]) -> pq.ParquetWriter:
    """The writer, opened if it was not yet; `waiting` is empty afterwards."""
    table = pl.concat(waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
    waiting.clear()
    writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
    writer.write_table(table, row_group_size=2 * ROWS_AT_ONCE)
    return writer
