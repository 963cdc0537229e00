"""How an evaluation was made, for whoever wants to make it again: noted when it is made, shown by the report."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from shortlist import __version__

_PACKAGES = ("numpy", "scipy", "polars", "pyarrow", "torch")  # what the numbers may depend on


def how_made(arguments: Sequence[str]) -> dict[str, Any]:
    """The JSON-able record that evaluation.json keeps under "made": command, commit, versions, when it was finished.

    arguments  the words after `shortlist`, e.g. ["evaluate", "movielens/shortlist.toml"]
    The commit is that of this program's checkout; None where it was installed from a package.
    """
    return {
        "command": shlex.join(["shortlist", *arguments]),
        "commit": current_commit(),
        "versions": {"shortlist": __version__, "python": platform.python_version(), **_versions()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # torch is optional
            continue
    return found


def current_commit() -> str | None:
    """The commit of the checkout that holds this file, and whether it was changed since."""
    here = Path(__file__)
    if _git("ls-files", "--error-unmatch", here.name) is None:  # installed into some other project's tree, or no checkout at all
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit} with uncommitted changes" if commit and changed else commit


def _git(*words: str) -> str | None:
    """What git says; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
