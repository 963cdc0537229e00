"""What the tests of indexes share."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.index.engines import is_installed


def needs(engine: str) -> pytest.MarkDecorator:
    """Skips where the library is not installed."""
    return pytest.mark.skipif(not is_installed(engine), reason=f"{engine} is not installed: pip install 'shortlist[ann]'")


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def some_of(size: int, count: int, seed: int = 7) -> np.ndarray:
    """A mask with `count` rows, drawn at random."""
    mask = np.zeros(size, bool)
    mask[np.random.default_rng(seed).permutation(size)[:count]] = True
    return mask


def same(left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in zip(left, right, strict=True))
