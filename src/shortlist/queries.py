"""Queries as arrays: who asks, what they look at, what they chose before, and the context of the moment.

The same `Queries` come from a training log (dataset.py), from a file of queries and from one online request
(`QueryEncoder.encode`), so the query tower cannot tell them apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.catalogue import Catalogue
from shortlist.errors import DataError
from shortlist.features.arrays import FeatureArray
from shortlist.features.encoder import TableEncoder, open_encoder

NONE_ROW = -1  # no seed, no user, or one that the tables do not know


@dataclass(frozen=True)
class Queries:
    """N queries. Query i's history is history_items[history_start[i]:history_end[i]], oldest first."""

    seed_row: NDArray[np.int32]  # (N,) item row, -1 = none
    user_row: NDArray[np.int32]  # (N,) users-table row, -1 = none
    history_items: NDArray[np.int32]  # (E,) item rows, shared by all queries
    history_start: NDArray[np.signedinteger]  # (N,) 32-bit where it fits
    history_end: NDArray[np.signedinteger]  # (N,)
    context: dict[str, FeatureArray] = field(default_factory=dict)  # each with N entries

    def __len__(self) -> int:
        return len(self.seed_row)

    def take(self, rows: NDArray[np.integer]) -> Queries:
        """The queries at `rows`, in that order."""
        return Queries(
            self.seed_row[rows],
            self.user_row[rows],
            self.history_items,
            self.history_start[rows],
            self.history_end[rows],
            {name: column.take(rows) for name, column in self.context.items()},
        )

    def cut(self, rows: slice) -> Queries:
        """The queries of a range of rows, without a copy."""
        context = {name: column.cut(rows) for name, column in self.context.items()}
        start, end = self.history_start[rows], self.history_end[rows]
        return Queries(self.seed_row[rows], self.user_row[rows], self.history_items, start, end, context)

    def with_item_rows(self, new_rows: NDArray[np.int32]) -> Queries:
        """The same queries, item row r now new_rows[r] (-1 = gone: no seed, not in a history); their histories their own, not shared."""
        lengths = self.history_end - self.history_start
        owner = np.repeat(np.arange(len(self)), lengths)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + self.history_start[owner]
        items = new_rows[self.history_items[place]] if len(owner) else np.zeros(0, np.int32)
        kept = items >= 0
        end = np.cumsum(np.bincount(owner[kept], minlength=len(self))).astype(np.int64)
        start = np.concatenate([np.zeros(min(1, len(self)), np.int64), end[:-1]])
        seed_row = np.where(self.seed_row >= 0, new_rows[np.maximum(self.seed_row, 0)], np.int32(NONE_ROW)).astype(np.int32)
        return replace(self, seed_row=seed_row, history_items=items[kept].astype(np.int32), history_start=start, history_end=end)

    def history(self, query: int) -> NDArray[np.int32]:
        """Item rows of one query's history, oldest first."""
        return self.history_items[self.history_start[query] : self.history_end[query]]

    def looking_at_newest(self, which: NDArray[np.bool_]) -> Queries:
        """The same queries, those of `which` (N,) with the newest item of their history as seed, or none without a history."""
        seed_row = np.where(which, np.int32(NONE_ROW), self.seed_row)
        newest = which & (self.history_end > self.history_start)
        seed_row[newest] = self.history_items[self.history_end[newest] - 1]
        return replace(self, seed_row=seed_row)

    def newest_first(self, last: int) -> NDArray[np.int32]:
        """(N, last) item rows of each history, newest first, padded with -1."""
        positions = self.history_end[:, None] - 1 - np.arange(last)  # (N, last)
        inside = positions >= self.history_start[:, None]
        if not len(self.history_items):
            return np.full(positions.shape, NONE_ROW, np.int32)
        return np.where(inside, self.history_items[np.where(inside, positions, 0)], np.int32(NONE_ROW))


@dataclass(frozen=True)
class QueryEncoder:
    """What a query is made of, fitted: user and context features, seed and history by item."""

    user: TableEncoder
    context: TableEncoder
    has_seed: bool
    history_last: int  # 0 = no history

    def encode(self, frame: pl.DataFrame, items: Catalogue, users: Catalogue | None) -> Queries:
        """One query a row of `frame`, whose columns are named by role: user, seed, history and the context columns.

        Any of them may be missing or null. A missing seed is the newest item of the history, as it was in training.
        Seeds and history items that are not in `items` count as none.
        """
        count = frame.height
        seed_row = _rows_of(frame, "seed", items) if self.has_seed else np.full(count, NONE_ROW, np.int32)
        user_row = _rows_of(frame, "user", users) if users is not None else np.full(count, NONE_ROW, np.int32)
        absent = {
            feature.column: pl.Series([None] * count) for feature in self.context.features.values() if feature.column not in frame.columns
        }
        context = self.context.encode(frame.with_columns(**absent)) if self.context.features else {}
        queries = Queries(seed_row, user_row, *_history_arrays(frame, items), context)
        return queries.looking_at_newest(without_seed(frame)) if self.has_seed else queries

    def save(self, folder: Path) -> None:
        """Writes the encoder's files into `folder`."""
        self.user.save(folder, "user_features")
        self.context.save(folder, "context_features")
        facts = {"has_seed": self.has_seed, "history_last": self.history_last}
        (folder / "query.json").write_text(json.dumps(facts), encoding="utf-8")


def open_query_encoder(folder: Path) -> QueryEncoder:
    """The encoder that `QueryEncoder.save` wrote."""
    facts = json.loads((folder / "query.json").read_text(encoding="utf-8"))
    return QueryEncoder(
        open_encoder(folder, "user_features"),
        open_encoder(folder, "context_features"),
        facts["has_seed"],
        facts["history_last"],
    )


def without_seed(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """(n,) rows that name no seed. A seed that the items do not know is one all the same."""
    return frame["seed"].is_null().to_numpy() if "seed" in frame.columns else np.ones(frame.height, bool)


def _rows_of(frame: pl.DataFrame, role: str, table: Catalogue) -> NDArray[np.int32]:
    if role not in frame.columns or frame[role].dtype == pl.Null:
        return np.full(frame.height, NONE_ROW, np.int32)
    return table.rows32_of(frame[role])


def _history_arrays(frame: pl.DataFrame, items: Catalogue) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """(flat item rows, starts, ends) of the list column `history`; unknown items are left out."""
    count = frame.height
    if "history" not in frame.columns or frame["history"].dtype == pl.Null:
        return np.zeros(0, np.int32), np.zeros(count, np.int64), np.zeros(count, np.int64)
    if not isinstance(frame["history"].dtype, (pl.List, pl.Array)):
        raise DataError(f"the history must be a list column: got {frame['history'].dtype}; write one list of item ids a row")
    flat = frame.select("history").with_row_index("query").explode("history", empty_as_null=False, keep_nulls=False)
    rows = items.rows_of(flat["history"]) if flat.height else np.zeros(0, np.int64)
    known = rows >= 0
    lengths = np.bincount(flat["query"].to_numpy()[known], minlength=count)
    end = np.cumsum(lengths).astype(np.int64)
    return rows[known].astype(np.int32), end - lengths, end
