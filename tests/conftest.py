"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# the same cases everywhere, and no clock: a busy machine is no fault of the code
settings.register_profile("everywhere", deadline=None, derandomize=True, database=None)
settings.load_profile("everywhere")
