"""A table that is read beside requests: written in small row groups, and read one of them at a time, each a step (pace.py).

polars reads a row group whole, on every core, and a slice of one as slowly. So a file says how many rows its groups have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from shortlist.pace import step

STEP_BYTES, STEP_ROWS = 1 << 19, 4096  # of a row group, at most: reading it takes a millisecond or two
ROWS_KEY = "shortlist.rows"  # of the file's metadata: rows of each group but the last


def write_in_steps(path: Path, frame: pl.DataFrame) -> None:
    """Nothing comes back: `path` is a Parquet file that `read_in_steps` reads in short steps."""
    rows = max(1, min(STEP_ROWS, STEP_BYTES * frame.height // max(int(frame.estimated_size()), 1)))
    frame.write_parquet(path, row_group_size=rows, metadata={ROWS_KEY: str(rows)})


def read_in_steps(path: Path) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file in order, a row group and a step at a time; at least one block. A file that names no rows is one block.

    Raises what polars raises for a file that is none; ValueError for rows that cannot be.
    """
    said = pl.read_parquet_metadata(path).get(ROWS_KEY)
    if said is None:
        yield pl.read_parquet(path, glob=False, hive_partitioning=False)
        return
    rows, table = int(said), pl.scan_parquet(path, glob=False, hive_partitioning=False)
    if rows < 1:
        raise ValueError(f"{ROWS_KEY} must be at least 1: got {rows}")
    height = table.select(pl.len()).collect().item()
    for start in range(0, max(height, 1), rows):
        yield table.slice(start, rows).collect()
        step()


def joined(blocks: list[pl.DataFrame]) -> pl.DataFrame:
    """The blocks, at least one, as one frame without gaps, a column a step; `blocks` is empty afterwards."""
    height, columns = sum(block.height for block in blocks), [block.get_columns() for block in blocks]
    blocks.clear()
    whole = []
    for parts in zip(*columns, strict=True):
        whole.append(pl.concat(parts).rechunk())
        step()
    return pl.DataFrame(whole, height=height)
