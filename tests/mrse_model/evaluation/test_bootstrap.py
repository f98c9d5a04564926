"""Intervals cover, and the test's p is uniform when there is no difference."""

import numpy as np
import pytest

from mrse_model.evaluation.bootstrap import Bootstrap


def test_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = Bootstrap(400).estimate(values)
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_pairs_are_resampled_together():
    base = np.random.default_rng(2).normal(0, 10, 100)  # the difference is constant, so its interval has no width
    found = Bootstrap(100).compare(base + 1, base)
    assert (found.difference, found.low, found.high) == pytest.approx((1, 1, 1))
    assert found.clear and found.p == pytest.approx(2 / 2001)


def test_p_is_even_when_nothing_differs():
    rng = np.random.default_rng(3)
    p = [Bootstrap(60, samples=300).compare(rng.normal(size=60), rng.normal(size=60)).p for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_weights_are_traffic():
    found = Bootstrap(3, weights=np.array([1.0, 0.0, 3.0])).estimate(np.array([0.0, 100.0, 1.0]))
    assert found.mean == pytest.approx(0.75)


def test_a_users_searches_are_one_draw():
    values = np.repeat(np.random.default_rng(4).normal(size=40), 25)  # 40 users of 25 equal searches
    users = np.repeat(np.arange(40), 25).tolist()
    by_user, by_search = Bootstrap(1000, clusters=users).estimate(values), Bootstrap(1000).estimate(values)
    assert (by_user.n, by_search.n) == (40, 1000)
    assert (by_user.high - by_user.low) / (by_search.high - by_search.low) == pytest.approx(5, abs=0.8)


def test_relative_lift():
    found = Bootstrap(50).compare(np.full(50, 0.6), np.full(50, 0.5))
    assert (found.relative, found.relative_low) == pytest.approx((0.2, 0.2))
