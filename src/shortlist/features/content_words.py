"""What the catalogue says of each item, as words: those of its texts, and its categories.

Columns that the item features name as text, category or categories are read. A category is one word, told apart by its column; words
of all texts are one vocabulary. No choice is looked at, so a new item has words like any other.
"""

from __future__ import annotations

import polars as pl


def content_words(frame: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """One row a distinct word of a row of `frame`: `item` (its number, rising), `word`, `times` it stands there.

    A missing value says nothing.
    """
    found = [pl.DataFrame(schema={"item": pl.UInt32, "word": pl.String})]
    for column, kind in columns.items():
        lists = _words(frame[column], column, kind).alias("word").to_frame().with_row_index("item")
        found.append(lists.explode("word", empty_as_null=False, keep_nulls=False).drop_nulls("word"))
    return pl.concat(found).group_by("item", "word").agg(pl.len().alias("times")).sort("item", "word")


def _words(values: pl.Series, column: str, kind: str) -> pl.Series:
    """(n,) a list of words each, null where the value is missing."""
    if kind == "text":
        return values.cast(pl.String).str.to_lowercase().str.extract_all(r"\w+")
    if kind == "category":
        values = values.cast(pl.String).reshape((len(values), 1))
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    return values.cast(pl.List(pl.String)).list.eval(pl.lit(f"{column}=") + pl.element())
