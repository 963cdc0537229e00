"""A folder of published, immutable versions, one of which is live. What a version holds is not known here.

    STORE/v000001/manifest.json ...   a version; numbers only grow and are never given twice
    STORE/CURRENT                     the name of the live version
    STORE/LAST                        the highest number ever given
    STORE/.lock                       held by the one writer
    STORE/tmp-*                       what a killed writer left behind; the next writer sweeps it

Everything is written beside its place, synced, and renamed into it, so that a kill at any moment leaves the old live
version or the new one. A version may be copied elsewhere: `verify_version` needs its folder alone, and trusts nothing in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from shortlist.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
CURRENT = "CURRENT"
LAST = "LAST"
LOCK = ".lock"
MANIFEST_LARGEST_BYTES = 1_000_000
VERSION_LARGEST_BYTES = 1 << 40
CHUNK_BYTES = 1 << 20
POINTER_LARGEST_BYTES = 64

_VERSION_NAME = re.compile(r"v([0-9]{6,18})")
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class FileFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size and the hash of one file of a version."""

    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: _Digest


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version says about itself: `facts` are the publisher's, `files` go by relative name, `sha256` is its own hash."""

    format: int
    created: str  # UTC, ISO 8601; for people only: nothing is ordered by it
    facts: dict[str, Any]
    files: dict[str, FileFacts]
    sha256: _Digest


class _Head(msgspec.Struct):
    format: int


def publish_version(store: Path, write: Callable[[Path], None], *, facts: Mapping[str, Any]) -> Path:
    """The folder of a new version, now live: the files that `write` put into the folder it was given, and a manifest.

    facts   plain JSON values, kept in the manifest
    Raises  BundleError for facts that are no JSON, a second writer, anything but regular files and folders, and errors of
            the file system; whatever `write` raises. After an error the old version is live, unless CURRENT itself was
            being synced; what CURRENT names is whole in any case.
    """
    plain = _plain_facts(facts)
    with _file_errors(f"publishing to {store}"):
        if not store.is_dir():
            store.mkdir(parents=True)
            _sync_folder(store.parent)
        with _writer(store):
            _sweep(store)
            name = _next_name(store)
            _build_version(store, name, write, plain)
            _write_pointer(store, CURRENT, name)
    return store / name


def current_version(store: Path) -> Path:
    """The folder of the live version. Raises BundleError where none is live, or CURRENT is damaged."""
    with _file_errors(f"reading {store / CURRENT}"):
        name = _read_pointer(store, CURRENT)
    if name is None:
        raise BundleError(f"no version is live in {store}: {CURRENT} is missing; publish one")
    return _version_folder(store, name)


def versions(store: Path) -> list[str]:
    """The names of all complete versions, oldest first. Raises BundleError where there is no store."""
    with _file_errors(f"reading {store}"), os.scandir(store) as entries:
        names = [entry.name for entry in entries if _VERSION_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    return sorted(names, key=_number)


def set_current(store: Path, name: str) -> Path:
    """The folder of version `name`, now live: a way back. Raises BundleError where it is unknown or does not verify."""
    with _file_errors(f"switching {store} to {name}"), _writer(store):
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
    with _file_errors(f"pruning {store}"), _writer(store):
        _sweep(store)
        live = current_version(store).name
        doomed = [name for name in versions(store)[:-keep] if name != live]
        for name in doomed:
            tmp = _tmp(store)
            os.rename(store / name, tmp)  # first out of sight: a kill never leaves half a version under its name
            _sync_folder(store)
            shutil.rmtree(tmp)
    return doomed


def verify_version(folder: Path, *, max_bytes: int = VERSION_LARGEST_BYTES) -> Manifest:
    """The manifest of a version whose every byte is as published. Needs 1 MB of memory beside the manifest.

    max_bytes  the most that the files may take in all
    Raises     BundleError naming the file that is missing, extra, changed, of another size, not regular, or hostile
    """
    with _file_errors(f"verifying {folder}"):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise BundleError(f"{folder} must be a folder, not a symlink or a file; name the version's own folder")
        manifest = _read_manifest(folder / MANIFEST)
        _check_listing(folder, manifest, max_bytes)
        for name, expected in manifest.files.items():
            found = _file_facts(folder / name, limit=expected.size_bytes)
            if found != expected:
                raise BundleError(f"{folder / name} must be as published: its hash or size changed; publish again or restore it")
    return manifest


def _build_version(store: Path, name: str, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Nothing comes back: version `name` stands in the store, complete and synced, but not live. Leaves no tmp behind."""
    tmp = _tmp(store)
    try:
        tmp.mkdir()
        write(tmp)
        _seal(tmp, facts)
        _write_pointer(store, LAST, name)
        os.rename(tmp, store / name)
        _sync_folder(store)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def _seal(folder: Path, facts: dict[str, Any]) -> None:
    """Nothing comes back: every file of `folder` is synced and listed in its new manifest."""
    files = {}
    for name, path in _regular_files(folder):
        if not _is_safe_name(name) or name == MANIFEST:
            raise BundleError(f"{path} must have another name: {name!r} is taken, or does not travel between systems; rename it")
        files[name] = _file_facts(path, sync=True)
    raw = _sealed(Manifest(format=FORMAT, created=datetime.now(UTC).isoformat(), facts=facts, files=files, sha256=""))
    if len(raw) > MANIFEST_LARGEST_BYTES:
        raise BundleError(f"{MANIFEST} must stay below {MANIFEST_LARGEST_BYTES} bytes: got {len(raw)}; write fewer files or facts")
    _write_synced(folder / MANIFEST, raw)
    for parent, _, _ in os.walk(folder, topdown=False):
        _sync_folder(Path(parent))


def _plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as they will be read back."""
    try:
        text = json.dumps(dict(facts), allow_nan=False)
        plain = msgspec.json.decode(text, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BundleError(f"facts must be plain JSON values: {error}; turn them into text, numbers, lists and dicts") from None
    if json.dumps(plain) != text:
        raise BundleError("facts must survive JSON: keys that become equal as text do not; rename one")
    return plain


def _sealed(manifest: Manifest) -> bytes:
    """The bytes of the manifest, with the hash of the same bytes without the hash put in."""
    blank = msgspec.json.encode(msgspec.structs.replace(manifest, sha256=""), order="sorted")
    digest = hashlib.sha256(blank).hexdigest()
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, sha256=digest), order="sorted"), indent=1)


