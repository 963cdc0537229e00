"""A folder of published, immutable versions, one of which is live. What a version holds is not known here.

    STORE/v000001/manifest.json ...   a version; numbers only grow and are never given twice
    STORE/CURRENT                     the name of the live version
    STORE/LAST                        the highest number ever given
    STORE/.lock                       held by the one writer
    STORE/tmp-*                       what a killed writer left behind; the next writer sweeps it

Everything is written beside its place, synced, and renamed into it, so that a kill at any moment leaves the old live
version or the new one. What makes a version whole is manifest.py's matter.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shortlist.disk import file_errors, open_regular, sync_folder, write_synced
from shortlist.errors import BundleError
from shortlist.manifest import plain_facts, seal, verify_version

CURRENT = "CURRENT"
LAST = "LAST"
LOCK = ".lock"
POINTER_LARGEST_BYTES = 64

_VERSION_NAME = re.compile(r"v([0-9]{6,18})")


def publish_version(store: Path, write: Callable[[Path], None], *, facts: Mapping[str, Any]) -> Path:
    """The folder of a new version, now live: the files that `write` put into the folder it was given, and a manifest.

    facts   plain JSON values, kept in the manifest
    Raises  BundleError for facts that are no JSON, a second writer, anything but regular files and folders, and errors of
            the file system; whatever `write` raises. After an error the old version is live, unless CURRENT itself was
            being synced; what CURRENT names is whole in any case.
    """
    plain = plain_facts(facts)
    with file_errors(f"publishing to {store}"):
        if not store.is_dir():
            store.mkdir(parents=True)
            sync_folder(store.parent)
        with _writer(store):
            _sweep(store)
            name = _next_name(store)
            _build_version(store, name, write, plain)
            _write_pointer(store, CURRENT, name)
    return store / name


def current_version(store: Path) -> Path:
    """The folder of the live version. Raises BundleError where none is live, or CURRENT is damaged."""
    with file_errors(f"reading {store / CURRENT}"):
        name = _read_pointer(store, CURRENT)
    if name is None:
        raise BundleError(f"no version is live in {store}: {CURRENT} is missing; publish one")
    return _version_folder(store, name)


def versions(store: Path) -> list[str]:
    """The names of all complete versions, oldest first. Raises BundleError where there is no store."""
    with file_errors(f"reading {store}"), os.scandir(store) as entries:
        names = [entry.name for entry in entries if _VERSION_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    return sorted(names, key=_number)


def set_current(store: Path, name: str) -> Path:
    """The folder of version `name`, now live: a way back. Raises BundleError where it is unknown or does not verify."""
    with file_errors(f"switching {store} to {name}"), _writer(store):
        folder = _version_folder(store, name)
        verify_version(folder)
        _write_pointer(store, CURRENT, name)
    return folder


def prune(store: Path, keep: int = 3) -> list[str]:
    """The names of the versions that were removed: all but the newest `keep`; the live one always stays.

    Raises BundleError for keep < 1, no live version, or a second writer.
    """
    if keep < 1:
        raise BundleError(f"keep must be at least 1: got {keep}; the newest version always stays")
    with file_errors(f"pruning {store}"), _writer(store):
        _sweep(store)
        live = current_version(store).name
        doomed = [name for name in versions(store)[:-keep] if name != live]
        for name in doomed:
            tmp = _tmp(store)
            os.rename(store / name, tmp)  # first out of sight: a kill never leaves half a version under its name
            sync_folder(store)
            shutil.rmtree(tmp)
    return doomed


def _build_version(store: Path, name: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Nothing comes back: version `name` stands in the store, complete and synced, but not live. Leaves no tmp behind."""
    tmp = _tmp(store)
    try:
        tmp.mkdir()
        write(tmp)
        seal(tmp, facts)
        _write_pointer(store, LAST, name)
        os.rename(tmp, store / name)
        sync_folder(store)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def _version_folder(store: Path, name: str) -> Path:
    folder = store / name
    if not _VERSION_NAME.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{name!r} must be a version in {store}: there is no such folder; see versions()")
    return folder


def _number(name: str) -> int:
    return int(name[1:])


def _next_name(store: Path) -> str:
    last = _read_pointer(store, LAST)
    given = [*versions(store), *([last] if last else [])]
    return f"v{max(map(_number, given), default=0) + 1:06d}"


def _read_pointer(store: Path, pointer: str) -> str | None:
    """The version name in STORE/CURRENT or STORE/LAST; None where the file does not exist."""
    try:
        with open_regular(store / pointer) as file:
            raw = file.read(POINTER_LARGEST_BYTES)
    except FileNotFoundError:
        return None
    text = raw.decode("ascii", errors="replace").removesuffix("\n")
    if not _VERSION_NAME.fullmatch(text):
        raise BundleError(f"{store / pointer} must hold the name of a version: got {text!r}; choose one with set_current")
    return text


def _write_pointer(store: Path, pointer: str, name: str) -> None:
    """Nothing comes back: STORE/pointer holds `name`, at once or not at all."""
    tmp = _tmp(store)
    try:
        write_synced(tmp, f"{name}\n".encode("ascii"))
        os.replace(tmp, store / pointer)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    sync_folder(store)


def _tmp(store: Path) -> Path:
    return store / f"tmp-{uuid.uuid4().hex}"


def _sweep(store: Path) -> None:
    """Nothing comes back: what killed writers left is gone. Only the writer may call it."""
    for path in store.glob("tmp-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _writer(store: Path) -> Iterator[None]:
    """Holds the store's lock, which the system lets go when the process ends. Raises BundleError for a second writer."""
    descriptor = os.open(store / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"{store / LOCK} is held: another process writes to this store; try again when it is done") from None
        yield
    finally:
        os.close(descriptor)
