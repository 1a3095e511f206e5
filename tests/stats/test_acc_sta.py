"""Acc., Sta. and the floor: hand-computed values, statsmodels, and sums over every whole n."""

import numpy as np
import pytest
import statsmodels.api as sm

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._grid import line_residual, rms, trapezoid_weights, within
from gradprobe.stats.floor import law_accuracy, law_stability
from tests.synthetic import Truth, make_run


def _with_cosines(values, block=10):
    """One estimator, one layer, one seed per row, whose cosines are given."""
    values = np.asarray(values, dtype=float)
    ds = make_run(
        np.random.default_rng(0), layers={"fc": 8}, seeds=len(values), blocks=values.shape[1], block=block
    )
    for name in ("sqnorm", "reference_sqnorm", "block_sqnorm"):
        ds[name][:] = 0.5  # two parameters: the layer's norm is 1
    ds["dot"].loc[{"reference": "bp", "estimator": "lr"}] = np.stack([values / 2, values / 2])
    return ds


def test_accuracy_by_hand():
    ds = _with_cosines([[0.1, 0.3, 0.4, 0.6], [0.0, 0.0, 0.0, 0.6]])
    # whole grid: (0.1/2 + 0.3 + 0.4 + 0.6/2)/3 and (0.6/2)/3
    assert np.allclose(stats.accuracy(ds), [[[0.35, 0.1]]])
    # 20 to 40: (0.3/2 + 0.4 + 0.6/2)/2; ends between stored points use the points inside
    assert np.allclose(stats.accuracy(ds, copies=(20, 40)).isel(seed=0), 0.425)
    assert np.allclose(stats.accuracy(ds, copies=(15, 40)).isel(seed=0), 0.425)
    assert np.allclose(stats.accuracy(ds, copies=(30, 30)).isel(seed=0), 0.4)
    assert stats.accuracy(ds, copies=(15, 40)).attrs["range"] == [20, 40]


def test_stability_by_hand():
    # weights (1/4, 1/2, 1/4) around (0, 1, 0): the line is its mean 1/2, every residual is 1/2
    ds = _with_cosines([[0.0, 1.0, 0.0], [0.2, 0.4, 0.6]])
    assert np.allclose(stats.stability(ds).isel(seed=0), 0.5)
    assert np.allclose(stats.stability(ds).isel(seed=1), 0.0, atol=1e-12)


def test_weights_on_an_uneven_grid():
    assert np.allclose(trapezoid_weights([1, 2, 5]), [1 / 8, 4 / 8, 3 / 8])
    assert trapezoid_weights([7]).tolist() == [1.0]


def test_line_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(0)
    n = np.array([1, 2, 5, 9, 30, 31.0])
    y = rng.standard_normal((4, n.size))
    w = trapezoid_weights(n)
    for row, residual in zip(y, line_residual(y, n, w), strict=True):
        assert np.allclose(residual, sm.WLS(row, sm.add_constant(n), weights=w).fit().resid)


def test_around_the_law_sees_noise_only():
    ds = make_run(np.random.default_rng(2), kappa=3000.0, seeds=4, blocks=40, block=5)
    free = make_run(np.random.default_rng(2), kappa=3000.0, seeds=4, blocks=40, block=5)
    law = stats.alignment(ds)
    n = ds.copies.values
    pooled = stats.predict(law, n).cosine
    expected = np.sqrt(
        (trapezoid_weights(n) * (stats.cosine(free) - pooled).transpose(..., "copies") ** 2).sum("copies")
    )
    assert np.allclose(stats.stability(ds, around="law"), expected)


def test_floor_is_stability_of_the_law():
    truth = {"exact": Truth(kappa=100.0), "bp": Truth(kappa=0.0, stochastic=False)}
    ds = make_run(np.random.default_rng(0), estimators=truth, seeds=3, blocks=30, block=4)
    floor = stats.stability_floor(ds)
    assert floor.dims == ("estimator", "layer")
    n = ds.copies.values
    w = trapezoid_weights(n)
    law = stats.predict(stats.alignment(ds), n).cosine.values
    assert np.allclose(floor, rms(line_residual(law, n, w), w))
    assert np.allclose(floor.sel(estimator="bp"), 0.0, atol=1e-12)


