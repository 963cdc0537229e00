"""Arrays that grow block by block: in memory, or as .npy files of a folder, so that what is made of a large log needs no memory.

Files are numbered, because the order of features is part of a model; opened, they are memory-mapped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 24
_NPY_VERSION = (1, 0)


class GrowingArrays:
    """Arrays by name, each grown along its first dimension; in the order of the first `append`."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is made; None keeps everything in memory."""
        self.folder = folder
        self._lengths: dict[str, int] = {}
        self._blocks: dict[str, list[NDArray[Any]]] = {}
        self._files: dict[str, tuple[BinaryIO, NDArray[Any]]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, block: NDArray[Any]) -> None:
        """Puts the block behind what the array holds; blocks of one array differ in their first dimension alone."""
        before = self.length(name)
        self._lengths[name] = before + len(block)
        if self.folder is None:
            self._blocks.setdefault(name, []).append(block)
            return
        if name not in self._files:
            opened = (self.folder / f"{len(self._files):04d} {quote(name, safe=' ')}.npy").open("wb")
            self._files[name] = (opened, block[:0].copy())
            _write_header(opened, block[:0].shape, block.dtype)
        file, first = self._files[name]
        assert (first.dtype, first.shape[1:]) == (block.dtype, block.shape[1:])
        file.write(np.ascontiguousarray(block).data)

    def length(self, name: str) -> int:
        """How many entries the array has so far."""
        return self._lengths.get(name, 0)

    def finished(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, memory-mapped where they are files; nothing may be appended any more."""
        if self.folder is None:
            return {name: blocks[0] if len(blocks) == 1 else np.concatenate(blocks) for name, blocks in self._blocks.items()}
        for name, (file, first) in self._files.items():
            file.seek(0)
            _write_header(file, (self._lengths[name], *first.shape[1:]), first.dtype)  # numpy leaves room for the length to grow
            file.close()
        return open_array_files(self.folder)


def open_array_files(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays in `folder` by name, in order, memory-mapped: opening costs nothing, rows are read as they are taken."""
    files = sorted(folder.glob("*.npy"))
    return {unquote(path.stem.partition(" ")[2]): np.load(path, mmap_mode="r", allow_pickle=False) for path in files}


def byte_blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of the array, block by block; the memory of a mapped one is given back once it was read."""
    rows = max(1, _BLOCK_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).data
    give_back(array)


def give_back(array: NDArray[Any]) -> None:
    """Lets the system have the memory of a mapped array again; its values are read anew when they are asked for."""
    held: Any = array
    while held is not None and not isinstance(held, mmap.mmap):
        if isinstance(held, np.memmap) and held.mode == "c":
            return  # what was written to a private mapping would be lost
        held = getattr(held, "base", None)
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
