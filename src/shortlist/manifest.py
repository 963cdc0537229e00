"""A folder sealed by a manifest: every file with its size and hash, the publisher's facts, and the manifest's own hash.

A version may be copied elsewhere: `verify_version` needs its folder alone, and trusts nothing in it. That there are many versions,
one of them live, is store.py's matter; what a version holds is bundle.py's.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from shortlist.disk import file_errors, open_regular, sync_folder, write_synced
from shortlist.errors import BundleError
from shortlist.pace import step

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_LARGEST_BYTES = 1_000_000
VERSION_LARGEST_BYTES = 1 << 40
CHUNK_BYTES = 1 << 20

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


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as they will be read back. Raises BundleError for what JSON does not hold."""
    try:
        text = json.dumps(dict(facts), allow_nan=False)
        plain = msgspec.json.decode(text, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BundleError(f"facts must be plain JSON values: {error}; turn them into text, numbers, lists and dicts") from None
    if json.dumps(plain) != text:
        raise BundleError("facts must survive JSON: keys that become equal as text do not; rename one")
    return plain


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Nothing comes back: every file of `folder` is synced and listed in its new manifest.

    facts   plain JSON values, as `plain_facts` gives them
    Raises  BundleError for a file that is not regular, a name that does not travel, a manifest that would be too large
    """
    files = {}
    for name, path in _regular_files(folder):
        if not _is_safe_name(name) or name == MANIFEST:
            raise BundleError(f"{path} must have another name: {name!r} is taken, or does not travel between systems; rename it")
        files[name] = _file_facts(path, sync=True)
    raw = _sealed(Manifest(format=FORMAT, created=datetime.now(UTC).isoformat(), facts=facts, files=files, sha256=""))
    if len(raw) > MANIFEST_LARGEST_BYTES:
        raise BundleError(f"{MANIFEST} must stay below {MANIFEST_LARGEST_BYTES} bytes: got {len(raw)}; write fewer files or facts")
    write_synced(folder / MANIFEST, raw)
    for parent, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(parent))


def verify_version(folder: Path, *, max_bytes: int = VERSION_LARGEST_BYTES) -> Manifest:
    """The manifest of a version whose every byte is as published. Needs 1 MB of memory beside the manifest.

    max_bytes  the most that the files may take in all
    Raises     BundleError naming the file that is missing, extra, changed, of another size, not regular, or hostile
    """
    with file_errors(f"verifying {folder}"):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise BundleError(f"{folder} must be a folder, not a symlink or a file; name the version's own folder")
        manifest = _read_manifest(folder / MANIFEST)
        _check_listing(folder, manifest, max_bytes)
        for name, expected in manifest.files.items():
            found = _file_facts(folder / name, limit=expected.size_bytes)
            if found != expected:
                raise BundleError(f"{folder / name} must be as published: its hash or size changed; publish again or restore it")
    return manifest


def published_facts(folder: Path) -> dict[str, Any]:
    """What the publisher said of a version. The manifest alone is checked, not the files. Raises BundleError where it is not whole."""
    with file_errors(f"reading {folder / MANIFEST}"):
        return _read_manifest(folder / MANIFEST).facts


def _sealed(manifest: Manifest) -> bytes:
    """The bytes of the manifest, with the hash of the same bytes without the hash put in."""
    blank = msgspec.json.encode(msgspec.structs.replace(manifest, sha256=""), order="sorted")
    digest = hashlib.sha256(blank).hexdigest()
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, sha256=digest), order="sorted"), indent=1)


def _read_manifest(path: Path) -> Manifest:
    with open_regular(path) as file:
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
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            step()
            if limit is not None and size > limit:
                break
        if sync:
            os.fsync(file.fileno())
    return FileFacts(size_bytes=size, sha256=digest.hexdigest())
