"""Vocabularies that grow between windows, and what was learned carried over to the new rows.

The rule: a value that a later window saw (an id: chose) enters the vocabulary; known values stay; a new row starts as a copy
of the unknown row it had until then, so a model does not change by growing. Text weights, numbers' statistics and buckets
stay as first fitted: what was learned depends on them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from shortlist.features.encoder import Feature, TableEncoder
from shortlist.features.shown_popularity import TASTE
from shortlist.features.vocabulary import CategoriesEncoder, CategoryEncoder, Vocabulary, fit_vocabulary
from shortlist.learner import Learner, part
from shortlist.towers import BIAS, MATCH, OUTPUT


def grown_encoder(
    encoder: TableEncoder, frame: pl.DataFrame, *, seen: NDArray[np.bool_], chosen: NDArray[np.bool_] | None = None
) -> TableEncoder:
    """The encoder with the values of the rows `seen` (for ids: `chosen`) added to its vocabularies."""
    grown = {}
    for name, feature in encoder.features.items():
        if isinstance(feature.encoder, (CategoryEncoder, CategoriesEncoder)):
            rows = chosen if feature.settings.kind == "id" and chosen is not None else seen
            values = frame[feature.column].filter(pl.Series(rows))
            if isinstance(feature.encoder, CategoriesEncoder):
                values = values.explode(empty_as_null=False, keep_nulls=False)
            grown[name] = Feature(feature.column, feature.settings, _grown(feature, values))
        else:
            grown[name] = feature
    return TableEncoder(grown)


def carry_over(old: Learner, new: Learner) -> None:
    """Puts into `new` what `old` learned: weights, optimiser sums, the frequency stream; rows of new values start as unknown.

    Item memories (queue, cache) start afresh: `Learner.begin` fills them.
    """
    state = old.state()
    new.model.load_state_dict(part(state, "model/"))
    with torch.no_grad():
        for name, parameter in new.parameters.items():
            new.optimizer.state[parameter]["sum"].copy_(state[f"sum/{name}"])
        for name, table in new.tables.weights.items():
            rows = torch.from_numpy(_old_rows(old, new, name))
            table.copy_(old.tables.weights[name][rows])
            new.tables.sums[name].copy_(old.tables.sums[name][rows])
    new.stream = old.stream


def _grown(feature: Feature, values: pl.Series) -> CategoryEncoder | CategoriesEncoder:
    encoder = feature.encoder
    assert isinstance(encoder, (CategoryEncoder, CategoriesEncoder))
    known = encoder.vocabulary.values
    fresh = fit_vocabulary(values, feature.settings).values
    if not len(fresh):
        return encoder
    both = fresh if not len(known) else pl.concat([known, fresh.cast(known.dtype).rename(known.name)]).unique().sort()
    return replace(encoder, vocabulary=Vocabulary(both, feature.settings.unknown_buckets))


def _old_rows(old: Learner, new: Learner, table: str) -> NDArray[np.int64]:
    """(rows of the new table,) the row of the old table that each starts as."""
    if table == TASTE:  # of no feature
        return np.arange(len(new.tables.weights[table]))
    side, _, name = table.partition("/")
    for suffix in (BIAS, OUTPUT, MATCH):  # tables with the rows of the id table
        name = name.removesuffix(suffix)
    encoders = {
        "item": (old.dataset.item_encoder, new.dataset.item_encoder),
        "user": (old.dataset.query_encoder.user, new.dataset.query_encoder.user),
        "context": (old.dataset.query_encoder.context, new.dataset.query_encoder.context),
    }
    before, after = (encoder.features[name].encoder if name in encoder.features else None for encoder in encoders[side])
    if not isinstance(before, (CategoryEncoder, CategoriesEncoder)) or not isinstance(after, (CategoryEncoder, CategoriesEncoder)):
        return np.arange(len(new.tables.weights[table]))
    shared = np.arange(after.vocabulary.unknown.stop)  # missing and unknown rows stay where they are
    return np.concatenate([shared, before.vocabulary.rows(after.vocabulary.values)]).astype(np.int64)
