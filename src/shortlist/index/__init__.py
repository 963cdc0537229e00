"""Search over item vectors: one contract (`contract`), the indexes that keep it, the choice of one (`kinds`). No torch, no model."""
