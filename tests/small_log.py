"""Logs of a few columns, and instants to write them with, for the tests of protocols."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from shortlist.config import config_from_tree
from shortlist.files import Places
from shortlist.log import EventLog
from shortlist.sections import Config

DAY = 86_400_000_000


def at(text: str) -> int:
    """Microseconds since 1970 of an instant in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def log_of(**columns: Any) -> EventLog:
    """A log of these columns, which are called by their roles."""
    frame = pl.DataFrame(columns)
    return EventLog(frame, Places(("e",), (0,)), "e", {name: name for name in frame.columns})


def config_of(log: EventLog, **evaluate: Any) -> Config:
    """Settings for the log, whose columns are called by their roles."""
    columns = {role: role for role in ("item", "user", "time", "seed") if role in log.frame.columns}
    return config_from_tree({"data": {"events": "e"}, "columns": columns, "evaluate": evaluate})


def hourly(first: str, hours: int) -> EventLog:
    """One event an hour, of user (hour mod 7) and item (hour mod 11)."""
    start = at(first)
    return log_of(
        user=[hour % 7 for hour in range(hours)],
        item=[hour % 11 for hour in range(hours)],
        time=[start + hour * 3_600_000_000 for hour in range(hours)],
    )
