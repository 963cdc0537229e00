"""Writes to the items: what the journal holds of them, and what they make of an overlay.

Of an item only the last write counts. So any number of writes is folded into rows and withdrawals first, encoded once, and
applied once: a replay over another version, with another tower, is the same as one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from shortlist.errors import BadRequestError, BundleError, DataError
from shortlist.index.contract import LARGEST_NORM
from shortlist.serve.ids import Id
from shortlist.serve.item_rows import frame_of
from shortlist.serve.overlay import Floats, Overlay
from shortlist.serve.version import LiveVersion

_BLOCK = 1024  # items encoded at a time


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One acknowledged request: items put, with their rows, or items withdrawn. Ids stand apart: versions name their column differently."""

    ids: list[str | int]
    rows: list[dict[str, Any]] | None = None  # None: withdrawn


@dataclass(frozen=True, eq=False)
class Encoded:
    """Items as one version sees them."""

    version: LiveVersion
    ids: list[Id]
    frame: pl.DataFrame
    embeddings: Floats
    vectors: Floats


_decoder = msgspec.json.Decoder(Write)


def decoded(payloads: Iterable[bytes]) -> list[Write]:
    """The writes of a journal's payloads. Raises BundleError for what is none of ours."""
    try:
        return [_decoder.decode(payload) for payload in payloads]
    except msgspec.MsgspecError as error:
        raise BundleError(f"the journal must hold writes of items: {error}; restore it, or serve with the program that wrote it") from None


def folded(writes: Iterable[Write]) -> tuple[dict[Id, Mapping[str, Any]], list[Id]]:
    """(rows of the items that were put, ids of those that were withdrawn) after all writes, in order of their last write."""
    last: dict[Id, Mapping[str, Any] | None] = {}
    for write in writes:
        for place, item_id in enumerate(write.ids):
            last.pop(item_id, None)
            last[item_id] = None if write.rows is None else write.rows[place]
    return {key: row for key, row in last.items() if row is not None}, [key for key, row in last.items() if row is None]


def put_of(version: LiveVersion, rows: Sequence[Mapping[str, Any]]) -> tuple[Write, Encoded]:
    """The write that puts these rows of the items table, and the items as `version` sees them.

    Raises BadRequestError for a row without id, an id that is named twice or of another type, and values that do not fit
    """
    column = version.bundle.items.id_column
    ids: list[Id] = [row.get(column) for row in rows]  # type: ignore[misc]  # rows_of refuses what is no id
    if None in ids:
        raise BadRequestError(f"an item must have an id in {column!r}: got none in row {ids.index(None) + 1}")  # type: ignore[arg-type]  # it is there
    version.item_ids.rows_of(ids)
    if len(set(ids)) < len(ids):
        raise BadRequestError(f"items of one request must differ in {column!r}: one is named twice; send its last state")
    write = Write(ids, [{name: value for name, value in row.items() if name != column} for row in rows])
    return write, encoded_items(version, ids, frame_of(rows, version.bundle.items.frame.schema))


def delete_of(version: LiveVersion, ids: Sequence[Id]) -> Write:
    """The write that withdraws these items. Raises BadRequestError for ids of another type."""
    version.item_ids.rows_of(ids)
    return Write(list(ids))


def encoded_items(version: LiveVersion, ids: list[Id], frame: pl.DataFrame) -> Encoded:
    """The items by the item tower of `version`. Raises BadRequestError for values that the features cannot mean."""
    bundle = version.bundle
    embeddings, vectors = [version.embeddings[:0]], [version.vectors[:0]]
    for start in range(0, frame.height, _BLOCK):
        try:
            embedding, vector = bundle.encode_items(frame[start : start + _BLOCK])
        except DataError as error:
            raise BadRequestError(f"an item does not fit version {version.name}: {error}") from None
        embeddings.append(embedding)
        vectors.append(vector)
    made = Encoded(version, ids, frame, np.concatenate(embeddings), np.concatenate(vectors))
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", made.vectors, made.vectors, dtype=np.float64))
    directions = np.linalg.norm(made.vectors[:, : bundle.dim], axis=1)
    # a direction has length 1: numbers whose squares overflow give one of length 0, an item that is like nothing
    if not (np.isfinite(made.embeddings).all() and (norms <= LARGEST_NORM).all() and (np.abs(directions - 1) < 0.01).all()):
        raise BadRequestError(f"an item must have a finite vector in version {version.name}: its numbers are too large; correct them")
    return made


def replayed(version: LiveVersion, overlay: Overlay, writes: Iterable[Write]) -> tuple[Overlay, int]:
    """(the overlay after the writes, how many items had to be left out because this version has no place for them).

    A column that this version does not have is left out of a row; an id of another type, or a value that does not fit, of the version.
    """
    puts, gone = folded(writes)
    wanted = version.item_ids.id_type
    withdrawn = [item_id for item_id in gone if type(item_id) is wanted]
    rows = {item_id: row for item_id, row in puts.items() if type(item_id) is wanted}
    encoded, refused = _encoded_where_possible(version, rows)
    return applied(version, overlay, encoded, withdrawn), len(puts) - len(rows) + refused


def applied(version: LiveVersion, overlay: Overlay, put: Encoded | None, withdrawn: list[Id]) -> Overlay:
    """The overlay with items put and items withdrawn, of which none is both."""
    if put is not None and put.ids:
        overlay = overlay.with_items(put.ids, put.frame, put.embeddings, put.vectors, version.item_ids)
    return overlay.without(withdrawn, version.item_ids) if withdrawn else overlay


def _encoded_where_possible(version: LiveVersion, rows: Mapping[Id, Mapping[str, Any]]) -> tuple[Encoded | None, int]:
    """(the items that fit, how many do not). All at once, and one by one where one of them does not fit."""
    if not rows:
        return None, 0
    catalogue = version.bundle.items
    schema = catalogue.frame.schema
    fitting = {
        item_id: {catalogue.id_column: item_id, **{name: value for name, value in row.items() if name in schema}}
        for item_id, row in rows.items()
    }
    try:
        return encoded_items(version, list(fitting), frame_of(list(fitting.values()), schema)), 0
    except BadRequestError:
        kept = {item_id: row for item_id, row in fitting.items() if _fits(version, item_id, row)}
        if not kept:
            return None, len(rows)
        return encoded_items(version, list(kept), frame_of(list(kept.values()), schema)), len(rows) - len(kept)


def _fits(version: LiveVersion, item_id: Id, row: Mapping[str, Any]) -> bool:
    try:
        encoded_items(version, [item_id], frame_of([row], version.bundle.items.frame.schema))
    except BadRequestError:
        return False
    return True
