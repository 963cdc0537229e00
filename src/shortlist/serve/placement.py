"""Where a version's answers are computed: on the event loop, or in threads.

Handing an answer of 150 us to a thread and back costs about as much again, and two threads of one interpreter are in each
other's way; an answer of 20 ms on the loop keeps everybody else from being read, or refused in time. So each version starts on
the loop, and goes to threads where even the quickest of its first answers took too long. The quickest, because on a busy
machine any single one may: that is no reason to hand over, for threads wait for the machine even longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from shortlist.serve.messages import Slate

FIRST_ANSWERS = 20


class Placement:
    """The place of the live version's answers. Used from the event loop alone."""

    def __init__(self, longest_s: float) -> None:
        self.is_on_loop = True
        self._longest_s = longest_s
        self._version, self._answers, self._quickest_s = "", 0, float("inf")

    def learn(self, version: str, seconds: float) -> None:
        """An answer of `version` took so long on the loop."""
        if version != self._version:
            self._begin(version)
        if self._answers < FIRST_ANSWERS:
            self._answers += 1
            self._quickest_s = min(self._quickest_s, seconds)
            self.is_on_loop = self._answers < FIRST_ANSWERS or self._quickest_s <= self._longest_s

    def see(self, slates: Sequence[Slate]) -> None:
        """Answers came out of threads; a new version among them is tried on the loop."""
        if slates and slates[-1].version != self._version:
            self._begin(slates[-1].version)

    def _begin(self, version: str) -> None:
        self.is_on_loop = True
        self._version, self._answers, self._quickest_s = version, 0, float("inf")