def _every(n1, n2, kappa):
    n = np.arange(n1, n2 + 1.0)
    w = np.full(n.size, 1 / n.size)
    y = np.sqrt(n / (n + kappa))
    return rms(line_residual(y, n, w), w), (w * y).sum()


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 10.0, 100.0, 1e3, 1e4, 1e6, 2.1e7, 1e9])
@pytest.mark.parametrize("n1", [1, 10, 100])
def test_closed_form_is_the_sum_over_every_n(n1, kappa):
    sta, acc = _every(n1, 2000, kappa)
    assert law_stability(n1, 2000, kappa) == pytest.approx(sta, abs=3e-4)
    assert law_accuracy(n1, 2000, kappa) == pytest.approx(acc, abs=1e-4)
    if kappa >= 1e3:
        assert law_stability(n1, 2000, kappa) == pytest.approx(sta, rel=2e-3)


TABLE = {  # alignment law, section 5c: n1 -> (Sta., Acc.) at kappa 10, 100, 1000, 10000; n2 = 2000
    1: [(0.036, 0.986), (0.078, 0.915), (0.068, 0.652), (0.022, 0.282)],
    10: [(0.021, 0.988), (0.067, 0.918), (0.065, 0.655), (0.021, 0.283)],
    50: [(0.009, 0.991), (0.044, 0.927), (0.054, 0.665), (0.018, 0.288)],
    100: [(0.005, 0.992), (0.030, 0.935), (0.045, 0.675), (0.016, 0.293)],
}


@pytest.mark.parametrize("n1", TABLE)
def test_published_table(n1):
    kappa = np.array([10, 100, 1000, 10000])
    expected = np.array(TABLE[n1])
    assert np.allclose(law_stability(n1, 2000, kappa), expected[:, 0], atol=6e-4)
    assert np.allclose(law_accuracy(n1, 2000, kappa), expected[:, 1], atol=6e-4)


def test_published_grids():
    """Sta. of the law on sparse grids: the trapezoid weights mend a log grid, not a linear one."""
    log = np.unique(np.round(np.geomspace(1, 2000, 20)))
    linear = np.round(np.linspace(1, 2000, 20))

    def sta(n, w, kappa):
        return rms(line_residual(np.sqrt(n / (n + kappa)), n, w), w)

    even = np.full(20, 1 / 20)
    assert sta(linear, even, 10.0) == pytest.approx(0.137, abs=2e-3)
    assert sta(log, trapezoid_weights(log), 100.0) == pytest.approx(0.080, abs=2e-3)
    assert sta(linear, trapezoid_weights(linear), 10.0) == pytest.approx(0.104, abs=2e-3)
    worst = law_stability(1e-3 + 0.5, 1e5, 1e5 * np.geomspace(1e-3, 10, 400))
    assert worst.max() == pytest.approx(0.086, abs=1e-3)


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ((1, 40), "between 10 and 40"),
        ((10, 41), "between 10 and 40"),
        ((40, 10), "between 10 and 40"),
        (20, r"copies=\(first, last\)"),
        ((20, 30), "hold 2 stored points and this statistic needs 3"),
    ],
)
def test_ranges_that_cannot_be_served(copies, words):
    ds = _with_cosines([[0.1, 0.3, 0.4, 0.6]])
    with pytest.raises(UsageError, match=words):
        stats.stability(ds, copies=copies)


def test_accuracy_needs_a_point():
    with pytest.raises(UsageError, match="hold 0 stored points"):
        within(np.array([10.0, 20.0]), (12, 15), least=1)


def test_unknown_curve():
    with pytest.raises(UsageError, match="Did you mean 'line'"):
        stats.stability(_with_cosines([[0.1, 0.3, 0.4]]), around="lines")


def test_an_estimator_that_ends_early_has_no_value_beyond():
    truth = {"lr": Truth(), "short": Truth(blocks=5)}
    ds = make_run(np.random.default_rng(0), estimators=truth, seeds=2, blocks=10, block=4)
    whole, common = stats.accuracy(ds), stats.accuracy(ds, copies=(4, 20))
    assert np.isnan(whole.sel(estimator="short")).all()
    assert np.isfinite(whole.sel(estimator="lr")).all()
    assert np.isfinite(common).all()
    assert np.isnan(stats.stability_floor(ds).sel(estimator="short")).all()
    assert np.isfinite(stats.stability_floor(ds, copies=(4, 20))).all()
