"""Bands, jackknife and Fieller against scipy, loops and the inequality that defines them."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._intervals import fieller, fieller_lower, jackknife, mean_se, t_quantile
from tests.synthetic import make_run


def test_bands_are_those_of_scipy():
    ds = make_run(np.random.default_rng(0), seeds=6, blocks=3)
    cosine = stats.cosine(ds)
    for level in (0.5, 0.95):
        found = stats.bands(cosine, level=level)
        low, high = sps.t.interval(
            level, 5, loc=cosine.mean("seed"), scale=sps.sem(cosine.transpose("seed", ...).values)
        )
        assert np.allclose(found["mean"], cosine.mean("seed"))
        assert np.allclose(found["std"], cosine.std("seed", ddof=1))
        assert np.allclose(found["low"], low)
        assert np.allclose(found["high"], high)
    assert "pointwise" in found.attrs["interval"]
    assert found["mean"].dims == ("estimator", "layer", "copies")
    assert "color" in found.coords


def test_bands_of_one_seed_and_of_gaps():
    da = xr.DataArray([[0.5, np.nan], [np.nan, np.nan], [0.7, 0.2]], dims=("seed", "copies"))
    found = stats.bands(da)
    assert found.seeds.values.tolist() == [2, 1]
    assert found["mean"].values.tolist() == pytest.approx([0.6, 0.2])
    assert np.isfinite(found["std"].values).tolist() == [True, False]
    assert np.isnan(stats.bands(da.isel(seed=[0]))[["std", "low", "high"]].to_array()).all()
    assert np.isnan(stats.bands(da.isel(seed=[1]))["mean"]).all()


def test_bands_refuse():
    da = xr.DataArray([0.5], dims="copies")
    with pytest.raises(UsageError, match="'seed'"):
        stats.bands(da)
    with pytest.raises(UsageError, match="level"):
        stats.bands(da.expand_dims(seed=2), level=95)


def test_jackknife_is_the_loop():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 6)) + 4
    a[0, 2] = b[0, 2] = np.nan

    def ratio(x, y):
        return x / np.sqrt(y)

    value, se = jackknife(ratio, a, b)
    for i in range(3):
        kept = np.isfinite(a[i])
        x, y = a[i][kept], b[i][kept]
        rest = np.array([ratio(np.delete(x, j).mean(), np.delete(y, j).mean()) for j in range(x.size)])
        assert value[i] == pytest.approx(ratio(x.mean(), y.mean()))
        assert se[i] == pytest.approx(np.sqrt((x.size - 1) / x.size * ((rest - rest.mean()) ** 2).sum()))
    linear = jackknife(lambda x: 2 * x, a)[1]
    assert np.allclose(linear, 2 * mean_se(a)[1])


def test_t_quantile():
    assert np.allclose(t_quantile(0.975, np.array([3, 5, 20])), sps.t.ppf(0.975, [2, 4, 19]))
    assert np.isnan(t_quantile(0.975, np.array([0, 1, 2]))).all()


seeds = st.integers(min_value=0, max_value=10_000)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=seeds, where=st.floats(min_value=-2, max_value=6))
def test_fieller_is_its_inequality(seed, where):
    """k is inside exactly where |mean(num - k den)| <= q se(num - k den), for k >= 0."""
    rng = np.random.default_rng(seed)
    num, den = rng.standard_normal(5) + 5, rng.standard_normal(5) + where
    q = t_quantile(0.975, np.array(5))
    low, high = fieller(num[None], den[None], q[None])
    resolved = den.mean() > q * sps.sem(den)
    assert np.isfinite(high[0]) == resolved
    if resolved:
        k = np.linspace(0, 2 * high[0] + 1, 400)
        rest = num - k[:, None] * den
        holds = np.abs(rest.mean(-1)) <= q * sps.sem(rest, axis=-1)
        assert (holds == ((low[0] <= k) & (k <= high[0]))).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=seeds, where=st.floats(min_value=0.2, max_value=3))
def test_lower_bound_is_its_inequality(seed, where):
    rng = np.random.default_rng(seed)
    num, den = rng.standard_normal(5) + 6, rng.standard_normal(5) + where
    q = t_quantile(0.95, np.array(5))
    low = fieller_lower(num[None], den[None], q[None])[0]
    assert np.isfinite(low)
    if den.mean() > 0:
        k = np.linspace(0, low * 0.999, 200)
        rest = num - k[:, None] * den
        holds = rest.mean(-1) <= q * sps.sem(rest, axis=-1)
        assert holds[1:].any() == (num.mean() <= q * sps.sem(num))
        edge = num - low * den
        assert edge.mean() == pytest.approx(q * sps.sem(edge), abs=1e-8) or low == 0
