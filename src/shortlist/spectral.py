"""Where the vectors of item ids start: items that the same people chose lie in one direction.

A table of random vectors has to be told by every example apart that two items belong together, and a small log is over before it has
been. What the log says of all pairs at once is in the leading singular vectors of who chose what; the towers go on from there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from shortlist.dataset import Dataset, Examples
from shortlist.decomposition import leading_directions
from shortlist.features.arrays import Ids
from shortlist.features.vocabulary import CategoryEncoder

Rows = NDArray[np.int64]
_SHORTEST = 1e-3  # a vector that hardly reaches into the leading directions (most are .01 to 1 long) has none to start in
_PASSES, _SPARE = 30, 64  # of the decomposition


def start_ids(table: torch.Tensor, id_feature: str, *, dataset: Dataset, examples: Examples, seed: int) -> None:
    """Nothing comes back: the rows of `table` that are one chosen item's own start where `spectral_start` says."""
    encoder, ids = dataset.item_encoder.features[id_feature].encoder, dataset.item_features[id_feature]
    assert isinstance(encoder, CategoryEncoder) and isinstance(ids, Ids)
    items, vectors = spectral_start(examples.asker, examples.item_row, dim=table.shape[1], seed=seed)
    rows = ids.values[items].astype(np.int64)
    own = rows >= encoder.vocabulary.unknown.stop  # those before are shared by items of which nothing is known
    table[torch.from_numpy(rows[own])] = torch.from_numpy(vectors[own])


def spectral_start(asker: Rows, item_row: NDArray[np.integer], *, dim: int, seed: int) -> tuple[Rows, NDArray[np.float32]]:
    """(rows, vectors): the items (n,) that can be told apart by who chose them, ascending, and where they start, (n, dim), of length 1.

    asker     (N,) who chose, -1 = nobody knows; whoever chose a single item says nothing of any two
    item_row  (N,) what was chosen; how often does not count
    seed      turns all vectors together, so that no coordinate is the first direction in every training

    Source: X (askers x items) holds 1 where somebody chose an item, and R = A^-1/2 X B^-1/2, where A and B are the sums of its rows and
    columns, each raised by their mean. Of R = U S V^T, items start at the rows of V S, the first direction left out: it is about sqrt(B),
    how often an item was chosen. Raising the sums keeps the leading directions from those whom few choices tie to nobody else (Qin and
    Rohe, Regularized spectral clustering under the degree-corrected stochastic blockmodel, NIPS 2013).
    """
    none = np.zeros(0, np.int64), np.zeros((0, dim), np.float32)
    is_known = asker >= 0
    people, who = np.unique(asker[is_known], return_inverse=True)
    items, what = np.unique(item_row[is_known].astype(np.int64), return_inverse=True)
    chosen = sparse.csr_array((np.ones(len(who)), (who, what)), shape=(len(people), len(items)))
    chosen.data[:] = 1  # repeated choices were added up
    chosen = chosen[np.diff(chosen.indptr) > 1]
    directions = min(dim + 1, *chosen.shape)
    if directions < 2:
        return none
    of_people, of_items = chosen.sum(axis=1), chosen.sum(axis=0)
    of_people, of_items = of_people + of_people.mean(), of_items + of_items[of_items > 0].mean()
    normalised = sparse.diags_array(of_people**-0.5) @ chosen @ sparse.diags_array(of_items**-0.5)
    values, found = leading_directions(normalised, directions, passes=_PASSES, spare=_SPARE, seed=seed)
    places = found[1:].T * values[1:]  # (items, directions - 1)
    lengths = np.linalg.norm(places, axis=1)
    kept = np.flatnonzero(lengths > _SHORTEST)
    with threadpool_limits(limits=1, user_api="blas"):
        turned = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    return items[kept], ((places[kept] / lengths[kept, None]) @ turned[: places.shape[1]]).astype(np.float32)
