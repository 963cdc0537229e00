"""Memory that loading a version took and nobody holds any more: given back to the system, where the allocators would keep it."""

from __future__ import annotations

import ctypes
import os

# polars' allocator keeps freed pages until it is asked for others, which a server seldom does. Read when polars is imported.
POLARS_ALLOCATOR = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")


def keep_no_freed_pages() -> None:
    """Nothing comes back: polars, not yet imported, will return what it frees. A value that the environment has stands."""
    os.environ.setdefault(*POLARS_ALLOCATOR)


def trim() -> None:
    """Nothing comes back: free memory at the ends and inside of the C heap is the system's again. Does nothing without glibc."""
    trim_heap = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim_heap is not None:
        trim_heap(0)
