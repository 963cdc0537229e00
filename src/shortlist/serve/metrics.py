"""Counters and histograms of the server, in memory that its worker processes share, as Prometheus text.

Any worker answers GET /metrics for all of them: every worker adds to a row of its own, a scrape sums the rows. (Prometheus's
own client does the same through files that it must be told of before it is imported.) No label holds an id.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shortlist.serve.routes import ROUTES, Route

BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# Answers that no route gave: unknown paths and methods, and what is not HTTP at all.
OTHER_STATUSES = (400, 404, 405, 408, 431, 503)
COUNTERS = {
    "degraded": "Answers that name a missing part.",
    "unknown_ids": "Ids of requests (seed, history) that the version did not know.",
    "connections": "Connections accepted.",
}
_CELL_BYTES = 8


class Metrics:
    """One worker's view of the shared numbers. Adding costs about as much as an attribute."""

    def __init__(self, memory: mmap.mmap | None = None, *, worker: int = 0) -> None:
        self._names = [*((route, status) for route in ROUTES for status in route.statuses), *((None, status) for status in OTHER_STATUSES)]
        self._place = {name: place for place, name in enumerate(self._names)}
        self._first_time = len(self._names)
        self._times = {route.name: self._first_time + i * (len(BOUNDS_S) + 2) for i, route in enumerate(ROUTES)}
        self._first_counter = self._first_time + len(ROUTES) * (len(BOUNDS_S) + 2)
        self._counters = {name: self._first_counter + i for i, name in enumerate(COUNTERS)}
        self._width = self._first_counter + len(COUNTERS)
        self._memory = memory if memory is not None else shared_memory(workers=1)
        self._cells = memoryview(self._memory).cast("d")
        self._row = worker * self._width

    def count(self, route: Route | None, status: int, seconds: float) -> None:
        """One answer, given `seconds` after its request was there."""
        self._cells[self._row + self._place[route, status]] += 1.0
        if route is not None and status == 200:
            first = self._row + self._times[route.name]
            self._cells[first + bisect_left(BOUNDS_S, seconds)] += 1.0
            self._cells[first + len(BOUNDS_S) + 1] += seconds

    def add(self, counter: str, amount: float = 1.0) -> None:
        """More of one of COUNTERS."""
        self._cells[self._row + self._counters[counter]] += amount

    def text(self, gauges: Mapping[str, Any]) -> bytes:
        """All numbers, and `gauges`: numbers and texts of now. A text becomes a label of `shortlist_info`; a group of things with
        numbers each (`sources`: name: {calls: 3}) becomes one gauge a number, labelled with their names."""
        rows = range(0, len(self._cells) - self._width + 1, self._width)
        sums = [sum(self._cells[row + place] for row in rows) for place in range(self._width)]
        return "".join(f"{line}\n" for line in self._lines(sums, gauges)).encode()

    def _lines(self, sums: Sequence[float], gauges: Mapping[str, Any]) -> Iterator[str]:
        yield from _head("shortlist_http_requests_total", "counter", "Answers by route and status.")
        for (route, status), value in zip(self._names, sums, strict=False):
            if value:
                method, path = ("", "") if route is None else (route.method, route.path)
                yield f'shortlist_http_requests_total{{method="{method}",route="{path}",status="{status}"}} {value:g}'
        yield from _head(
            "shortlist_http_request_seconds", "histogram", "Time from a whole request to its answer, of those answered with 200."
        )
        for route in ROUTES:
            first = self._times[route.name]
            yield from _histogram(f'method="{route.method}",route="{route.path}"', sums[first : first + len(BOUNDS_S) + 2])
        for name, help_text in COUNTERS.items():
            yield from _head(f"shortlist_{name}_total", "counter", help_text)
            yield f"shortlist_{name}_total {sums[self._counters[name]]:g}"
        numbers = {name: float(value) for name, value in gauges.items() if isinstance(value, (int, float))}
        for name, number in numbers.items():
            yield from _head(f"shortlist_{name}", "gauge", "State of the worker that answers.")
            yield f"shortlist_{name} {number!r}"
        for group, things in gauges.items():
            if not (isinstance(things, dict) and all(isinstance(thing, dict) for thing in things.values())):
                continue  # words of a person's concern, such as `problems`
            for name in sorted({name for thing in things.values() for name in thing}):
                yield from _head(f"shortlist_{group}_{name}", "gauge", "State of the worker that answers.")
                yield from (f'shortlist_{group}_{name}{{name="{_escaped(label)}"}} {thing[name]:g}' for label, thing in things.items())
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in gauges.items() if isinstance(value, str))
        yield from _head("shortlist_info", "gauge", "What is served.")
        yield f"shortlist_info{{{labels}}} 1"


def shared_memory(*, workers: int) -> mmap.mmap:
    """Zeroed memory for the numbers of `workers` processes; it is shared with processes forked later."""
    probe = mmap.mmap(-1, _CELL_BYTES)  # too small to be used: only the layout is asked for
    return mmap.mmap(-1, Metrics(probe)._width * _CELL_BYTES * workers)


def _head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _histogram(labels: str, cells: Sequence[float]) -> Iterator[str]:
    """The lines of one route; nothing where it was never asked."""
    *buckets, seconds = cells
    if not any(buckets):
        return
    total = 0.0
    for bound, value in zip([*map(str, BOUNDS_S), "+Inf"], buckets, strict=True):
        total += value
        yield f'shortlist_http_request_seconds_bucket{{{labels},le="{bound}"}} {total:.17g}'
    yield f"shortlist_http_request_seconds_sum{{{labels}}} {seconds!r}"
    yield f"shortlist_http_request_seconds_count{{{labels}}} {total:.17g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
