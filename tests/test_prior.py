"""Popularity of late: by hand, against a slow version, and the weights of a planted mixture."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.prior import HALF_LIVES, fit_prior, recency_shares

DAY = 86_400_000_000


def test_shares_by_hand() -> None:
    # three events at ages 2, 1 and 0 days; half-life of a day: they count 1/4, 1/2, 1; item 0 has 1/4 + 1, item 2 has 1/2
    shares = recency_shares(np.array([0, 2, 0]), np.array([0, DAY, 2 * DAY]), np.ones(3), 4, [float(DAY)], now=2 * DAY)
    assert shares[0].tolist() == [0.25] * 4
    np.testing.assert_allclose(shares[1], [1.25 / 1.75, 0, 0.5 / 1.75, 0])


def test_rewards_count() -> None:
    shares = recency_shares(np.array([0, 1]), np.array([0, 0]), np.array([3.0, 1.0]), 2, [float(DAY)], now=0)
    np.testing.assert_allclose(shares[1], [0.75, 0.25])


def test_an_item_that_nobody_chose_has_the_uniform_part_alone() -> None:
    random = np.random.default_rng(0)
    prior = fit_prior(random.integers(0, 31, 997), np.sort(random.integers(0, 30 * DAY, 997)), np.ones(997), 37)
    assert prior.share.sum() == pytest.approx(1)
    # shares of chosen items hold it too, so it is the least; weights are rounded to four places where they are shown
    np.testing.assert_allclose(prior.share[31:], prior.weights["uniform"] / 37, atol=0.00005 / 37 + 1e-12)
    assert (prior.share[:31] > prior.share[31]).all()


def test_a_log_that_does_not_drift_remembers_and_one_that_does_forgets() -> None:
    random = np.random.default_rng(3)
    time = np.sort(random.integers(0, 32 * DAY, 20_011))
    still = random.choice(101, 20_011, p=np.arange(1, 102) / 5151)
    turning = (time // DAY + random.integers(0, 3, 20_011)) % 101  # each day has three items of its own
    long, short = slice(1, 5), slice(len(HALF_LIVES) - 2, None)  # a quarter of the window and more; a sixteenth and less
    of_still = list(fit_prior(still, time, np.ones(20_011), 101).weights.values())
    of_turning = list(fit_prior(turning, time, np.ones(20_011), 101).weights.values())
    assert sum(of_still[long]) > 0.5 > 0.2 > sum(of_still[short])
    assert sum(of_turning[short]) > 0.5 > 0.2 > sum(of_turning[long])


def test_the_weights_never_see_a_foretold_block_s_own_events() -> None:
    # the last quarter of the window is all of items that came never before: only the uniform part can foretell the first of its
    # blocks; were blocks foretold from themselves, short half-lives would do it
    time = np.arange(4000) * DAY // 100
    item = np.arange(4000) % 7
    item[3000:] = 7 + np.arange(1000)  # every one of them once
    prior = fit_prior(item, time, np.ones(4000), 1007)
    assert prior.weights["uniform"] > 0.99


def test_events_of_one_instant_are_foretold_together() -> None:
    prior = fit_prior(np.array([0, 1, 2, 1]), np.zeros(4, np.int64), np.ones(4), 5)
    assert (prior.share > 0).all() and prior.share.sum() == pytest.approx(1)
    assert len(set(prior.weights.values())) == 1  # nothing came before anything


def test_the_unit_of_time_does_not_matter() -> None:
    random = np.random.default_rng(5)
    item, time = random.integers(0, 13, 499), np.sort(random.integers(0, 1 << 40, 499))
    np.testing.assert_allclose(fit_prior(item, time, np.ones(499), 17).share, fit_prior(item, time * 8, np.ones(499), 17).share, rtol=1e-6)


def test_a_window_without_a_reward_is_refused() -> None:
    with pytest.raises(ValueError, match="a reward above 0: got none"):
        fit_prior(np.array([1]), np.array([0]), np.zeros(1), 3)
