"""Meeting the optional search libraries: imported late, named when missing, given numbers in their range, kept quiet."""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from shortlist.errors import BundleError
from shortlist.index.contract import Float32s
from shortlist.sections import IndexSettings

PACKAGES = {"scann": ("scann-core (or scann)", "ann"), "faiss": ("faiss-cpu", "ann"), "onnx": ("onnx", "train")}  # and the extra
COMFORTABLE_NORMS = (1e-3, 1e3)  # libraries square norms in float32, and learn codes by absolute differences


def is_installed(engine: str) -> bool:
    """Could `engine` be imported?"""
    return importlib.util.find_spec(engine) is not None


def require(engine: str) -> ModuleType:
    """The module `engine`. Raises BundleError naming the package and the extra where it is not installed."""
    try:
        return importlib.import_module(engine)
    except ImportError as error:
        package, extra = PACKAGES[engine]
        raise BundleError(
            f"this index needs {package}: {error}; install the extra, pip install 'shortlist[{extra}]', or publish with "
            '[index] kind = "exact"'
        ) from None


def training_threads(settings: IndexSettings) -> int:
    """Threads to build with: as set, or the processors that this process may use."""
    return settings.build_threads or len(os.sched_getaffinity(0))


def in_range(vectors: Float32s, largest_norm: float) -> Float32s:
    """The vectors, multiplied by a power of two where their norms are far from 1: the order of inner products stays."""
    if largest_norm == 0 or COMFORTABLE_NORMS[0] <= largest_norm <= COMFORTABLE_NORMS[1]:
        return np.ascontiguousarray(vectors)
    return np.ldexp(vectors, -int(np.frexp(largest_norm)[1]))


@contextmanager
def unheard() -> Iterator[None]:
    """What a library writes to standard error past Python's is kept from the terminal, and shown if the work fails."""
    with tempfile.TemporaryFile() as heard:
        kept = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            yield
        except BaseException:
            heard.seek(0)
            os.write(kept, heard.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
