"""Which items a row of the softmax is compared with, and how often each was to be expected there.

Mixed negative sampling (Yang et al., WWW'20, section 3.3): the other B-1 positives of the batch (drawn by unigram share)
and B' items drawn uniformly from the index data. Only the sampler knows the design, so it also tells log_n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.frequency import ItemFrequency


@dataclass(frozen=True)
class MixedNegatives:
    """In-batch negatives and `index_batch_size` uniform draws from the corpus of M items (B' = 0: in-batch alone).

    Without replacement a corpus smaller than B' is drawn whole: then B' is M, in the counts as well.
    """

    frequency: ItemFrequency
    index_batch_size: int
    replacement: bool = False
    unchosen_weight: float = 1.0  # in (0, 1]: what an item that nobody chose counts in the softmax, see `log_n`

    @property
    def corpus_size(self) -> int:
        """M."""
        return len(self.frequency)

    @property
    def drawn(self) -> int:
        """B', the number of index items in every batch."""
        return self.index_batch_size if self.replacement else min(self.index_batch_size, self.corpus_size)

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(B',) item rows of the index batch."""
        if self.replacement:
            return rng.integers(0, self.corpus_size, self.drawn)
        return rng.choice(self.corpus_size, self.drawn, replace=False, shuffle=False)

    def log_n(self, item_row: NDArray[np.integer], batch_size: int) -> NDArray[np.float32]:
        """(C,) natural log of the expected count of each column's item among one row's negatives.

            n_j = (B - 1) q_j + B' / M

        It may exceed 0. An item that nobody chose has the uniform part alone.
        With `unchosen_weight` w < 1 an item that nobody chose weighs w in the softmax's sum: its n is divided by w, so its
        logit settles log(1/w) higher. Nobody choosing it may mean that nobody could.
        Raises ValueError if an item can never be a negative (B' = 0 and q_j = 0): it cannot be corrected.
        Source: SCIENCE of the project, section 1; Yang et al. name the mixture Q* and leave it open.
        """
        expected = (batch_size - 1) * self.frequency.q[item_row] + self.drawn / self.corpus_size
        if self.unchosen_weight != 1.0:
            expected = np.where(self.frequency.q[item_row] > 0, expected, expected / self.unchosen_weight)
        if not np.all(expected > 0) and batch_size > 1:
            row = int(np.asarray(item_row)[np.argmin(expected)])
            raise ValueError(f"every candidate must have a positive expected count: item row {row} has 0 with B' = {self.drawn}")
        with np.errstate(divide="ignore"):
            return np.log(expected).astype(np.float32)

    def log_weight(self) -> NDArray[np.float32]:
        """(M,) natural log of what each item counts in the softmax's sum: 0, or log(unchosen_weight) where nobody chose it."""
        weight: NDArray[np.float32] = np.where(self.frequency.q > 0, 1.0, self.unchosen_weight).astype(np.float32)
        return np.log(weight)

    def expected_accidental_hits(self, batch_size: int) -> float:
        """Mean number of columns a row that hold its own positive once more: (B-1) sum_j q_j^2 + B'/M."""
        return float((batch_size - 1) * np.sum(self.frequency.q**2) + self.drawn / self.corpus_size)
