"""The UTC days that windows are counted in: every day of the calendar, or only days with events (shops close)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from shortlist.errors import DataError
from shortlist.log import EventLog
from shortlist.sections import DayCount
from shortlist.times import DAY_US

_ONE = timedelta(days=1)


@dataclass(frozen=True)
class Days:
    """The days that count. `active`: those of the log that have events, ascending; None = every day of the calendar counts."""

    active: list[date] | None
    source: str

    def ending(self, last: date, count: int) -> list[date]:
        """The `count` days of which none is later than `last`, oldest first. Raises DataError where the log has fewer."""
        if self.active is None:
            return [last - shift * _ONE for shift in reversed(range(count))]
        stop = bisect_right(self.active, last)
        return self._taken(stop - count, stop, f"up to {last}", available=stop)

    def starting(self, first: date, count: int) -> list[date]:
        """The `count` days of which none is earlier than `first`, oldest first. Raises DataError where the log has fewer."""
        if self.active is None:
            return [first + shift * _ONE for shift in range(count)]
        start = bisect_left(self.active, first)
        return self._taken(start, start + count, f"from {first} on", available=len(self.active) - start)

    def _taken(self, start: int, stop: int, where: str, *, available: int) -> list[date]:
        assert self.active is not None
        if stop - start > available:
            raise DataError(
                f"{stop - start} days with events are needed {where}: got {available} in {self.source}; lower train_days, test_days or "
                'shifts under [evaluate], or set days = "calendar"'
            )
        return self.active[start:stop]


def days_of(log: EventLog, count: DayCount) -> Days:
    """The days of `log` that count."""
    if count == "calendar":
        return Days(None, log.source)
    numbers = (log.frame["time"] // DAY_US).unique().sort()
    return Days([_day(int(number)) for number in numbers], log.source)


def newest_day(log: EventLog) -> date:
    """The day of the newest event."""
    return _day(int(log.frame["time"][-1]) // DAY_US)


def start_of(day: date) -> int:
    """When a day begins, in microseconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def _day(number: int) -> date:
    """The day that is `number` days after 1970-01-01."""
    return date(1970, 1, 1) + number * _ONE
