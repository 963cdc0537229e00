"""Lines, points and intervals -> SVG text that stands inside an HTML page.

Colours, fonts and line widths are the page's (templates/report.css): classes say what a thing is, so that one drawing serves light,
dark and print. Series differ in shape and dash as well as in colour, and are named where they end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from shortlist.report.labels import Box, beside_points, spread, text_width
from shortlist.report.scales import Axis

WIDTH, HEIGHT = 460.0, 310.0
COLOURS = 9  # classes colour-0 ... of the style sheet
TICK_SIZE, NAME_SIZE = 12.5, 13.5  # font sizes of the style sheet
_TOP, _BELOW, _EDGE = 32.0, 50.0, 12.0
_LINE_GAP = 15.0
_LONGEST_NAME = 22  # characters; the tables hold the whole name
_RADIUS = 3.4
_SHAPES = (  # paths around 0, 0 of the size of a circle of radius 1
    "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0 -1 0Z",
    "M-.9 -.9H.9V.9H-.9Z",
    "M0 -1.2L1.1 .8H-1.1Z",
    "M0 -1.3L1.2 0L0 1.3L-1.2 0Z",
    "M0 1.2L1.1 -.8H-1.1Z",
)
_DASHES = ("", "6 3", "2 3", "9 3 2 3", "1 2")


@dataclass(frozen=True)
class Point:
    """One value, and its interval where one is known. Without a `y` there is nothing to draw, and a line breaks."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """One named row of points. `style` picks colour, shape and dash; the same model has the same on the whole page."""

    name: str  # empty: the line stays unnamed
    points: tuple[Point, ...]
    style: int = 0
    is_main: bool = False  # drawn last and thicker
    has_line: bool = True
    has_marks: bool = True

    @property
    def drawn(self) -> list[Point]:
        """The points that have a value."""
        return [point for point in self.points if point.y is not None]


@dataclass(frozen=True)
class Chart:
    """One picture. `key` is unique on the page; `summary` tells in a sentence what it shows, for those who cannot see it."""

    key: str
    title: str
    summary: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


def svg(chart: Chart) -> Markup:
    """The drawing, as safe HTML: whatever names hold is escaped."""
    root = Element("svg", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img")
    root.set("aria-labelledby", f"{chart.key}-title {chart.key}-summary")
    SubElement(root, "title", id=f"{chart.key}-title").text = chart.title
    SubElement(root, "desc", id=f"{chart.key}-summary").text = chart.summary
    plot = _plot(chart)
    _draw_axes(root, chart, plot)
    for series in sorted(chart.series, key=lambda series: series.is_main):
        _draw_series(root, chart, series, plot)
    _draw_names(root, chart, plot)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # ElementTree has escaped all text


def _plot(chart: Chart) -> Box:
    """The rectangle of the data: what is left beside tick labels and names."""
    left = max(text_width(text, TICK_SIZE) for _, text in chart.y.ticks) + 8
    right = max((text_width(_shown(series), NAME_SIZE) + 14 for series in chart.series if series.has_line and series.name), default=0.0)
    return Box(left, _TOP, WIDTH - max(right, _EDGE), HEIGHT - _BELOW)


def _x(chart: Chart, plot: Box, value: float) -> float:
    return plot.left + chart.x.place(value) * (plot.right - plot.left)


def _y(chart: Chart, plot: Box, value: float) -> float:
    return plot.bottom - chart.y.place(value) * (plot.bottom - plot.top)


def _draw_axes(root: Element, chart: Chart, plot: Box) -> None:
    axes = SubElement(root, "g", {"class": "axes", "aria-hidden": "true"})
    for value, text in chart.y.ticks:
        y = _y(chart, plot, value)
        _line(axes, plot.left, y, plot.right, y, "grid")
        _text(axes, plot.left - 6, y, text, "tick end")
    for value, text in chart.x.ticks:
        x = _x(chart, plot, value)
        _line(axes, x, plot.bottom, x, plot.bottom + 4, "axis")
        _text(axes, x, plot.bottom + 15, text, "tick middle")
    _line(axes, plot.left, plot.bottom, plot.right, plot.bottom, "axis")
    _text(axes, 0, 10, chart.y.title, "axis-title")
    _text(axes, (plot.left + plot.right) / 2, HEIGHT - 10, chart.x.title, "axis-title middle")


def _draw_series(root: Element, chart: Chart, series: Series, plot: Box) -> None:
    group = SubElement(root, "g", {"class": f"series colour-{series.style % COLOURS}{' main' if series.is_main else ''}"})
    for point in series.drawn:
        if point.low is not None and point.high is not None:
            x = _x(chart, plot, point.x)
            _line(group, x, _y(chart, plot, point.low), x, _y(chart, plot, point.high), "whisker")
    if series.has_line:
        for part in _unbroken(series.points):
            places = " ".join(f"{_x(chart, plot, point.x):.1f},{_y(chart, plot, point.y or 0.0):.1f}" for point in part)
            dash = {} if series.is_main else {"stroke-dasharray": _DASHES[series.style % len(_DASHES)] or "none"}
            SubElement(group, "polyline", {"class": "line", "points": places, **dash})
    for point in series.drawn if series.has_marks else ():
        x, y = _x(chart, plot, point.x), _y(chart, plot, point.y or 0.0)
        mark = SubElement(group, "path", {"class": "mark", "d": _SHAPES[series.style % len(_SHAPES)]})
        mark.set("transform", f"translate({x:.1f} {y:.1f}) scale({_RADIUS * (1.25 if series.is_main else 1):g})")
        SubElement(mark, "title").text = f"{series.name}: {point.y:.3f}"


def _unbroken(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The runs of points between gaps."""
    for is_drawn, part in groupby(points, key=lambda point: point.y is not None):
        if is_drawn:
            yield list(part)


