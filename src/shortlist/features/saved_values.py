"""External values (strings or integers) as plain numeric arrays, so that they can be saved without pickle."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.errors import BundleError
from shortlist.pace import step

_BLOCK = 2_000  # strings made at once: meanwhile no other thread of the process goes on


def values_to_arrays(values: pl.Series) -> dict[str, NDArray[np.generic]]:
    """Integers as `int64`; strings as `utf8` bytes with `ends`, the end of each in them. No nulls."""
    if values.dtype.is_integer():
        return {"int64": values.cast(pl.Int64).to_numpy()}
    encoded = [value.encode("utf-8") for value in values.cast(pl.String)]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
    return {"utf8": np.frombuffer(b"".join(encoded), np.uint8), "ends": ends}


def values_from_arrays(arrays: dict[str, NDArray[np.generic]]) -> pl.Series:
    """The inverse of `values_to_arrays`."""
    if "int64" in arrays:
        return pl.Series(arrays["int64"], dtype=pl.Int64)
    ends = arrays["ends"].astype(np.int64)
    text = arrays["utf8"].tobytes()
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    if len(ends) and (ends[-1] != len(text) or np.any(ends < starts)):
        raise BundleError("saved strings must end where their bytes end: the file does not fit this program")
    parts = [pl.Series([], dtype=pl.String)]
    for first in range(0, len(ends), _BLOCK):
        block = zip(starts[first : first + _BLOCK], ends[first : first + _BLOCK], strict=True)
        parts.append(pl.Series([text[start:end].decode("utf-8") for start, end in block], dtype=pl.String))
        step()
    return pl.concat(parts, rechunk=True)
