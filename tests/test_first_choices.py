"""What first choices say of words in common: a planted strength is found, what towers say is taken off, and the rest is hand numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from small_evaluation import examples_of

from shortlist import first_choices as module
from shortlist.first_choices import FirstChoices, among_new, first_choices, words_alone

ITEMS, WORDS, TOWERS = 997, 7, 5
Floats = NDArray[np.float32]


def unit(rows: NDArray[np.floating]) -> Floats:
    of_length_1: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return of_length_1


def planted(strength: float, count: int = 601) -> tuple[FirstChoices, Floats]:
    """(choices drawn by that strength among the items not chosen before, codes of the items)."""
    random = np.random.default_rng(5)
    codes, shown = unit(random.standard_normal((ITEMS, WORDS))), unit(random.standard_normal((count, WORDS)))
    closed, positive = np.full(ITEMS, count), np.empty(count, np.int64)
    for place in range(count):
        logits = strength * (codes @ shown[place]) + random.gumbel(size=ITEMS)
        positive[place] = np.where(closed >= place, logits, -np.inf).argmax()
        closed[positive[place]] = place
    return FirstChoices(shown, positive, np.arange(count), closed), codes


@pytest.mark.parametrize("strength", [0.0, 3.0, 9.0])
def test_a_planted_strength_is_found_within_its_error(monkeypatch: pytest.MonkeyPatch, strength: float) -> None:
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 13 * ITEMS)
    found, error = words_alone(*planted(strength))
    assert 0.05 < error < 0.3
    assert found == pytest.approx(strength, abs=3 * error)


def test_the_strength_is_that_of_an_oracle() -> None:
    choices, codes = planted(4.0, 53)

    def minus_log_posterior(strength: float) -> float:
        total = (strength / module._DEVIATION) ** 2 / 2
        for place, own in enumerate(choices.positive):
            open_to = [item for item in range(ITEMS) if choices.closed[item] >= place]
            products = codes[open_to].astype(float) @ choices.shown[place]
            total += np.log(np.exp(strength * products).sum()) - strength * float(codes[own].astype(float) @ choices.shown[place])
        return float(total)

    found, error = words_alone(choices, codes)
    step = 1e-3
    low, middle, high = (minus_log_posterior(found + by) for by in (-step, 0.0, step))
    assert abs(high - low) / (2 * step) < 53 * module._FLAT + 1e-3
    assert error == pytest.approx(((high - 2 * middle + low) / step**2) ** -0.5, rel=1e-3)


def test_queries_that_show_no_word_leave_what_was_believed() -> None:
    choices, codes = planted(4.0, 11)
    nothing = FirstChoices(np.zeros_like(choices.shown), choices.positive, choices.open, choices.closed)
    assert words_alone(nothing, codes) == pytest.approx((0.0, module._DEVIATION))


def test_what_towers_say_along_with_words_is_known_without_a_choice() -> None:
    """Towers whose products are 2.5 times those of words, and something else that does not go along with them."""
    random = np.random.default_rng(6)
    asked, codes = unit(random.standard_normal((211, WORDS))), unit(random.standard_normal((ITEMS, WORDS)))
    other, others = random.standard_normal((211, TOWERS), np.float32), random.standard_normal((ITEMS, TOWERS), np.float32)
    queries, items = np.hstack([2.5 * asked, other]), np.hstack([codes, others])
    found = among_new(3.0, 0.4, asked, codes, queries, items)
    assert found.total == 3
    assert found.beside == pytest.approx(2.5, abs=0.05)
    assert found.deviation == pytest.approx(float(np.hypot(0.4, module._RULE)))
    assert among_new(3.0, 0.4, np.zeros_like(asked), codes, queries, items).beside == 0  # nothing goes along with nothing


def test_first_choices_are_those_of_the_later_half_in_the_order_of_the_log() -> None:
    codes = np.eye(8, 3, dtype=np.float32)
    examples = examples_of([0, 1, 1, 0, 2, 3, 1, 4, 3, 5], seeds=[-1, 0, 0, 1, 2, 0, 0, 2, 1, 1])
    examples.weight[7] = 0  # 4 was shown then, not chosen: it is no answer, and no alternative later
    found = first_choices(examples, codes, history_last=0)
    assert found is not None
    assert found.positive.tolist() == [3, 5]  # 2 is of the first half
    assert found.open.tolist() == [5, 9]
    assert found.closed.tolist() == [0, 1, 4, 5, 7, 9, 10, 10]
    np.testing.assert_array_equal(found.shown, codes[[0, 1]])


def test_where_nothing_is_first_nothing_comes_back() -> None:
    codes = np.eye(8, 3, dtype=np.float32)
    assert first_choices(examples_of([0, 1, 2, 0, 1, 2]), codes, 0) is None
    new = examples_of([0, 1, 2, 3, 4, 5])
    assert first_choices(new, codes, 0) is not None
    assert first_choices(replace(new, time=np.zeros(6, np.int64)), codes, 0) is None  # a log without times has no first


def test_many_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_CELLS", 0)
    monkeypatch.setattr(module, "_FEWEST_CHOICES", 3)
    found = first_choices(examples_of(list(range(10))), np.eye(10, 3, dtype=np.float32), 0)
    assert found is not None
    assert found.open.tolist() == [5, 7, 9]
