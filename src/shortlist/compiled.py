"""kernels.c, compiled where there is a compiler: the passes over memory that a step of training, and its batches, are made of.

It is compiled for this processor when a process first asks, which takes about a second, into a folder that is gone again once it is
loaded: nothing compiled is kept that could grow stale or be changed by others. kernels.py and local_rows.py say what is in it, and do
without where `library` says None.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

from shortlist.errors import ConfigError

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fopenmp", "-fPIC")


class _Choice:
    """Which of the two this process uses: one for all, as the number of torch's threads is."""

    is_eager = False


def library() -> ctypes.CDLL | None:
    """The compiled passes; None where there is no compiler, or where `choose_passes("eager")` was called.

    They share torch's threads: the same OpenMP runtime, and as many as `torch.set_num_threads` allows.
    """
    return None if _Choice.is_eager else _built()[0]


def choose_passes(wanted: Literal["auto", "eager", "compiled"]) -> None:
    """Sets what `library` returns from now on. Raises ConfigError where "compiled" is wanted and cannot be."""
    _Choice.is_eager = wanted == "eager"
    found, reason = _built() if wanted == "compiled" else (None, "")
    if wanted == "compiled" and found is None:
        raise ConfigError(f'train.passes = "compiled" needs a C compiler with OpenMP: {reason}; install gcc, or say "auto"')


@cache
def _built() -> tuple[ctypes.CDLL | None, str]:
    """(what was built, "") or (None, why there is nothing)."""
    import torch  # noqa: F401  # whose OpenMP runtime is the one to find

    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None, "got neither gcc nor cc"
    with tempfile.TemporaryDirectory(prefix="shortlist-kernels-", ignore_cleanup_errors=True) as name:
        built, shared = Path(name) / "kernels.o", Path(name) / "kernels.so"
        # linked without -fopenmp: torch's runtime is there already, and a second one would have threads of its own
        for command in ((*_FLAGS, "-c", str(_SOURCE), "-o", str(built)), ("-shared", str(built), "-o", str(shared), "-lm")):
            ran = subprocess.run([compiler, *command], capture_output=True, text=True, check=False)
            if ran.returncode:
                return None, f"{compiler} failed with {ran.stderr.strip() or ran.returncode}"
        try:
            found = ctypes.CDLL(str(shared))
        except OSError as error:  # torch came with another OpenMP runtime than the compiler's
            return None, str(error)
    found.compact.restype = ctypes.c_int64
    return found, ""
