"""Expected counts by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shortlist.frequency import exact_frequency
from shortlist.negatives import MixedNegatives

COUNTS = np.array([5, 0, 2, 1, 3])  # M = 5 items, 11 positives


def mixed(drawn: int, *, replacement: bool = False) -> MixedNegatives:
    return MixedNegatives(exact_frequency(COUNTS), drawn, replacement)


# --- log_n


def test_log_n_adds_the_share_of_the_other_positives_and_of_the_uniform_draws() -> None:
    # B = 4, B' = 2, M = 5: n = 3 q + 2/5
    expected = [3 * 5 / 11 + 0.4, 0.4, 3 * 2 / 11 + 0.4, 3 * 1 / 11 + 0.4, 3 * 3 / 11 + 0.4]
    np.testing.assert_allclose(np.exp(mixed(2).log_n(np.arange(5), 4)), expected, rtol=1e-6)


def test_an_item_that_nobody_chose_has_the_uniform_part_alone() -> None:
    assert mixed(2).log_n(np.array([1]), 1024)[0] == pytest.approx(math.log(2 / 5), abs=1e-6)


def test_one_query_alone_meets_uniform_draws_alone() -> None:
    np.testing.assert_allclose(mixed(3).log_n(np.arange(5), 1), np.full(5, math.log(3 / 5)), rtol=1e-6)


def test_a_count_above_one_is_not_clipped() -> None:
    # B = 1001: n_0 = 1000 * 5/11 + 2/5
    assert math.exp(mixed(2).log_n(np.array([0]), 1001)[0]) == pytest.approx(1000 * 5 / 11 + 0.4, rel=1e-6)


def test_a_count_of_a_billionth_is_not_clipped() -> None:
    counts = np.ones(10**7, np.int64)
    counts[0] = 10**9
    negatives = MixedNegatives(exact_frequency(counts), 0)
    assert math.exp(negatives.log_n(np.array([1]), 2)[0]) == pytest.approx(1 / (10**9 + 10**7 - 1), rel=1e-5)


def test_the_same_item_has_the_same_log_n_in_both_streams() -> None:
    columns = np.array([0, 2, 0, 4, 0, 2])  # the first three as positives, the others as draws: they cannot be told apart
    log_n = mixed(3).log_n(columns, 3)
    assert log_n[0] == log_n[2] == log_n[4]
    assert log_n[1] == log_n[5]
    assert log_n.dtype == np.float32


def test_an_item_that_can_never_be_a_negative_is_named() -> None:
    with pytest.raises(ValueError, match="positive expected count: item row 1 has 0 with B' = 0"):
        mixed(0).log_n(np.array([0, 1, 2]), 4)


def test_an_item_that_nobody_chose_may_weigh_less_in_the_sum() -> None:
    # weight 1/4: its count 2/5 is divided by it, 8/5; the others keep theirs
    lighter = MixedNegatives(exact_frequency(COUNTS), 2, unchosen_weight=0.25)
    counts = np.exp(lighter.log_n(np.arange(5), 4))
    assert counts[1] == pytest.approx(8 / 5)
    np.testing.assert_allclose(counts[[0, 2, 3, 4]], np.exp(mixed(2).log_n(np.array([0, 2, 3, 4]), 4)), rtol=1e-6)
    np.testing.assert_allclose(np.exp(lighter.log_weight()), [1, 0.25, 1, 1, 1], rtol=1e-6)
    assert not mixed(2).log_weight().any()


# --- draws


@pytest.mark.parametrize("replacement", [False, True])
def test_the_mean_count_of_every_item_among_a_rows_negatives_is_its_expected_count(replacement: bool) -> None:
    rng = np.random.default_rng(5)
    negatives, batch, rounds = mixed(3, replacement=replacement), 4, 20_000
    expected = np.exp(negatives.log_n(np.arange(5), batch).astype(np.float64))
    others = rng.multinomial(batch - 1, negatives.frequency.q, size=rounds)
    drawn = np.stack([np.bincount(negatives.sample(rng), minlength=5) for _ in range(rounds)])
    mean = (others + drawn).mean(axis=0)
    # the exact variance of one round: (B-1) q (1-q) for the positives; uniform B' p (1-p) with, p (1-p) without replacement
    q, p = negatives.frequency.q, 1 / 5
    uniform = 3 * p * (1 - p) if replacement else 0.6 * 0.4
    error = np.sqrt(((batch - 1) * q * (1 - q) + uniform) / rounds)
    assert (np.abs(mean - expected) < 4.5 * error).all()


def test_without_replacement_no_item_is_drawn_twice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = mixed(4).sample(rng)
        assert len(drawn) == 4 == len(set(drawn.tolist()))


def test_without_replacement_a_small_corpus_is_drawn_whole_and_counted_so() -> None:
    negatives = mixed(7)  # B' = 7 > M = 5
    assert sorted(negatives.sample(np.random.default_rng(0)).tolist()) == [0, 1, 2, 3, 4]
    assert negatives.drawn == 5
    assert math.exp(negatives.log_n(np.array([1]), 4)[0]) == pytest.approx(1.0)  # not 7/5


def test_with_replacement_a_small_corpus_is_drawn_more_often_than_it_has_items() -> None:
    negatives = mixed(7, replacement=True)
    assert len(negatives.sample(np.random.default_rng(0))) == 7
    assert math.exp(negatives.log_n(np.array([1]), 4)[0]) == pytest.approx(7 / 5)


def test_no_index_draws_are_no_draws() -> None:
    assert mixed(0).sample(np.random.default_rng(0)).tolist() == []


def test_the_same_generator_state_gives_the_same_draws() -> None:
    first, second = (mixed(3).sample(np.random.default_rng(9)).tolist() for _ in range(2))
    assert first == second


def test_the_mean_number_of_accidental_hits_is_counted_by_hand_and_met_by_draws() -> None:
    # B = 4, B' = 2: 3 * (25 + 0 + 4 + 1 + 9) / 121 + 2/5
    expected = 3 * 39 / 121 + 0.4
    assert mixed(2).expected_accidental_hits(4) == pytest.approx(expected)
    rng = np.random.default_rng(2)
    q, rounds = mixed(2).frequency.q, 20_000
    positives = rng.choice(5, p=q, size=(rounds, 4))
    in_batch = (positives[:, 1:] == positives[:, :1]).sum(axis=1)
    uniform = np.array([(mixed(2).sample(rng) == row[0]).sum() for row in positives])
    hits = in_batch + uniform
    assert abs(hits.mean() - expected) < 4.5 * hits.std() / math.sqrt(rounds)
