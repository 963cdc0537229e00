"""Names beside what they name, none upon another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER_WIDTH = 0.57  # of the font size: a little more than the mean of common sans-serif fonts


@dataclass(frozen=True)
class Box:
    """A rectangle on paper, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether both share more than an edge."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, outer: Box) -> bool:
        """Whether all of it lies inside `outer`."""
        return outer.left <= self.left and self.right <= outer.right and outer.top <= self.top and self.bottom <= outer.bottom


def text_width(text: str, font_size: float) -> float:
    """How wide `text` will be, about."""
    return len(text) * CHARACTER_WIDTH * font_size


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart within low..high, in the order of `wanted` and near it; evenly spaced where all do not fit."""
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    groups: list[list[int]] = []  # neighbours that touch move as one, around the mean of what they want
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _start(groups[-1], wanted, gap, low, high) < _end(groups[-2], wanted, gap, low, high) + gap:
            last = groups.pop()
            groups[-1] += last
    places = [0.0] * len(wanted)
    for group in groups:
        start = _start(group, wanted, gap, low, high)
        for number, index in enumerate(group):
            places[index] = start + number * gap
    return places


def beside_points(points: Sequence[tuple[float, float]], names: Sequence[str], font_size: float, inside: Box) -> list[tuple[float, float]]:
    """Where each name begins (left, middle): right or left of its point, else above or below, the nearest place where nothing is yet.

    Where every such place is taken, the one to the right.
    """
    shifts = sorted((step * side * 1.15 * font_size for step in range(1, 8) for side in (-1, 1)), key=abs)
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    found = []
    for (x, y), name in zip(points, names, strict=True):
        width, half = text_width(name, font_size), font_size * 0.6
        choices = [(left, y + shift) for shift in (0.0, *shifts) for left in (x + 9, x - 9 - width)]
        boxes = [Box(left, middle - half, left + width, middle + half) for left, middle in choices]
        free = [place for place, box in enumerate(boxes) if box.within(inside) and not any(box.overlaps(other) for other in taken)]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        found.append(choices[chosen])
    return found


def _start(group: list[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    """Where the first of a group stands."""
    length = (len(group) - 1) * gap
    centre = sum(wanted[index] for index in group) / len(group)
    return min(max(centre - length / 2, low), high - length)


def _end(group: list[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    return _start(group, wanted, gap, low, high) + (len(group) - 1) * gap
