"""C that is compiled where it runs, for the processor it runs on, and without which everything works more slowly.

It takes a second at most, when a process first asks, in a folder that is gone again once the library is loaded: nothing compiled is kept
that could grow stale or be changed by others.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Library = TypeVar("Library")
_LONGEST_S = 60.0  # a compiler that takes longer hangs


class NotCompiled(Exception):
    """Why there is no library: no compiler, or what it said."""


def compiled_from(source: Path, flags: tuple[str, ...], load: Callable[[str], Library], *, libraries: tuple[str, ...] = ()) -> Library:
    """What `load` makes of the library that `source`, a file of C, becomes with `flags`.

    load       ctypes.CDLL, or ctypes.PyDLL, whose functions keep the interpreter's lock
    libraries  linked to, and no others: what the flags need besides must have been loaded by the process
    Raises     NotCompiled where there is no compiler, it fails, or what it made cannot be loaded
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotCompiled("got neither gcc nor cc")
    try:
        with tempfile.TemporaryDirectory(prefix="shortlist-native-", ignore_cleanup_errors=True) as name:
            built, shared = Path(name) / "built.o", Path(name) / "built.so"
            linked = [f"-l{library}" for library in libraries]
            for command in ((*flags, "-fPIC", "-c", str(source), "-o", str(built)), ("-shared", str(built), "-o", str(shared), *linked)):
                ran = subprocess.run(
                    [compiler, *command], capture_output=True, text=True, errors="replace", check=False, timeout=_LONGEST_S
                )
                if ran.returncode:
                    raise NotCompiled(f"{compiler} failed with {ran.stderr.strip() or ran.returncode}")
            return load(str(shared))
    except (OSError, subprocess.TimeoutExpired) as error:  # no room for it, or it needs what the process has not loaded
        raise NotCompiled(str(error)) from None
