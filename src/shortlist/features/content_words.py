"""What the catalogue says of each item, as words: those of its texts, and its categories.

Columns that the item features name as text, category or categories are read. A category is one word, told apart by its column; words
of all texts are one vocabulary. No choice is looked at, so a new item has words like any other.
"""

from __future__ import annotations

import polars as pl

Columns = tuple[tuple[str, str], ...]


def content_words(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """One row a distinct word of a row of `frame`: `item` (its number, rising), `word`, `times` it stands there.

    columns   (name, how it is read: "text", "category" or "categories")

    A missing value says nothing. Words of texts are runs of letters and digits in NFKC and lower case, as text features read them.
    """
    found = [pl.DataFrame(schema={"item": pl.UInt32, "word": pl.String})]
    for column, kind in columns:
        lists = _words(frame[column], column, kind).alias("word").to_frame().with_row_index("item")
        found.append(lists.explode("word", empty_as_null=False, keep_nulls=False).drop_nulls("word"))
    return pl.concat(found).group_by("item", "word").agg(pl.len().alias("times")).sort("item", "word")


def _words(values: pl.Series, column: str, kind: str) -> pl.Series:
    """(n,) a list of words each, null where the value is missing."""
    if kind == "text":
        return values.cast(pl.String).str.normalize("NFKC").str.to_lowercase().str.extract_all(r"\w+")
    if kind == "category":
        values = values.reshape((len(values), 1)) if values.dtype != pl.Null else values
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if isinstance(values.dtype, pl.List) and values.dtype.inner == pl.Boolean:
        values = values.cast(pl.List(pl.Int64))  # the same value as 0 and 1, as vocabularies have it
    return values.cast(pl.List(pl.String)).list.eval(pl.lit(f"{column}=") + pl.element())
