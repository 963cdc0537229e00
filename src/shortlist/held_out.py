"""Choices that training does not learn from: they end it, and they set what cannot be learned (calibration.py).

They are looked at as choices to come are: an item that no learned choice chose is shown as one that nobody chose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shortlist.dataset import Dataset, Examples
from shortlist.encode import Tables, full_corpus_loss
from shortlist.features.arrays import FeatureArray, Ids
from shortlist.features.encoder import TableEncoder
from shortlist.features.vocabulary import CategoryEncoder, Vocabulary
from shortlist.learner import Learner
from shortlist.towers import TwoTower


@dataclass(frozen=True)
class HeldOut:
    """Held-out choices, and the corpus as it looked before them.

    dataset      the window's, with the ids of items that no learned choice chose shown as unknown
    fit          what is learned from
    examples     the choices held out, in the order of the log; may be none
    never        (M,) items that no learned choice chose
    log_weight   (M,) natural log of what each item counts in the softmax's sum
    level_free   is the level of the items `never` for calibration alone to say, because they were no negatives?
    """

    dataset: Dataset
    fit: Examples
    examples: Examples
    never: NDArray[np.bool_]
    log_weight: NDArray[np.float32]
    level_free: bool

    def loss(self, model: TwoTower, tables: Tables) -> float:
        """Mean nats per example under the softmax over the whole corpus; where the level of items never chosen is free, at its best."""
        free = self.never if self.level_free else None
        return full_corpus_loss(model, tables, self.dataset, self.examples, self.log_weight, free_level=free)


def held_out(learner: Learner, fit: Examples, examples: Examples) -> HeldOut:
    """What a learner of `fit` may know of the held-out `examples`."""
    dataset = learner.dataset
    never = np.bincount(fit.item_row, minlength=len(dataset.items)) == 0
    features = with_hidden_ids(dataset.item_features, dataset.item_encoder, never)
    level_free = is_calibrated(learner) and not learner.negatives.bring_unchosen
    return HeldOut(replace(dataset, item_features=features), fit, examples, never, learner.negatives.log_weight(), level_free)


def is_calibrated(learner: Learner) -> bool:
    """Will held-out choices set the level of items never chosen? It is kept in the biases of ids."""
    return learner.settings.calibrate and learner.model.settings.item_bias and learner.model.id_feature is not None


def with_hidden_ids(features: dict[str, FeatureArray], encoder: TableEncoder, hidden: NDArray[np.bool_]) -> dict[str, FeatureArray]:
    """The same features of M items, in which the items `hidden` (M,) have an id that is not known."""
    name = encoder.id_feature()
    if name is None:
        return features
    ids, unknown = features[name], id_vocabulary(encoder, name).unknown
    assert isinstance(ids, Ids)
    rows = np.where(hidden & (ids.values >= unknown.stop), unknown_row(ids.values, unknown), ids.values)
    return {**features, name: Ids(rows.astype(np.int32))}


def unknown_row(rows: NDArray[np.integer], unknown: range) -> NDArray[np.integer]:
    """Which of the unknown rows stands for each id row: any, but always the same."""
    chosen: NDArray[np.integer] = unknown.start + rows % len(unknown)
    return chosen


def id_vocabulary(encoder: TableEncoder, name: str) -> Vocabulary:
    """The vocabulary of the id feature `name`."""
    found = encoder.features[name].encoder
    assert isinstance(found, CategoryEncoder)
    return found.vocabulary
