"""The law's cosine inside the run, beyond it, and where it is not resolved."""

import numpy as np
import pytest
from scipy import stats as sps

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.stats.brute import slow_jackknife, triple
from tests.synthetic import Truth, make_run


def test_prediction_inside_the_run_is_the_pooled_cosine():
    """At N: X + T/N = mean |g_N|^2, so the law passes through the pooled cosine of the last point."""
    truth = {"lr": Truth(kappa=10.0), "alr": Truth(rho=0.8, kappa=15.0)}
    ds = make_run(np.random.default_rng(7), estimators=truth, seeds=4, blocks=12, block=8)
    found = stats.alignment(ds)
    at = stats.predict(found, 96)
    assert at.cosine.dims == ("estimator", "layer")
    square = found.X.mean("seed") + found["T"].mean("seed") / 96
    assert np.allclose(at.cosine, found.A.mean("seed") / np.sqrt(found.G.mean("seed") * square))
    fc = ds.sel(parameter=["fc.weight", "fc.bias"], reference="bp").isel(copies=-1)
    dot, square, norm = (fc[k].sum("parameter").mean("seed") for k in ("dot", "sqnorm", "reference_sqnorm"))
    pooled = dot / np.sqrt(square * norm)
    assert np.allclose(at.cosine.sel(layer="fc"), pooled)
    several = stats.predict(found, [8, 96, 1e9])
    assert several.cosine.dims == ("estimator", "layer", "copies")
    assert np.allclose(several.cosine.isel(copies=-1), found.ceiling, rtol=1e-5)
    cell = found.isel(estimator=0, layer=0)
    slow = slow_jackknife(lambda a, x, t, g: a / np.sqrt(g * (x + t / 8)), *(cell[k].values for k in "AXTG"))
    first = several.isel(estimator=0, layer=0, copies=0)
    assert triple(first, "cosine") == pytest.approx(slow)


def test_prediction_beyond_an_unresolved_run_is_an_envelope():
    truth = {"up": Truth(kappa=1e4), "down": Truth(kappa=1e4, gain=-1.0)}
    ds = make_run(
        np.random.default_rng(9), layers={"fc": 300}, estimators=truth, seeds=5, blocks=20, block=16
    )
    found = stats.alignment(ds)
    assert (found.state == "unresolved").all()
    near, far = stats.predict(found, 320).isel(layer=0), stats.predict(found, 1e6).isel(layer=0)
    assert np.isfinite(near.cosine).all()
    assert np.isnan(far.cosine).all()
    up, down = (far.sel(estimator=e) for e in truth)
    q = sps.t.ppf(0.975, 4)
    cell = found.sel(estimator="up", layer="fc")
    h = cell.A.values / np.sqrt(cell.G.values)
    top = h.mean() + q * sps.sem(h)
    assert float(up.cosine_high) == pytest.approx(top / np.sqrt(top**2 + cell["T"].values.mean() / 1e6))
    truth_there = np.sqrt(1e6 / (1e6 + 1e4))
    assert float(up.cosine_low) <= truth_there <= float(up.cosine_high) <= 1
    assert -1 <= float(down.cosine_low) <= -truth_there <= float(down.cosine_high)


def test_prediction_refuses():
    ds = make_run(np.random.default_rng(0), seeds=3, blocks=4)
    found = stats.alignment(ds)
    with pytest.raises(UsageError, match="positive"):
        stats.predict(found, [10, 0])
    with pytest.raises(UsageError, match="gp.stats.alignment"):
        stats.predict(ds, 10)