def _draw_names(root: Element, chart: Chart, plot: Box) -> None:
    """Lines are named to the right of where they end, points beside where they are."""
    names = SubElement(root, "g", {"class": "names", "aria-hidden": "true"})
    lines = [series for series in chart.series if series.has_line and series.name and series.drawn]
    ends = [_y(chart, plot, series.drawn[-1].y or 0.0) for series in lines]
    places = spread(ends, _LINE_GAP, plot.top + 4, plot.bottom)
    for series, end, y in zip(lines, ends, places, strict=True):
        x = _x(chart, plot, series.drawn[-1].x)
        if abs(y - end) > _LINE_GAP / 2 or plot.right - x > _EDGE:  # a thin line leads from the end to its name
            _line(names, x + 4, end, plot.right + 5, y, f"leader colour-{series.style % COLOURS}")
        _name(names, series, plot.right + 8, y)
    alone = [series for series in chart.series if not series.has_line and series.drawn]
    points = [(_x(chart, plot, series.drawn[0].x), _y(chart, plot, series.drawn[0].y or 0.0)) for series in alone]
    inside = Box(plot.left, plot.top - 8, WIDTH, plot.bottom)
    free = beside_points(points, [_shown(series) for series in alone], NAME_SIZE, inside)
    for series, (x, y), (left, middle) in zip(alone, points, free, strict=True):
        if middle != y:
            near = left - 2 if left > x else left + text_width(_shown(series), NAME_SIZE)
            _line(names, x, y, near, middle, f"leader colour-{series.style % COLOURS}")
        _name(names, series, left, middle)


def _name(parent: Element, series: Series, x: float, y: float) -> None:
    _text(parent, x, y, _shown(series), f"name colour-{series.style % COLOURS}{' main' if series.is_main else ''}")


def _shown(series: Series) -> str:
    return series.name if len(series.name) <= _LONGEST_NAME else f"{series.name[: _LONGEST_NAME - 1]}…"


def _line(parent: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    places = {name: f"{value:.1f}" for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    SubElement(parent, "line", {"class": kind, **places})


def _text(parent: Element, x: float, y: float, text: str, kind: str) -> None:
    SubElement(parent, "text", {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}"}).text = text
