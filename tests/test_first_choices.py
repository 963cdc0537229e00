"""What first choices say of words in common: a planted strength is found, what towers say is taken off, and the rest is hand numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_evaluation import examples_of

from shortlist import first_choices as module
from shortlist.first_choices import FirstChoices, believed, beside_words, first_choices, words_alone
from shortlist.sections import EvaluateSettings

ITEMS, WORDS, TOWERS = 997, 7, 5
ALL, NO_SEED = EvaluateSettings(seen_items="rank"), EvaluateSettings(seen_items="exclude_seed")
Floats = NDArray[np.float32]


def unit(rows: NDArray[np.floating]) -> Floats:
    of_length_1: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return of_length_1


def planted(strength: float, count: int = 601, *, left_out: int = 0) -> tuple[FirstChoices, Floats]:
    """(choices drawn by that strength among the items not chosen before and not left out, codes of the items).

    left_out   so many of the items nearest to each query may be in no list
    """
    random = np.random.default_rng(5)
    codes, shown = unit(random.standard_normal((ITEMS, WORDS)) + 0.4), unit(random.standard_normal((count, WORDS)))
    places = 3 * np.arange(count) + 5  # in a log of which other choices are of items chosen before
    closed, positive, unlisted = np.full(ITEMS, 3 * count + 5), np.empty(count, np.int64), []
    for number, place in enumerate(places):
        products = codes @ shown[number]
        nearest = np.argsort(-products)[:left_out]
        unlisted.append(np.append(nearest, -1))
        logits = strength * products + random.gumbel(size=ITEMS)
        logits[closed < place], logits[nearest] = -np.inf, -np.inf
        positive[number] = logits.argmax()
        closed[positive[number]] = place
    return FirstChoices(shown, positive, places, closed, unlisted if left_out else None), codes


def error_of(found: tuple[float, float] | None) -> tuple[float, float]:
    assert found is not None
    return found


@pytest.mark.parametrize("left_out", [0, 3])
@pytest.mark.parametrize("strength", [0.0, 3.0, 9.0])
def test_a_planted_strength_is_found_within_its_error(monkeypatch: pytest.MonkeyPatch, strength: float, left_out: int) -> None:
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 23 * ITEMS)
    found, error = error_of(words_alone(*planted(strength, left_out=left_out)))
    assert 0.05 < error < 0.4
    assert found == pytest.approx(strength, abs=3 * error)


def test_what_no_list_may_hold_is_no_alternative() -> None:
    """The nearest items are in no list: taken for alternatives that nobody wants, they make words say less."""
    choices, codes = planted(9.0, left_out=3)
    right, wrong = error_of(words_alone(choices, codes)), error_of(words_alone(replace(choices, unlisted=None), codes))
    assert right[0] - wrong[0] > 3 * right[1]


def test_the_strength_is_that_of_an_oracle() -> None:
    """The mode of the posterior is the normal likelihood times the normal belief: what is returned, with the belief put back."""
    choices, codes = planted(4.0, 53, left_out=2)

    def minus_log_posterior(strength: float) -> float:
        total = (strength / module._DEVIATION) ** 2 / 2
        for number, own in enumerate(choices.positive):
            out = choices.unlisted[number] if choices.unlisted is not None else []
            open_to = [item for item in range(ITEMS) if choices.closed[item] >= choices.open[number] and item not in out]
            products = codes[open_to].astype(float) @ choices.shown[number]
            total += np.log(np.exp(strength * products).sum()) - strength * float(codes[own].astype(float) @ choices.shown[number])
        return float(total)

    found, error = error_of(words_alone(choices, codes))
    of_choices, of_belief = error**-2, module._DEVIATION**-2
    mode, step = found * of_choices / (of_choices + of_belief), 1e-3
    low, middle, high = (minus_log_posterior(mode + by) for by in (-step, 0.0, step))
    assert abs(high - low) / (2 * step) < 53 * module._FLAT + 1e-3
    assert (high - 2 * middle + low) / step**2 == pytest.approx(of_choices + of_belief, rel=1e-3)
    assert found > mode  # the belief around 0 is no evidence


def test_choices_that_say_nothing_are_no_evidence() -> None:
    choices, codes = planted(4.0, 11)
    assert words_alone(replace(choices, shown=np.zeros_like(choices.shown)), codes) is None
    assert words_alone(replace(choices, shown=np.zeros((11, 0), np.float32)), np.zeros((ITEMS, 0), np.float32)) is None


@pytest.mark.parametrize("mu", [-2.0, 0.0, 6.0])
def test_what_towers_say_along_with_words_is_an_oracles(monkeypatch: pytest.MonkeyPatch, mu: float) -> None:
    """Towers that say the square of what words say and something else; items off centre, some of them not new, some left out."""
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 17 * ITEMS)
    random = np.random.default_rng(6)
    shown, codes = unit(random.standard_normal((53, WORDS))), unit(random.standard_normal((ITEMS, WORDS)) + 0.4)
    pairs = np.einsum("nm,nl->nml", shown, shown).reshape(53, -1), np.einsum("nm,nl->nml", codes, codes).reshape(ITEMS, -1)
    queries = np.hstack([pairs[0], random.standard_normal((53, TOWERS), np.float32)])
    items = np.hstack([pairs[1], random.standard_normal((ITEMS, TOWERS), np.float32)])
    new, left_out = np.arange(ITEMS) % 3 != 1, [np.array([7 * number, 11 * number, -1]) for number in range(53)]
    both = words = 0.0
    for number in range(53):
        open_to = [item for item in range(ITEMS) if new[item] and item not in left_out[number]]
        said = codes[open_to].astype(float) @ shown[number].astype(float)
        towers = items[open_to].astype(float) @ queries[number].astype(float)
        chance = np.exp(mu * said) / np.exp(mu * said).sum()
        away = said - (chance * said).sum()
        both, words = both + (chance * away * towers).sum(), words + (chance * away * away).sum()
    found = beside_words(mu, shown, codes, queries=queries, items=items, new=new, left_out=left_out)
    assert found == pytest.approx(both / words, rel=1e-4, abs=1e-5)
    assert beside_words(mu, np.zeros_like(shown), codes, queries=queries, items=items, new=new) == 0  # nothing goes along with nothing


def test_beta_depends_on_where_words_expect_the_choice() -> None:
    """Of the square of the cosine, the slope is twice the cosine there: the test above could not tell a weight that is not looked at."""
    random = np.random.default_rng(6)
    shown, codes = unit(random.standard_normal((53, WORDS))), unit(random.standard_normal((ITEMS, WORDS)))
    queries, items = (np.einsum("nm,nl->nml", rows, rows).reshape(len(rows), -1) for rows in (shown, codes))
    low, high = (beside_words(mu, shown, codes, queries=queries, items=items, new=np.ones(ITEMS, bool)) for mu in (-9.0, 9.0))
    assert low < -0.5 and high > 0.5


def test_the_rule_is_not_believed_to_the_letter() -> None:
    found = believed(3.0, 0.4, 2.5)
    assert (found.total, found.beside) == (3.0, 2.5)
    assert found.deviation == pytest.approx(float(np.hypot(0.4, module._RULE_DEVIATION)))


# --- which choices they are


def first(items: list[int], settings: EvaluateSettings = ALL, *, not_rewarded: Sequence[int] = (), **more: Any) -> FirstChoices | None:
    examples = examples_of(items, **more)
    examples.weight[list(not_rewarded)] = 0
    return first_choices(examples, np.eye(12, 3, dtype=np.float32), 0, settings)


def test_first_choices_are_those_of_the_later_half_in_the_order_of_the_log() -> None:
    found = first([0, 1, 1, 0, 2, 3, 1, 4, 3, 5], seeds=[-1, 0, 0, 1, 2, 0, 0, 2, 1, 1], not_rewarded=[7])
    assert found is not None
    assert found.positive.tolist() == [3, 5]  # 2 is of the first half; 4 was shown, not chosen: no answer, and no alternative later
    assert found.open.tolist() == [5, 9]
    assert found.closed.tolist() == [0, 1, 4, 5, 7, 9, *6 * [10]]
    assert found.unlisted is None
    np.testing.assert_array_equal(found.shown, np.eye(12, 3, dtype=np.float32)[[0, 1]])


def test_queries_show_their_histories_the_newest_first() -> None:
    codes = np.eye(6, dtype=np.float32)
    examples = examples_of([0, 1, 2, 3], histories=[[], [0], [0, 1], [0, 1, 2]])
    found = first_choices(examples, codes, 2, ALL)
    assert found is not None
    younger, older = 2.0**-0.25, 2.0**-0.5
    expected = np.array([[older, younger, 0], [0, older, younger]]) / np.hypot(younger, older)
    np.testing.assert_allclose(found.shown[:, :3], expected, rtol=1e-6)  # 3's history is longer than what is looked at


def test_what_lists_leave_out_is_left_out_and_no_answer() -> None:
    found = first([0, 1, 2, 3, 4, 5], NO_SEED, seeds=[-1, -1, -1, 3, 7, -1])
    assert found is not None
    assert found.positive.tolist() == [4, 5]  # 3 was its own seed: it could not have been listed
    assert [rows.tolist() for rows in found.unlisted or []] == [[7], [-1]]


def test_where_nothing_is_first_nothing_comes_back() -> None:
    assert first([0, 1, 2, 0, 1, 2]) is None
    assert first([0, 1, 2, 3, 4, 5], not_rewarded=range(6)) is None
    new = examples_of([0, 1, 2, 3, 4, 5])
    codes = np.eye(8, 3, dtype=np.float32)
    assert first_choices(new, codes, 0, ALL) is not None
    assert first_choices(replace(new, time=np.zeros(6, np.int64)), codes, 0, ALL) is None  # a log without times has no first


def test_many_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_CELLS", 0)
    monkeypatch.setattr(module, "_FEWEST_CHOICES", 3)
    found = first(list(range(10)))
    assert found is not None
    assert found.open.tolist() == [5, 7, 9]
