"""The files of an evaluation: what `shortlist evaluate` leaves in its folder beside the runs, and `shortlist report` reads.

evaluation.json   the table (evaluation_table.evaluation_table); its "made" says how it was made (report/provenance.py)
ranks.parquet     every rank (evaluation_table.ranks_frame)
examples.json     a list of queries, each with what every model recommends (examples.described_examples)
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from shortlist.disk import write_whole

TABLE_FILE, RANKS_FILE, EXAMPLES_FILE = "evaluation.json", "ranks.parquet", "examples.json"


def split_folder(split: str) -> str:
    """The name of the folder that holds the runs of a split."""
    return split.replace("%", "").replace(" ", "-")


def write_evaluation(folder: Path, table: dict[str, Any], ranks: pl.DataFrame, examples: list[dict[str, Any]]) -> None:
    """Writes the three files, each whole, the table last: where there is a table, the others are there too."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = BytesIO()
    ranks.write_parquet(raw)
    write_whole(folder / RANKS_FILE, raw.getvalue())
    write_whole(folder / EXAMPLES_FILE, json.dumps(examples, ensure_ascii=False, indent=1).encode())
    write_whole(folder / TABLE_FILE, json.dumps(table, ensure_ascii=False, indent=1).encode())
