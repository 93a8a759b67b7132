"""Paired statistics: counted, resampled from a seed, and none of nothing."""

from itertools import product

import numpy as np
import pytest

from sparseprune.paired import Paired


def test_wins_ties_and_losses_are_counted():
    found = Paired.of([0.1, 0.0, -0.2, 0.3, 0.0])
    assert (found.wins, found.ties, found.losses) == (2, 2, 1)
    assert found.mean == pytest.approx(0.04) and found.std == pytest.approx(np.std([0.1, 0, -0.2, 0.3, 0], ddof=1))


def test_the_interval_is_that_of_every_resample():
    values = [0.5, -0.1, 0.2, 0.9]
    means = [np.mean(chosen) for chosen in product(values, repeat=4)]
    found = Paired.of(values)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.03)
    assert found.low < found.mean < found.high


def test_it_is_a_function_of_the_seed():
    values = list(np.random.default_rng(0).normal(size=10))
    assert Paired.of(values) == Paired.of(values) != Paired.of(values, seed=1)


def test_an_interval_shrinks_with_more_pairs_and_moves_with_them():
    few, many = (np.random.default_rng(1).normal(size=n) for n in (10, 1000))
    assert Paired.of(many).high - Paired.of(many).low < 0.2 * (Paired.of(few).high - Paired.of(few).low)
    assert Paired.of(few + 1).low == pytest.approx(Paired.of(few).low + 1)


def test_one_pair_is_its_own_interval_and_none_is_none():
    assert Paired.of([0.25]) == Paired(0.25, 0.0, 0.25, 0.25, 1, 0, 0)
    assert Paired.of([]) is None
