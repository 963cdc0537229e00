"""What the server says, a JSON object a line. No id of a user or an item is ever in it: paths are logged as routes, errors by
their kind, exceptions by type and place without their message.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

SAMPLED = 0.01  # of the answered requests


class Log:
    """Writes lines to a stream. `sampled`: the share of answered requests that is logged; server errors always are."""

    def __init__(self, stream: TextIO | None = None, *, sampled: float = SAMPLED) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every = round(1 / sampled) if sampled > 0 else 0
        self._seen = 0

    def say(self, event: str, **facts: Any) -> None:
        """One line, always."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        self._stream.write(msgspec.json.encode(line).decode() + "\n")
        self._stream.flush()

    def is_sampled(self) -> bool:
        """Whether this request is one of those to log."""
        self._seen += 1
        return self._every > 0 and self._seen % self._every == 0

    def fault(self, error: BaseException, **facts: Any) -> None:
        """An unforeseen exception: its type and where it came from. Its message may quote an id, so it stays out."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        self.say("fault", type=type(error).__name__, where=where, **facts)


class LogHandler(logging.Handler):
    """Passes on what libraries log, by kind and place."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Says the unformatted message: its arguments may hold ids."""
        if record.exc_info and record.exc_info[1] is not None:
            self._log.fault(record.exc_info[1], logger=record.name)
        else:
            self._log.say("library", logger=record.name, level=record.levelname.lower(), message=str(record.msg))
