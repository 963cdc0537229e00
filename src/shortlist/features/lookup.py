"""Encoded features -> numbers, with tables in numpy: what serving does where training looks up in torch (towers.embed)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shortlist.features.arrays import Bag, Dense, FeatureArray


def look_up(columns: Mapping[str, FeatureArray], tables: Mapping[str, NDArray[np.float32]], side: str, count: int) -> NDArray[np.float32]:
    """(count, width) all features of `count` entries side by side, in order; a bag becomes the weighted sum of its rows.

    tables    `side/feature` -> (rows, dim), possibly memory-mapped
    """
    pieces = [np.zeros((count, 0), np.float32)]
    for name, column in columns.items():
        if isinstance(column, Dense):
            pieces.append(column.values)
        elif isinstance(column, Bag):
            weighted = tables[f"{side}/{name}"][column.values] * column.weights[:, None]
            pieces.append(np.add.reduceat(weighted, column.offsets[:-1], axis=0))  # bags are never empty
        else:
            pieces.append(tables[f"{side}/{name}"][column.values])
    return np.concatenate(pieces, axis=1)
