"""Arrays grown block by block are the whole arrays, in memory and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shortlist import array_files
from shortlist.array_files import GrowingArrays, byte_blocks, give_back, open_array_files

NAMES = {"rows": np.arange(31, dtype=np.int32), "pairs": np.arange(62.0).reshape(31, 2), "context.a b/é.ids.values": np.ones(31, bool)}


@pytest.mark.parametrize("on_disk", [True, False])
def test_blocks_follow_each_other(tmp_path: Path, on_disk: bool) -> None:
    made = GrowingArrays(tmp_path / "arrays" if on_disk else None)
    for rows in (slice(0, 0), slice(0, 7), slice(7, 8), slice(8, 31)):
        for name, array in NAMES.items():
            assert made.length(name) == rows.start
            made.append(name, array[rows])
    found = made.finished()
    assert list(found) == list(NAMES)
    for name, array in NAMES.items():
        assert found[name].dtype == array.dtype and found[name].tolist() == array.tolist()
        assert isinstance(found[name], np.memmap) == on_disk


def test_files_are_plain_npy_files_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made = GrowingArrays(tmp_path)
    for name, array in NAMES.items():
        made.append(name, array)
    made.finished()
    loaded = [np.load(path) for path in sorted(tmp_path.iterdir())]
    assert [array.tolist() for array in loaded] == [array.tolist() for array in NAMES.values()]
    assert list(open_array_files(tmp_path)) == list(NAMES)


def test_an_array_without_entries_keeps_its_type(tmp_path: Path) -> None:
    made = GrowingArrays(tmp_path)
    made.append("none", np.zeros((0, 3), np.float32))
    none = made.finished()["none"]
    assert (none.shape, none.dtype) == ((0, 3), np.float32)


def test_bytes_come_in_blocks_and_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "_BLOCK_BYTES", 40)
    array = np.arange(62.0).reshape(31, 2)[:, ::-1]  # 16 bytes a row, not contiguous
    blocks = list(byte_blocks(array))
    assert len(blocks) == 16 and b"".join(bytes(block) for block in blocks) == array.tobytes()


def test_memory_given_back_is_read_anew_and_what_was_written_stays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(10_007))
    for mode in ("r", "r+", "c"):
        array = np.load(tmp_path / "a.npy", mmap_mode=mode)
        if mode != "r":
            array[5] = 77
        give_back(array[3:])
        assert array[5] == (5 if mode == "r" else 77) and array[10_006] == 10_006
    give_back(np.arange(3))  # memory of its own is left alone