def _read_manifest(path: Path) -> Manifest:
    with _open_regular(path) as file:
        raw = file.read(MANIFEST_LARGEST_BYTES + 1)
    if len(raw) > MANIFEST_LARGEST_BYTES:
        raise BundleError(f"{path} must stay below {MANIFEST_LARGEST_BYTES} bytes: got more; this is no manifest of ours")
    try:
        made_for = msgspec.json.decode(raw, type=_Head).format
        if made_for > FORMAT:
            raise BundleError(f"{path} was made by a newer shortlist: format {made_for}, this one reads up to {FORMAT}; upgrade shortlist")
        if made_for != FORMAT:
            raise BundleError(f"{path} must have format {FORMAT}: got {made_for}; publish again")
        manifest = msgspec.json.decode(raw, type=Manifest)
        as_published = _sealed(manifest) == raw
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} must be a manifest: {error}; publish again or restore it") from None
    if not as_published:
        raise BundleError(f"{path} must be as published: its own hash does not match; publish again or restore it")
    return manifest


def _check_listing(folder: Path, manifest: Manifest, max_bytes: int) -> None:
    """Nothing comes back. Raises BundleError unless exactly the listed files stand in `folder`, with their sizes."""
    for name in manifest.files:
        if not _is_safe_name(name) or name == MANIFEST:
            raise BundleError(f"{folder / MANIFEST} must list plain names below its folder: got {name!r}; do not trust this version")
    total = sum(facts.size_bytes for facts in manifest.files.values())
    if total > max_bytes:
        raise BundleError(f"{folder} must hold at most {max_bytes} bytes: {MANIFEST} lists {total}; raise max_bytes if that is meant")
    missing = set(manifest.files)
    for name, path in _regular_files(folder):
        if name == MANIFEST:
            continue
        if name not in manifest.files:
            raise BundleError(f"{path} must be listed in {MANIFEST}: it is extra; remove it or publish again")
        size, expected = os.lstat(path).st_size, manifest.files[name].size_bytes
        if size != expected:
            raise BundleError(f"{path} must have the published size of {expected} bytes: got {size}; publish again or restore it")
        missing.remove(name)
    if missing:
        raise BundleError(f"{folder / min(missing)} must exist: it is missing ({len(missing)} such); publish again or restore it")


def _regular_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to `folder`, path) of every file below it. Raises BundleError for a symlink, a pipe or a device."""
    waiting = [("", folder)]
    while waiting:
        prefix, parent = waiting.pop()
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{prefix}{entry.name}/", parent / entry.name))
                elif entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name, parent / entry.name
                else:
                    raise BundleError(
                        f"{parent / entry.name} must be a regular file or a folder: got a symlink or a device; copy its content"
                    )


def _is_safe_name(name: str) -> bool:
    """Whether a relative name stays below its folder and means the same on every system."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _file_facts(path: Path, *, limit: int | None = None, sync: bool = False) -> FileFacts:
    """The size and hash of a file, read in chunks; with `limit`, reading ends at the first chunk beyond that many bytes."""
    digest, size = hashlib.sha256(), 0
    with _open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if limit is not None and size > limit:
                break
        if sync:
            os.fsync(file.fileno())
    return FileFacts(size_bytes=size, sha256=digest.hexdigest())


def _open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. Never follows a symlink, never waits for a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise BundleError(f"{path} must be a regular file: got a symlink, a folder or a device; copy its content")
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


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
        with _open_regular(store / pointer) as file:
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
        _write_synced(tmp, f"{name}\n".encode("ascii"))
        os.replace(tmp, store / pointer)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    _sync_folder(store)


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextmanager
def _file_errors(what: str) -> Iterator[None]:
    """Turns errors of the file system into BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what} failed: {error}; see to the disk or the path, then try again") from error
