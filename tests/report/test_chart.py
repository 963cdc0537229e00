"""Where a chart puts its points, lines and intervals, worked out by hand; and that no text breaks out of it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from shortlist.report.chart import HEIGHT, WIDTH, Chart, Point, Series, svg
from shortlist.report.labels import text_width
from shortlist.report.scales import linear_axis, named_axis

HOSTILE = '"><script>alert(1)</script></text></svg>&amp;'


def chart_of(*series: Series, title: str = "a title") -> Chart:
    return Chart("key", title, "what it shows", named_axis("x", ["a", "b", "c"]), linear_axis("y", [0.0, 1.0], from_zero=True), series)


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg(chart)))


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def test_points_stand_at_their_place_of_the_axes() -> None:
    root = drawn(chart_of(Series("m", (Point(0, 0.0), Point(1, 0.5), Point(2, 1.0)))))
    # the plot: left of it the widest tick "0.0" of 3 letters, 3 * .57 * 12.5 + 8 = 29.375; above 32, below 50 of 310;
    # right of it the name "m", 1 * .57 * 13.5 + 14 = 21.695
    left, right, top, bottom = 29.375, WIDTH - 21.695, 32.0, HEIGHT - 50.0
    assert left == pytest.approx(text_width("0.0", 12.5) + 8)
    # x: -.5 .. 2.5, so 0 lies at a sixth; y: 0 at the bottom, 1 at the top
    expected = [(left + (right - left) * (x + 0.5) / 3, bottom - (bottom - top) * y) for x, y in ((0, 0), (1, 0.5), (2, 1))]
    (line,) = of_class(root, "line")
    found = [tuple(float(value) for value in pair.split(",")) for pair in line.get("points", "").split()]
    assert [value for pair in found for value in pair] == pytest.approx([value for pair in expected for value in pair], abs=0.06)
    marks = [mark.get("transform", "") for mark in of_class(root, "mark")]
    assert marks[1].startswith(f"translate({expected[1][0]:.1f} {expected[1][1]:.1f})")


def test_an_interval_reaches_from_its_low_to_its_high_end() -> None:
    root = drawn(chart_of(Series("", (Point(1, 0.5, 0.25, 1.0),))))
    (whisker,) = of_class(root, "whisker")
    # 228 high from 260 up to 32: .25 lies at 260 - 57 = 203
    assert (whisker.get("y1"), whisker.get("y2")) == ("203.0", "32.0") and whisker.get("x1") == whisker.get("x2")


def test_a_line_breaks_where_a_value_is_missing() -> None:
    root = drawn(chart_of(Series("m", (Point(0, 0.1), Point(1, None), Point(2, 0.3)))))
    assert [len(line.get("points", "").split()) for line in of_class(root, "line")] == [1, 1]
    assert len(of_class(root, "mark")) == 2


def test_a_series_without_a_line_is_named_beside_its_point_and_one_without_values_nowhere() -> None:
    root = drawn(chart_of(Series("here", (Point(1, 0.5),), has_line=False), Series("nowhere", (Point(1, None),))))
    assert [name.text for name in of_class(root, "name")] == ["here"]


def test_every_text_is_escaped_and_names_are_cut_for_the_eye_alone() -> None:
    text = str(svg(chart_of(Series(HOSTILE, (Point(0, 0.1), Point(2, 0.2))), title=HOSTILE)))
    assert "<script" not in text and text.count("</svg>") == 1
    root = ElementTree.fromstring(text)
    assert root.findtext("title") == HOSTILE
    (name,) = of_class(root, "name")
    assert name.text is not None and name.text == HOSTILE[:21] + "…"
    assert [mark.findtext("title") for mark in of_class(root, "mark")] == [f"{HOSTILE}: 0.100", f"{HOSTILE}: 0.200"]


def test_a_chart_tells_those_who_cannot_see_it_what_it_shows() -> None:
    root = drawn(chart_of(Series("m", (Point(0, 0.1),))))
    assert root.get("role") == "img" and root.get("aria-labelledby") == "key-title key-summary"
    assert (root.findtext("title"), root.findtext("desc")) == ("a title", "what it shows")


def test_the_main_series_is_drawn_last_above_all_others() -> None:
    root = drawn(chart_of(Series("main", (Point(0, 0.1),), 0, is_main=True), Series("other", (Point(0, 0.1),), 1)))
    assert [group.get("class") for group in of_class(root, "series")] == ["series colour-1", "series colour-0 main"]
