"""One request -> the vector that is searched with: ids to rows, history, features, query tower. No frames, no joins.

The same bits as `Bundle.encode_queries` gives for the one query, by tests over every kind of feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.bundle import Bundle, asking_column
from shortlist.features.arrays import Bag, Dense, FeatureArray
from shortlist.features.content_codes import shown_by_one, weights_by_age
from shortlist.features.lookup import look_up
from shortlist.features.shown_popularity import TASTE, popularity_factor_of_one
from shortlist.pace import step
from shortlist.serve.context import ContextReader
from shortlist.serve.ids import Id, IdTable, open_ids
from shortlist.serve.tower import QueryTower

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
NO_ROWS: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class PublishedHistories:
    """What each user, or seed, had chosen when training ended: items[starts[u]:starts[u + 1]], oldest first; gone items left out."""

    asked_by: str  # "user" or "seed"
    users: IdTable
    items: NDArray[np.int32]
    starts: NDArray[np.int64]

    def of(self, user: Id) -> Rows:
        """Item rows of one user's history; empty for an unknown user."""
        row = self.users.row_of(user)
        return NO_ROWS if row < 0 else self.items[self.starts[row] : self.starts[row + 1]].astype(np.int64)


def published_histories(bundle: Bundle) -> PublishedHistories | None:
    """The histories of a bundle as rows; None where it has none."""
    if bundle.histories is None:
        return None
    flat = bundle.histories["history"].explode(empty_as_null=False, keep_nulls=False)
    rows = bundle.items.rows_of(flat)
    ends = np.cumsum(bundle.histories["history"].list.len().fill_null(0).to_numpy(), dtype=np.int64)
    known_before = np.concatenate([[0], np.cumsum(rows >= 0)])  # items that are still there, in front of each place
    starts = known_before[np.concatenate([[0], ends])].astype(np.int64)
    asker = asking_column(bundle.histories)
    step()
    return PublishedHistories(asker, open_ids(bundle.histories[asker], asker), rows[rows >= 0].astype(np.int32), starts)


class QueryPath:
    """The query side of one version, prepared for one request at a time. Safe to call from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        encoder = bundle.query_encoder
        self.has_seed, self.history_last = encoder.has_seed, encoder.history_last
        self._tower, self._dim, self._ages = QueryTower(bundle.query_tower_of_one), bundle.dim, weights_by_age(self.history_last)
        self._taste = None if bundle.item_encoder.content is None else np.array(bundle.tables[TASTE][0])
        tables = {name: plain(table) for name, table in bundle.tables.items()}
        self._context = ContextReader(encoder.context, tables)
        self._user_features = {name: _plain_feature(column) for name, column in bundle.user_features.items()}
        self._user_tables = {name: table for name, table in tables.items() if name.startswith("user/")}

    def read_context(self, context: dict[str, Any]) -> list[Floats]:
        """The pieces of the context. Raises BadRequestError for what does not fit."""
        return self._context.read(context)

    def vector(self, seed: Floats | None, history: Floats, user_row: int, context: list[Floats]) -> Floats:
        """(1, S) the query's vector.

        seed      (D,) embedding of the seed, or (D + m + 1,) with its content code and bias where items match; None = none
        history   (n <= history_last, D or D + m + 1) the same of the history, newest first
        user_row  row of the users table, -1 = nobody
        context   as `read_context` gives it
        """
        pieces = [*self._of_user(user_row), *context]
        if self._taste is None:
            return self._tower.vector(seed, history, pieces)
        dim, ages = self._dim, self._ages[: len(history)]
        vector = self._tower.vector(None if seed is None else seed[:dim], history[:, :dim], pieces)
        vector[0, dim] = popularity_factor_of_one(self._taste, None if seed is None else seed[-1], history[:, -1], ages)
        codes = shown_by_one(None if seed is None else seed[dim:-1], history[:, dim:-1], ages)
        return np.concatenate([vector, codes], axis=1)

    def _of_user(self, row: int) -> list[Floats]:
        if not self._user_features:
            return []
        users = {name: column.take(np.array([row])) for name, column in self._user_features.items()}
        return [look_up(users, self._user_tables, "user", 1)[0]]


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory without the memory map's class, whose indexing costs more than that of an array."""
    return array.view(np.ndarray)


def _plain_feature(column: FeatureArray) -> FeatureArray:
    match column:
        case Bag():
            return Bag(plain(column.values), plain(column.offsets), plain(column.weights))
        case Dense():
            return Dense(plain(column.values))
        case _:
            return type(column)(plain(column.values))
