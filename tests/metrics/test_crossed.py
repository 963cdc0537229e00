"""Intervals over users and trainings: hand numbers, the plain bootstrap as a special case, and both sources of noise seen."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.errors import ShapeError
from shortlist.metrics.crossed import crossed_intervals
from shortlist.metrics.intervals import bootstrap_intervals


def test_the_mean_weighs_trainings_alike_and_queries_by_weight() -> None:
    # by hand: training 1: (1*1 + 3*2)/4 = 7/4, training 2: (1*0 + 3*5)/4 = 15/4; the mean of both is 11/4
    values = np.array([[1.0, 2.0], [0.0, 5.0]])
    (found,) = crossed_intervals([values], np.array([7, 7]), weight=np.array([1.0, 3.0]), resamples=5, seed=0)
    assert found.mean == 2.75


def test_one_training_is_the_plain_bootstrap_draw_for_draw() -> None:
    random = np.random.default_rng(0)
    columns = [random.random(43), random.random(43)]
    cluster, weight = random.integers(0, 11, 43), random.random(43) + 0.1
    ours = crossed_intervals([column[None, :] for column in columns], cluster, weight=weight, resamples=37, seed=5)
    assert np.allclose(ours, bootstrap_intervals(columns, cluster, weight=weight, resamples=37, seed=5), atol=1e-14)


def test_one_user_and_two_trainings_leave_the_trainings_alone() -> None:
    # the user is drawn in every resample; two draws of {0, 1} have means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4
    values = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    (found,) = crossed_intervals([values], np.zeros(3, np.int64), resamples=400, seed=0)
    assert found == (0.5, 0.0, 1.0)


def test_noise_of_either_kind_widens_the_interval_as_theory_says() -> None:
    random = np.random.default_rng(2)
    trainings, users = 31, 211
    of_training, of_user = random.standard_normal((trainings, 1)) * 0.7, random.standard_normal((1, users)) * 3.0
    (found,) = crossed_intervals([of_training + of_user], np.arange(users), resamples=4000, seed=1)
    # independent sources add: sd^2 = var(training) / S + var(user) / U; a 95 % interval is 2 * 1.96 sd wide
    sd = np.sqrt(of_training.var() / trainings + of_user.var() / users)
    assert found.high - found.low == pytest.approx(2 * 1.96 * sd, rel=0.05)


def test_a_user_is_drawn_with_all_queries() -> None:
    values = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    (found,) = crossed_intervals([values], np.array([4, 4, 4, 9, 9]), resamples=200, seed=0)
    assert (found.low, found.high) == (0.0, 1.0)  # one of the two users twice


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(S, N\).*\(2, 3\), \(2, 5\)"):
        crossed_intervals([np.zeros((2, 3)), np.zeros((2, 5))], np.zeros(3, np.int64), resamples=2, seed=0)
