"""Copies that a cosine needs: the value, its interval, and tests that err as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.synthetic import Truth, make_run

CELLS = 250
ESTIMATORS = {f"{n:g}": Truth(0.9, 320 * n) for n in (0.1, 1, 10, 100)}


def run(estimators: dict[str, Truth], layers: int = CELLS, products: bool = False, seeds: int = 5):
    names = {f"l{i}": 96 for i in range(layers)}
    return make_run(
        np.random.default_rng(11), layers=names, estimators=estimators, products=products, seeds=seeds
    )


def test_copies_are_those_at_which_the_law_passes_the_cosine() -> None:
    """An independent oracle: bisection of ``predict`` (the margins differ by the noise of A squared, small here)."""
    law = stats.alignment(run({"lr": Truth(1.0, 100.0)}, 3))
    need = stats.needed(law, 0.9)
    for i in range(3):
        low, high = 1.0, 1e6
        for _ in range(60):
            middle = np.sqrt(low * high)
            above = float(stats.predict(law, middle)["cosine"][0, i]) > 0.9
            low, high = (low, middle) if above else (middle, high)
        assert float(need["copies"][0, i]) == pytest.approx(high, rel=0.02)
    assert (need["copies_low"] < need["copies"]).all()
    assert (need["copies"] < need["copies_high"]).all()


@pytest.mark.parametrize("products", [False, True])
def test_a_true_ceiling_is_rejected_as_rarely_as_stated(products: bool) -> None:
    """250 cells at each of four noise levels; a count above the bound has a chance of 1e-4 at the stated rate."""
    need = stats.needed(stats.alignment(run(ESTIMATORS, products=products)), 0.9)
    for level in (0.05, 0.01):
        rejected = (need["p_ceiling"] < level).sum("layer").values
        assert (rejected <= binom.ppf(1 - 1e-4, CELLS, level * 1.1)).all()  # 5.5 % where 5 % are stated


def test_intervals_hold_the_copies() -> None:
    """At ceiling 1, n* = kappa/(1/c^2 - 1); 92.5 % is the least that was measured."""
    truth = {f"{n:g}": Truth(1.0, 320 * n) for n in (0.1, 1, 10, 100)}
    need = stats.needed(stats.alignment(run(truth)), 0.9)
    true = np.array([t.kappa for t in truth.values()])[:, None] / (0.9**-2 - 1)
    held = ((need["copies_low"].values <= true) & (true <= need["copies_high"].values)).sum(1)
    assert (held >= binom.ppf(1e-4, CELLS, 0.925)).all()


def test_a_ceiling_below_the_cosine_has_no_copies() -> None:
    need = stats.needed(stats.alignment(run({"alr": Truth(0.6, 30.0)}, 3)), 0.9)
    assert not need["ceiling_above"].any()
    assert (need["p_ceiling"] < 0.01).all()
    assert need["copies"].isnull().all()
    assert np.isinf(need["copies_low"]).all()


def test_without_noise_and_with_two_seeds() -> None:
    exact = {"fa": Truth(0.5, 0.0, stochastic=False), "bp": Truth(1.0, 0.0, stochastic=False)}
    need = stats.needed(stats.alignment(run(exact, 2)), 0.9)
    assert need["copies"].isnull().all()
    assert (need["p_ceiling"] == 0).all()
    assert need["ceiling_above"].values.tolist() == [[False] * 2, [True] * 2]
    few = stats.needed(stats.alignment(run({"lr": Truth()}, 2, seeds=2)), 0.9)
    assert few[["copies", "copies_low", "p_ceiling", "p_reached"]].to_array().isnull().all()


@pytest.mark.parametrize("cosine", [0, 1, 1.2, -0.5, True, "0.9", float("nan")])
def test_what_is_no_cosine_is_refused(cosine: object) -> None:
    law = stats.alignment(run({"lr": Truth()}, 1))
    with pytest.raises(UsageError, match="cosine must be a number between 0 and 1"):
        stats.needed(law, cosine)
    with pytest.raises(UsageError, match="lacks 'A'"):
        stats.needed(law.drop_vars("A"))
