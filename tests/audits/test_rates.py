"""How often right calls are called wrong, and wrong ones right: simulated calls, whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from gradprobe.audits.judge import WRONG
from gradprobe.audits.measured import ALARM, Terms, judged
from gradprobe.audits.scale import known_factors, looks_like, off, products, within

SEEDS, CALLS, AUDITS = 10, 10, 1500
FALSE = 1e-6
"""Chance that one of these tests fails without cause."""


def terms(
    rng: np.random.Generator, noise: str, size: int, mean: np.ndarray, samples: int = 1, seeds: int = SEEDS
) -> Terms:
    """Calls of evolution strategies on a linear loss with gradient (1, 0, 0, ...), or with Gaussian noise."""
    eps = rng.standard_normal((seeds, SEEDS * CALLS // seeds, samples, size))
    if noise == "es":
        calls = (eps[..., :1] * eps).mean(2) + mean
    else:
        calls = eps.mean(2) * np.sqrt(size) + mean + np.eye(1, size)[0]
    means = calls.mean(1)
    return Terms(calls[..., 0], means @ means.T, 1.0)


@pytest.mark.parametrize(("noise", "size"), [("es", 30), ("es", 300), ("gaussian", 30)])
def test_right_calls_raise_false_alarms_no_more_often_than_stated(noise: str, size: int) -> None:
    """Length and direction: at most twice 0.5 %."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(AUDITS):
        gain, most = judged(terms(rng, noise, size, np.zeros(size)), ALARM, False)
        alarms += off(*gain[1:]) or most < WRONG
    assert alarms <= binom.ppf(1 - FALSE, AUDITS, 2 * ALARM)


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0, 0.0])
def test_a_hundred_calls_of_one_sample_find_a_wrong_factor(factor: float) -> None:
    """The gain's standard error is sqrt(2/100) = 0.14 of it; the tightest case is 1/2 against 1 - 0.1."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        good = terms(rng, "es", 30, np.zeros(30))
        gain, _ = judged(Terms(factor * good.along, factor**2 * good.products, 1.0), ALARM, False)
        found += off(*gain[1:])
    assert found >= 0.5 * 200
    if factor <= 0.5:
        assert found >= 0.95 * 200


def test_a_direction_beside_the_gradient_is_found_and_the_bound_holds() -> None:
    """A mean with cosine 1/sqrt(2), in noise of kappa 31/8 calls."""
    rng = np.random.default_rng(2)
    mean = np.zeros(30)
    mean[1] = 1.0
    most = [judged(terms(rng, "es", 30, mean, samples=8), ALARM, False)[1] for _ in range(200)]
    assert np.mean(np.array(most) < WRONG) > 0.9
    assert np.mean(np.array(most) < np.sqrt(0.5)) <= binom.ppf(1 - FALSE, 200, 2 * ALARM) / 200


def test_ten_seeds_find_more_wrong_directions_than_five_in_as_many_calls() -> None:
    """A mean with cosine 0.8: Student's quantile is 4.6 for five seeds and 3.2 for ten (0.56 and 0.86 are found)."""
    found = {}
    for seeds in (5, SEEDS):
        rng, mean = np.random.default_rng(4), np.zeros(30)
        mean[1] = 0.75
        each = [judged(terms(rng, "es", 30, mean, 8, seeds), ALARM, False)[1] for _ in range(200)]
        found[seeds] = np.mean(np.array(each) < WRONG)
    assert found[SEEDS] > found[5] + 0.1


def test_the_length_beside_the_gradient_has_no_bias() -> None:
    """Noise alone adds kappa/n to |mean|^2; products of different seeds do not."""
    rng = np.random.default_rng(3)
    beside = []
    for _ in range(400):
        t = terms(rng, "gaussian", 30, np.zeros(30))
        own = t.along.mean(1)
        cross = t.products - np.outer(own, own)
        beside.append(cross[~np.eye(SEEDS, dtype=bool)].mean())
    assert abs(np.mean(beside)) < 5 * np.std(beside) / np.sqrt(400)
    assert np.mean(np.diagonal(cross)) > 10 * abs(np.mean(beside))


def test_factors_have_one_name_each_and_products_come_last() -> None:
    factors = known_factors(8, 0.01, 4)
    assert next(iter(factors)) == "1"
    assert factors["-sigma^2"] == -1e-4
    assert looks_like(0.0097, 0.0103, factors) == {"sigma": 0.01}
    assert list(looks_like(4.9e-5, 5.1e-5, factors)) == ["1/2 sigma^2"]
    assert looks_like(0.31, 0.32, factors) == {}
    assert within(-1.02, -0.98, factors) == ["-1"]
    assert len(set(products(factors).values())) == len(products(factors))
    assert list(known_factors(1, None, 1)) == ["1", "2", "1/2", "-1", "-2", "-1/2"]
