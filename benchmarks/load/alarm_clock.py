"""A file descriptor that is readable from a given moment on: epoll's own timeouts come in milliseconds, a load generator needs better.

Spinning would do as well, and take a core from the server that is measured.
"""

from __future__ import annotations

import ctypes
import os
from types import TracebackType

_MONOTONIC, _NONBLOCKING, _ABSOLUTE = 1, os.O_NONBLOCK, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class AlarmClock:
    """Linux's timerfd, on the clock of time.perf_counter."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.timerfd_create(_MONOTONIC, _NONBLOCKING)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, moment_s: float) -> None:
        """Readable from `moment_s` (of time.perf_counter) on; not before."""
        nanoseconds = max(int(moment_s * 1e9), 1)
        timer = _Timer(_Timespec(0, 0), _Timespec(nanoseconds // 10**9, nanoseconds % 10**9))
        self._libc.timerfd_settime(self.descriptor, _ABSOLUTE, ctypes.byref(timer), None)

    def __enter__(self) -> AlarmClock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.descriptor)
