"""Tests that must hold for torch's operations and for the compiled passes: a fixture that chooses each in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shortlist.compiled import choose_passes, library


@pytest.fixture(scope="module", params=["eager", "compiled"], autouse=True)
def each_passes(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the passes that are chosen; what needs a compiler is skipped where there is none."""
    choose_passes("auto")
    if request.param == "compiled" and library() is None:
        pytest.skip("no C compiler with OpenMP here")
    choose_passes(request.param)
    yield request.param
    choose_passes("auto")
