"""kernels.c, compiled where there is a compiler: the passes over memory that a step of training, and its batches, are made of.

kernels.py and local_rows.py say what is in it, and do without where `library` says None.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Literal

from shortlist.errors import ConfigError
from shortlist.native import NotCompiled, compiled_from

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fopenmp")

# What its functions take: addresses, sizes, numbers and flags. Told once, ctypes needs no object an argument.
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}
ARGUMENTS = {
    "softmax_gradient": "pnnnpppppppi",
    "adagrad_rows": "ppppnnff",
    "adagrad": "pnf",
    "add_bias": "ppnnii",
    "relu_backward": "pppnni",
    "normalise": "ppppnnfi",
    "normalise_backward": "pppppnnfi",
    "sum_rows": "pnpppnnpnii",
    "sum_table_rows": "pppppnnpni",
    "adagrad_bags": "ppppnpppnnffi",
    "add_rows": "pnpnnpi",
    "gather_rows": "ppnnp",
    "localise": "pni",
}


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
    import torch  # noqa: F401  # whose OpenMP runtime is the one to find: linked without, or a second one would have threads of its own

    try:
        found = compiled_from(_SOURCE, _FLAGS, ctypes.CDLL, libraries=("m",))
    except NotCompiled as error:
        return None, str(error)
    for name, arguments in ARGUMENTS.items():
        getattr(found, name).argtypes = [_TYPES[argument] for argument in arguments]
    return found, ""
