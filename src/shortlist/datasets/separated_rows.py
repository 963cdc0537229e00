"""Text files whose fields stand between separators, without a header and without quoting: the form of MovieLens and MovieTweetings."""

from __future__ import annotations

import polars as pl

from shortlist.errors import FetchError


def separated_rows(where: str, text: str, separator: str, columns: list[str]) -> pl.DataFrame:
    """One row a line, the fields as strings under `columns`. Raises FetchError naming the first line with another number of fields.

    where      the file, for messages
    separator  of one or more characters; a line may end in a carriage return
    """
    lines = pl.Series("line", text.replace("\r\n", "\n").rstrip("\n").split("\n"), dtype=pl.String)
    cells = lines.str.split(separator)
    widths = cells.list.len()
    if (widths != len(columns)).any():
        row = int((widths != len(columns)).arg_max() or 0)
        raise FetchError(f"{where} must have {len(columns)} fields in every line; got {widths[row]} in line {row + 1}; fetch it again")
    return cells.list.to_struct(fields=columns).struct.unnest()
