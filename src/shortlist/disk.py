"""Files that survive a kill and readings that trust nothing: what manifest.py, store.py and evaluations ask of the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shortlist.errors import BundleError


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. Never follows a symlink, never waits for a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise BundleError(f"{path} must be a regular file: got a symlink, a folder or a device; copy its content")
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def write_synced(path: Path, raw: bytes) -> None:
    """Nothing comes back: the new file `path` holds `raw`, and the disk has it. Raises FileExistsError where it exists."""
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, raw: bytes) -> None:
    """Nothing comes back: `path` holds `raw`; if that is cut short, it holds what it held before."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(raw)
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Nothing comes back: the disk has the names that `folder` lists (what they hold is synced by itself)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Turns errors of the file system into BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what} failed: {error}; see to the disk or the path, then try again") from error
