"""Search over item vectors: one contract (`contract`), and the indexes that keep it (`exact`). No torch, no model."""
