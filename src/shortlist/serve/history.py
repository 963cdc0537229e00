"""What a user chose: the published history and the events since, as rows of one version."""

from __future__ import annotations

import numpy as np

from shortlist.serve.events import Recent
from shortlist.serve.ids import Id
from shortlist.serve.overlay import Overlay, Rows
from shortlist.serve.query_path import NO_ROWS
from shortlist.serve.version import LiveVersion


def known_history(version: LiveVersion, overlay: Overlay, user: Id, recent: Recent | None) -> Rows:
    """Rows, oldest first: what was published of the user, then the events, by time. Unknown items are left out.

    An event that is not later than the last one that training saw, of an item that the published history holds, is in that
    history already and does not count twice. Repeated choices stay repeated, as in the log.
    """
    published = NO_ROWS
    if version.histories is not None and not (recent is not None and recent.forgotten):
        published = version.rows_now(overlay, version.histories.of(user))
    if recent is None or not recent.items:
        return published
    rows = rows_of_own_type(version, overlay, recent.items)
    known = rows >= 0
    if len(published) and version.trained_until is not None:
        is_old = np.array(recent.times) <= version.trained_until
        known &= ~(is_old & np.isin(rows, published))
    return np.concatenate([published, rows[known]])


def rows_of_own_type(version: LiveVersion, overlay: Overlay, ids: list[Id]) -> Rows:
    """(n,) rows of ids that were stored under any version, -1 = unknown, as one of another type is."""
    wanted = version.item_ids.id_type
    if all(type(value) is wanted for value in ids):
        return version.rows_of(overlay, ids)
    rows = np.full(len(ids), -1, np.int64)
    fits = [place for place, value in enumerate(ids) if type(value) is wanted]
    rows[fits] = version.rows_of(overlay, [ids[place] for place in fits])
    return rows
