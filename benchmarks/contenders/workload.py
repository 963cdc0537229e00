"""The model and the data of `step.py`, told once for every contender: numpy only, because each runs in an environment of its own.

Query and item have the same shape: an id, a segment and a bag of words. A contender gets its batches from `Workload.batches`,
made before the clock starts; only shortlist makes its own beside the step, as it does in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ENTITIES = 100_000  # users, and items
SEGMENTS = 1000
WORDS = 50_000
BAG = 20  # words a bag
DIM = 64
HIDDEN = (512, 128)
TEMPERATURE = 0.1
LEARNING_RATE, ADAGRAD_START = 0.1, 1e-4
BATCH = 1024  # B
EVENTS = 400_000


@dataclass(frozen=True)
class Side:
    """The features of all users, or of all items."""

    segment: NDArray[np.int64]  # (ENTITIES,)
    words: NDArray[np.int64]  # (ENTITIES, BAG)


@dataclass(frozen=True)
class Workload:
    """A log of choices: users evenly, items by Zipf, and everybody and everything once at least."""

    users: Side
    items: Side
    user: NDArray[np.int64]  # (EVENTS,)
    item: NDArray[np.int64]  # (EVENTS,)

    def log_n(self, index_batch: int) -> NDArray[np.float32]:
        """(ENTITIES,) natural log of each item's expected count among a row's negatives: (B - 1) q + B' / M."""
        share = np.bincount(self.item, minlength=ENTITIES) / len(self.item)
        return np.log((BATCH - 1) * share + index_batch / ENTITIES).astype(np.float32)

    def batches(self, count: int, index_batch: int) -> list[dict[str, NDArray[np.int64]]]:
        """`count` batches: the users (B,) and the items (B + B',) of each, positives first."""
        rng = np.random.default_rng(1)
        made = []
        for _ in range(count):
            rows = rng.choice(len(self.item), BATCH, replace=False)
            drawn = rng.choice(ENTITIES, index_batch, replace=False)
            made.append({"user": self.user[rows], "item": np.concatenate([self.item[rows], drawn])})
        return made


def make_workload() -> Workload:
    """The same arrays on every machine."""
    rng = np.random.default_rng(0)
    popular = zipf_shares(ENTITIES)
    extra = EVENTS - ENTITIES
    user = np.concatenate([rng.permutation(ENTITIES), rng.integers(0, ENTITIES, extra)])
    item = np.concatenate([rng.permutation(ENTITIES), rng.choice(ENTITIES, extra, p=popular)])
    return Workload(_side(rng), _side(rng), user, item)


def zipf_shares(count: int) -> NDArray[np.float64]:
    """(count,) shares proportional to 1 / rank."""
    shares = 1.0 / np.arange(1, count + 1)
    return shares / shares.sum()


def _side(rng: np.random.Generator) -> Side:
    words = rng.choice(WORDS, (ENTITIES, BAG), p=zipf_shares(WORDS))
    return Side(rng.integers(0, SEGMENTS, ENTITIES), words)
