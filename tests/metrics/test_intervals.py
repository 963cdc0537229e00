"""Bootstrap intervals against drawing users by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shortlist.errors import ShapeError
from shortlist.metrics.intervals import bootstrap_interval, bootstrap_intervals, paired_interval


def slow_bootstrap(values: list[float], cluster: list[int], resamples: int, seed: int) -> list[float]:
    """Means of resamples that really put the drawn users' values together."""
    users = sorted(set(cluster))
    random = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        pool = []
        for drawn in random.integers(len(users), size=len(users)).tolist():
            pool += [value for value, user in zip(values, cluster, strict=True) if user == users[drawn]]
        means.append(sum(pool) / len(pool))
    return means


def test_the_interval_agrees_with_drawing_users_by_hand() -> None:
    random = np.random.default_rng(3)
    values, cluster = random.random(47), random.choice([11, 2, 5, 3, 29, 17, 101], size=47)
    means = slow_bootstrap(values.tolist(), cluster.tolist(), resamples=211, seed=5)
    result = bootstrap_interval(values, cluster, resamples=211, seed=5, level=0.9)
    assert result.mean == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))


def test_two_users_can_only_give_three_means() -> None:
    # user 0: values 1, 1, 1; user 1: value 0. Draws: 00 -> 1, 01 and 10 -> 3/4, 11 -> 0, with chances 1/4, 1/2, 1/4
    values, cluster = np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1])
    assert bootstrap_interval(values, cluster, resamples=4001, seed=1, level=0.9) == (0.75, 0.0, 1.0)
    assert bootstrap_interval(values, cluster, resamples=4001, seed=1, level=0.4) == (0.75, 0.75, 0.75)


def test_weights_make_a_mean_of_means_and_the_interval_of_drawing_users() -> None:
    # user 0: values 1 and 0 of weights 3 and 1; user 1: value 1 of weight 4. Mean (3 + 0 + 4) / 8 = .875.
    # Draws: 00 -> 3/4, 01 and 10 -> 7/8, 11 -> 1, with chances 1/4, 1/2, 1/4
    values, cluster, weight = np.array([1.0, 0, 1]), np.array([0, 0, 1]), np.array([3.0, 1, 4])
    assert bootstrap_interval(values, cluster, weight=weight, resamples=4001, seed=1, level=0.9) == (0.875, 0.75, 1.0)
    assert bootstrap_interval(values, cluster, weight=weight, resamples=4001, seed=1, level=0.4) == (0.875, 0.875, 0.875)


def test_weighted_intervals_agree_with_repeating_each_value() -> None:
    random = np.random.default_rng(8)
    values, cluster, weight = random.random(29), random.choice([13, 2, 5, 3, 7], size=29), random.integers(1, 6, 29)
    means = slow_bootstrap(np.repeat(values, weight).tolist(), np.repeat(cluster, weight).tolist(), resamples=97, seed=5)
    result = bootstrap_interval(values, cluster, weight=weight.astype(float), resamples=97, seed=5, level=0.8)
    assert result.mean == pytest.approx(np.repeat(values, weight).mean())
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


def test_only_the_proportions_of_weights_matter_and_equal_ones_are_none() -> None:
    random = np.random.default_rng(6)
    values, weight = random.random(31), random.random(31) + 0.1
    one, double = (bootstrap_interval(values, None, weight=factor * weight, resamples=97, seed=7) for factor in (1, 1024))
    assert one == pytest.approx(double)
    none, equal = (bootstrap_interval(values, None, weight=each, resamples=97, seed=7) for each in (None, np.full(31, 0.25)))
    assert none == pytest.approx(equal)
    paired = paired_interval(values, np.zeros(31), None, weight=weight, resamples=97, seed=7)
    assert paired == one


@pytest.mark.parametrize(("weight", "message"), [([1.0, 0.0], "above 0 and finite: got 0.0"), ([1.0, math.nan], "above 0 and finite")])
def test_a_weight_that_is_not_positive_is_refused(weight: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(np.zeros(2), None, weight=np.array(weight), resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"one entry a value: got shape \(2,\) for 3 values"):
        bootstrap_interval(np.zeros(3), None, weight=np.array(weight), resamples=10, seed=0)


def test_queries_of_one_user_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(2).integers(2, size=101).astype(float), 23)
    alone = bootstrap_interval(values, None, resamples=301, seed=7)
    together = bootstrap_interval(values, np.repeat(np.arange(101), 23), resamples=301, seed=7)
    # 23 equal answers a user: the standard error is sqrt(23) = 4.8 times as large
    assert 3.8 < (together.high - together.low) / (alone.high - alone.low) < 5.8


def test_queries_that_stand_alone_are_clusters_of_one() -> None:
    values = np.random.default_rng(2).random(31)
    alone = bootstrap_interval(values, None, resamples=97, seed=7)
    assert alone == bootstrap_interval(values, np.arange(31) * 3, resamples=97, seed=7)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).standard_normal(2003)
    result = bootstrap_interval(values, None, resamples=2000, seed=0)
    assert result.high - result.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2003), rel=0.1)


