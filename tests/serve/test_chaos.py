"""Short forms of `make chaos`: kills during writes and during publishing, and damaged versions."""

from __future__ import annotations

import shutil
from pathlib import Path

from damage import KINDS, SEALED_KINDS, mutate_all
from kill_publish import kill_publishers
from kill_writes import kill_writers


def test_no_acknowledged_write_is_lost_when_writers_are_killed(both: Path) -> None:
    facts, faults = kill_writers(both, 8, seed=1)
    assert faults == [] and facts["killed"] == 8 and facts["acknowledged"] > 8


def test_a_store_is_whole_when_publishers_are_killed(both: Path) -> None:
    shutil.rmtree(both / "v000002")
    (both / "CURRENT").write_text("v000001\n")
    facts, faults = kill_publishers(both, 7, seed=1)
    assert faults == [] and facts["killed"] == 7


def test_no_damaged_version_is_opened(both: Path) -> None:
    facts, faults = mutate_all(both, list(range(150)), seed=1)
    assert faults == [] and facts["mutations"] == 150 and facts["refused"] > 60


def test_mutations_are_of_all_kinds() -> None:
    assert len(KINDS) == 17 and set(SEALED_KINDS) < set(KINDS)
