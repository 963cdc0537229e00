"""What holds for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# the same cases everywhere, and no clock: a busy machine is no fault of the code
settings.register_profile("everywhere", deadline=None, derandomize=True, database=None)
settings.load_profile("everywhere")

# Files of ten seconds and more, the longest first: begun last, one would keep one process busy while the other has nothing to do.
LONG = (
    "serve/test_index_kinds.py",
    "serve/test_chaos.py",
    "study/test_sweep.py",
    "serve/test_server.py",
    "test_train.py",
    "test_learner.py",
    "test_backtest.py",
    "index/test_tuning.py",
    "study/test_compared.py",
    "serve/test_query_path.py",
    "test_store.py",
    "index/test_contract.py",
)
_TURN = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
_GONE = [path.name for path in _TURN if not path.is_file()]
if _GONE:
    raise FileNotFoundError(f"LONG of tests/conftest.py must name files that exist: {_GONE} do not")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, the others as they were."""
    items.sort(key=lambda item: _TURN.get(item.path, len(LONG)))