def test_paired_values_that_always_differ_by_the_same_have_no_spread() -> None:
    b = np.random.default_rng(4).integers(8, size=53) / 8
    cluster = np.arange(53) % 7
    assert paired_interval(b + 0.25, b, cluster, resamples=101, seed=3) == (0.25, 0.25, 0.25)
    single = bootstrap_interval(b, cluster, resamples=101, seed=3)
    assert single.low < single.high


def test_a_seed_gives_the_same_interval_and_leaves_its_inputs_alone() -> None:
    values, cluster = np.arange(13.0), np.arange(13) % 5
    before = values.copy(), cluster.copy()
    assert bootstrap_interval(values, cluster, resamples=50, seed=1) == bootstrap_interval(values, cluster, resamples=50, seed=1)
    assert bootstrap_interval(values, cluster, resamples=50, seed=1) != bootstrap_interval(values, cluster, resamples=50, seed=2)
    assert (values == before[0]).all() and (cluster == before[1]).all()


def test_intervals_of_what_is_no_number_are_refused() -> None:
    values = np.array([1.0, math.nan, math.nan])
    with pytest.raises(ValueError, match=r"got nan at 1 \(2 such\)"):
        bootstrap_interval(values, None, resamples=10, seed=0)
    with pytest.raises(ValueError, match="values_b must be finite"):
        paired_interval(np.zeros(3), values, None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match="3 and 2"):
        paired_interval(np.zeros(3), np.zeros(2), None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"shape \(0,\)"):
        bootstrap_interval(np.zeros(0), None, resamples=10, seed=0)
    with pytest.raises(ShapeError, match=r"\(2,\) for 3 values"):
        bootstrap_interval(np.zeros(3), np.zeros(2, np.int64), resamples=10, seed=0)
    with pytest.raises(ShapeError, match="integers: got float64"):
        bootstrap_interval(np.zeros(3), np.full(3, math.nan), resamples=10, seed=0)
    with pytest.raises(ValueError, match="resamples must be at least 1: got 0"):
        bootstrap_interval(np.zeros(3), None, resamples=0, seed=0)
    with pytest.raises(ValueError, match=r"level .* got 95"):
        bootstrap_interval(np.zeros(3), None, resamples=10, seed=0, level=95)


def test_columns_meet_the_same_draws_as_each_alone() -> None:
    random = np.random.default_rng(6)
    columns, cluster, weight = [random.random(37) for _ in range(3)], random.integers(0, 11, 37), random.random(37) + 0.5
    together = bootstrap_intervals(columns, cluster, weight=weight, resamples=53, seed=2)
    for column, interval in zip(columns, together, strict=True):
        assert interval == pytest.approx(bootstrap_interval(column, cluster, weight=weight, resamples=53, seed=2))


def test_a_difference_of_columns_is_the_paired_interval() -> None:
    random = np.random.default_rng(7)
    a, b, cluster = random.random(41), random.random(41), random.integers(0, 13, 41)
    (interval,) = bootstrap_intervals([a - b], cluster, resamples=53, seed=2)
    assert interval == pytest.approx(paired_interval(a, b, cluster, resamples=53, seed=2))


def test_several_trainings_are_drawn_beside_the_users() -> None:
    """Three columns of one model and a model without trainings, against drawing by hand with the same numbers."""
    random = np.random.default_rng(11)
    trained, plain, cluster = random.random((47, 3)), random.random(47), random.choice([11, 2, 5, 3, 29], size=47)
    users = sorted(set(cluster.tolist()))
    draws = np.random.default_rng(5)
    means: list[tuple[float, float]] = []
    for _ in range(211):
        rows = [row for user in draws.integers(len(users), size=len(users)) for row in np.flatnonzero(cluster == users[user])]
        seeds = draws.integers(3, size=3)
        means.append((float(np.mean([trained[rows, seed].mean() for seed in seeds])), float(plain[rows].mean())))
    found = bootstrap_intervals([trained, plain], cluster, resamples=211, seed=5, level=0.9)
    for place, (interval, values) in enumerate(zip(found, (trained, plain), strict=True)):
        assert interval.mean == pytest.approx(values.mean())
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile([mean[place] for mean in means], [0.05, 0.95])))


def test_trainings_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    values = np.random.default_rng(2).integers(2, size=101).astype(float)
    alike = bootstrap_interval(np.column_stack([values] * 5), None, resamples=499, seed=0)
    apart = bootstrap_interval(np.column_stack([values + shift for shift in (-0.5, -0.25, 0, 0.25, 0.5)]), None, resamples=499, seed=0)
    alone = bootstrap_interval(values, None, resamples=499, seed=0)
    assert alike.high - alike.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert apart.mean == pytest.approx(alone.mean) and apart.high - apart.low > 2 * (alone.high - alone.low)


def test_one_training_is_a_column_like_any_other() -> None:
    values = np.random.default_rng(4).random(31)
    assert bootstrap_interval(values[:, None], None, resamples=97, seed=3) == bootstrap_interval(values, None, resamples=97, seed=3)


def test_models_trained_differently_often_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"must all be of as many: got \[2, 3\]; train every model with the same seeds"):
        bootstrap_intervals([np.zeros((7, 2)), np.zeros((7, 3)), np.zeros(7)], None, resamples=10, seed=0)
