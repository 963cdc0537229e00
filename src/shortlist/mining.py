"""Hard negatives from a published version: items that it ranks high, but not highest, for the very query.

Biased, like all hard negatives: whether another column could have been mined as well is not known, so only a mined column's
own chance is corrected. Ranks near the top hold right answers that were not logged; Huang et al. (arXiv 2006.11632) mine from
rank 101 on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shortlist.batches import Mined
from shortlist.bundle import Bundle, open_current
from shortlist.catalogue import Catalogue
from shortlist.errors import ConfigError
from shortlist.queries import Queries
from shortlist.sections import NegativeSettings


class StoreMiner:
    """Asks the live version of a store for each query's list and draws from ranks `first` to `last`."""

    def __init__(self, bundle: Bundle, items: Catalogue, users: Catalogue | None, *, per_query: int, ranks: tuple[int, int]) -> None:
        """`items` and `users` are those whose rows the queries hold. Raises ConfigError where the version cannot be asked."""
        if bundle.query_encoder.context.features:
            raise ConfigError(
                f"negatives.mined_from: version {bundle.name} needs context features of each query, which mining does not pass on: "
                f"{', '.join(bundle.query_encoder.context.features)}; mine from a model of seed, history and user features"
            )
        self.bundle, self.per_query, (self.first, self.last) = bundle, per_query, ranks
        self.theirs = _with_none(bundle.items.rows_of(items.ids))  # our row -> their row
        self.ours = _with_none(items.rows_of(bundle.items.ids))
        same = users is not None and bundle.users is not None
        self.their_user = _with_none(bundle.users.rows_of(users.ids)) if same and users is not None and bundle.users is not None else None

    def __call__(self, queries: Queries, rng: np.random.Generator) -> Mined:
        """`per_query` distinct items for each query, uniformly from ranks `first`..`last` of its list.

        Raises ConfigError where the list of the version is shorter than that.
        """
        asked = Queries(
            self.theirs[queries.seed_row].astype(np.int32),
            queries.user_row if self.their_user is None else self.their_user[queries.user_row].astype(np.int32),
            self.theirs[queries.history_items].astype(np.int32),
            queries.history_start,
            queries.history_end,
        )
        rows, _ = self.bundle.index.search(self.bundle.encode_queries(asked), self.last)  # (B, last)
        listed = self.ours[rows[:, self.first - 1 :]]  # (B, last - first + 1)
        if listed.shape[1] < self.per_query or (listed < 0).any():
            raise ConfigError(
                f"negatives.mined_ranks must lie within the items that both catalogues hold: ranks {self.first}..{self.last} of version "
                f"{self.bundle.name} ({len(self.bundle.items)} items) hold items that are not in this one; lower the ranks, or publish anew"
            )
        places = np.argsort(rng.random(listed.shape), axis=1)[:, : self.per_query]
        return Mined(np.take_along_axis(listed, places, axis=1), self.per_query / listed.shape[1])


def open_miner(settings: NegativeSettings, items: Catalogue, users: Catalogue | None) -> StoreMiner | None:
    """The miner that the settings name; None where they name none."""
    if settings.mined_from is None:
        return None
    bundle = open_current(Path(settings.mined_from))
    return StoreMiner(bundle, items, users, per_query=settings.mined_per_query, ranks=settings.mined_ranks)


def _with_none(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The mapping with one more entry, so that row -1 stays -1."""
    return np.append(rows, -1)
