"""The journal of writes: what was acknowledged is on disk, and every process of a machine reads the same order.

    header   magic (8), identity (8), base (8), checksum (4)
    frame    length (4), checksum of the length (4), checksum of the payload (4), payload; one write each

A position counts the bytes of all frames ever appended, and stays when the front is cut away: `base` is the position of the
file's first frame. The identity is a random number: a position in another journal means nothing here. Appending holds a lock
that the system lets go when a process ends. A frame that a killed writer left unfinished at the end was never acknowledged:
readers wait before it, the next writer cuts it. Any other damage is an error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shortlist.disk import sync_folder, write_synced
from shortlist.errors import BundleError, UnavailableError

MAGIC = b"SLJRNL1\n"
LARGEST_FRAME = 64 << 20
_HEADER, _FRAME, _WORD = struct.Struct("<8sQQI"), struct.Struct("<III"), struct.Struct("<I")


class Journal:
    """One process's view of the journal at `path`. Threads may read while one appends."""

    def __init__(self, path: Path) -> None:
        """Opens the journal, an empty one where there is none. Raises BundleError where it is damaged or no journal."""
        self.path = path
        self._lock_path = path.with_name(path.name + ".lock")
        with self._locked():
            if not path.exists():
                _replace(path, _header(secrets.randbits(53), 0))  # 53 bits: any JSON holds it
        self._file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._inode, self.identity, self.base = 0, 0, 0
        self._opening = threading.Lock()
        self._reopen()

    def close(self) -> None:
        """Nothing comes back."""
        os.close(self._file)

    def has_news(self, position: int) -> bool:
        """Whether the file may hold frames after `position`. Costs one look at the folder."""
        found = os.stat(self.path)
        return found.st_ino != self._inode or found.st_size != _HEADER.size + position - self.base

    def read_from(self, position: int) -> tuple[list[bytes], int]:
        """(the payloads of all whole frames from `position` on, the position after them).

        Raises BundleError where `position` is not in the file (the front was cut, or the end after a failed write), or the
        file is damaged.
        """
        if os.stat(self.path).st_ino != self._inode:
            self._reopen()
        size = os.fstat(self._file).st_size
        if not self.base <= position <= self.base + size - _HEADER.size:
            raise BundleError(f"{self.path} holds positions {self.base} to {self.base + size - _HEADER.size}: got {position}; read it anew")
        offset = _HEADER.size + position - self.base
        payloads, end = _frames(os.pread(self._file, size - offset, offset), self.path, offset)
        return payloads, position + end

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Holds the lock under which `append` and `trim` may be called."""
        with self._locked():
            yield

    def append(self, position: int, payload: bytes, limit_bytes: int) -> None:
        """Nothing comes back: the payload is on disk, after the frame that ends at `position`, which is the last whole one.

        Raises UnavailableError where the file would grow beyond `limit_bytes`, or the disk refuses.
        """
        offset = _HEADER.size + position - self.base
        frame = _framed(payload)
        if offset + len(frame) > limit_bytes:
            raise UnavailableError(f"the journal must stay below {limit_bytes} bytes: compact the store, then send the write again")
        try:
            if os.fstat(self._file).st_size > offset:
                os.ftruncate(self._file, offset)  # what a killed writer left
            if os.pwrite(self._file, frame, offset) != len(frame):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            self._cut(offset)
            reason = f"the journal could not be written: {error.strerror}; see to the disk, then send it again"
            raise UnavailableError(reason) from error

    def _cut(self, offset: int) -> None:
        """Nothing comes back: a new file ends at `offset`. After a failed sync, the pages of the old one are not to be trusted."""
        with suppress(OSError):
            _replace(self.path, os.pread(self._file, offset, 0))
            self._reopen()

    def trim(self, position: int) -> None:
        """Nothing comes back: frames before `position`, where one begins, are gone. Positions mean what they did."""
        if position <= self.base:
            return
        size = os.fstat(self._file).st_size
        offset = _HEADER.size + position - self.base
        _replace(self.path, _header(self.identity, position) + os.pread(self._file, size - offset, offset))
        self._reopen()

    def _reopen(self) -> None:
        """Nothing comes back: the file that the path names now is open, and its base known."""
        with self._opening:
            self._reopen_alone()

    def _reopen_alone(self) -> None:
        file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        raw = os.pread(file, _HEADER.size, 0)
        _, identity, base, _ = _HEADER.unpack(raw) if len(raw) == _HEADER.size else (b"", 0, 0, 0)
        if _header(identity, base) != raw:
            os.close(file)
            raise BundleError(f"{self.path} must be a journal: its first {_HEADER.size} bytes are not as written; restore or remove it")
        os.dup2(file, self._file)
        os.close(file)
        self._inode, self.identity, self.base = os.fstat(self._file).st_ino, identity, base

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _frames(raw: bytes, path: Path, start: int) -> tuple[list[bytes], int]:
    """(payloads of the whole frames, where the last ends). Raises BundleError for damage that no killed writer leaves."""
    payloads, at = [], 0
    while len(raw) - at >= _FRAME.size:
        length, length_check, check = _FRAME.unpack_from(raw, at)
        end = at + _FRAME.size + length
        if length_check != _length_check(length) or length > LARGEST_FRAME:
            if any(raw[at:]):
                raise _damaged(path, start + at)
            break
        if end > len(raw):
            break
        payload = raw[at + _FRAME.size : end]
        if zlib.crc32(payload) != check:
            if end < len(raw):
                raise _damaged(path, start + at)
            break
        payloads.append(payload)
        at = end
    return payloads, at


def _damaged(path: Path, offset: int) -> BundleError:
    return BundleError(f"{path} is damaged at byte {offset}: a frame that was acknowledged is not as written; restore the file")


def _framed(payload: bytes) -> bytes:
    if len(payload) > LARGEST_FRAME:
        raise UnavailableError(f"one write must stay below {LARGEST_FRAME} bytes: got {len(payload)}; send fewer items at once")
    return _FRAME.pack(len(payload), _length_check(len(payload)), zlib.crc32(payload)) + payload


def _length_check(length: int) -> int:
    return zlib.crc32(MAGIC + _WORD.pack(length))


def _header(identity: int, base: int) -> bytes:
    start = struct.pack("<8sQQ", MAGIC, identity, base)
    return start + _WORD.pack(zlib.crc32(start))


def _replace(path: Path, raw: bytes) -> None:
    """Nothing comes back: the file holds `raw`, at once or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    write_synced(beside, raw)
    os.replace(beside, path)
    sync_folder(path.parent)
