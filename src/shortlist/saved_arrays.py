"""Many arrays in one folder, memory-mapped when opened: one .npy file each, and a list of their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.errors import BundleError

_NAMES = "arrays.json"


def save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes the arrays into `folder`, which is made. Names may hold any character: files are numbered."""
    folder.mkdir(parents=True)
    for number, array in enumerate(arrays.values()):
        np.save(folder / f"{number}.npy", array, allow_pickle=False)
    (folder / _NAMES).write_text(json.dumps(list(arrays)), encoding="utf-8")


def open_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays that `save_arrays` wrote, by name, memory-mapped. Raises BundleError naming a file that does not fit."""
    path = folder / _NAMES
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return {name: np.load(folder / f"{number}.npy", mmap_mode="r", allow_pickle=False) for number, name in enumerate(names)}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} must name arrays beside it: {error}; publish again") from None
