"""Parts against sigma: the same numbers as decompose's, a window by a slow loop, and careless input."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats as sps

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.synthetic import Truth, make_run

SIGMAS = (0.001, 0.01, 0.1, 1.0)
KAPPA = (400.0, 40.0, 41.0, 90.0)
RHO = (1.0, 1.0, 1.0, 0.6)


def swept(rng: int = 0, **changes: object) -> xr.Dataset:
    """lr at four sigmas and es at two; noise rises at the left, bias at the right."""
    methods = {f"lr({s})": Truth(rho=r, kappa=k) for s, k, r in zip(SIGMAS, KAPPA, RHO, strict=True)}
    methods |= {
        "es(0.01)": Truth(kappa=80.0),
        "es(0.1)": Truth(kappa=30.0),
        "bp": Truth(0.99, 0, stochastic=False),
    }
    ds = make_run(np.random.default_rng(rng), estimators=methods, noisy_blocks=8, **changes)
    return labelled(ds)


def labelled(ds: xr.Dataset) -> xr.Dataset:
    names = [str(e).rstrip(")").split("(") for e in ds["estimator"].values]
    sigma = [float(n[1]) if len(n) > 1 else np.nan for n in names]
    return ds.assign_coords(sigma=("estimator", sigma), method=("estimator", [n[0] for n in names]))


@pytest.mark.parametrize("over", ["layer", "model"])
def test_parts_are_those_of_decompose_where_there_are_any(over: str) -> None:
    ds = swept()
    found, parts = stats.against_sigma(ds, 200, over), stats.decompose(ds, 200, over)
    assert list(found["estimator"].values) == ["lr", "es"]
    assert list(found["sigma"].values) == list(SIGMAS)
    for label in ds["estimator"].values[:-1]:
        method, sigma = label.rstrip(")").split("(")
        one = found.sel(estimator=method, sigma=float(sigma))
        for name in ("value", "low", "high", "state", "smoothed_state"):
            np.testing.assert_array_equal(one[name].values, parts[name].sel(estimator=label).values)
    gone = found.sel(estimator="es", sigma=[0.001, 1.0])
    assert bool(gone["value"].isnull().all())
    assert (gone["verdict"] == "").all()
    assert found.attrs["tolerance"] == 0.02


def test_excess_is_a_paired_jackknife_over_seeds() -> None:
    ds = swept(1)
    found, law = stats.against_sigma(ds, 200), stats.alignment(ds)
    for layer in found["layer"].values:
        one = found.sel(estimator="lr", layer=layer)
        total = one["value"].sel(part="total")
        best = float(total["sigma"][int(np.argmin(total.values))])
        assert float(one["best"]) == best

        def cosine(sigma: float, keep: np.ndarray, layer: str = layer) -> float:
            cell = law.sel(estimator=f"lr({sigma})", layer=layer)
            a, x, t, g = (cell[k].values[keep].mean() for k in "AXTG")
            return a / np.sqrt(g * (x + t / 200))

        for sigma in SIGMAS:
            seeds = np.arange(5)
            value = cosine(best, seeds) - cosine(sigma, seeds)
            rest = np.array([cosine(best, seeds != j) - cosine(sigma, seeds != j) for j in seeds])
            half = sps.t.ppf(0.975, 4) * np.sqrt(4 / 5 * ((rest - rest.mean()) ** 2).sum())
            cell = one.sel(sigma=sigma)
            got = [float(cell[k]) for k in ("excess", "excess_low", "excess_high")]
            np.testing.assert_allclose(got, [value, value - half, value + half], atol=1e-12)
            word = "inside" if got[2] <= 0.02 else "outside" if got[1] > 0.02 else "unclear"
            assert str(cell["verdict"].values) == word


def test_window_is_the_stretch_of_good_sigmas_around_the_best() -> None:
    found = stats.against_sigma(swept(2), 320, "model", tolerance=0.05)
    lr = found.sel(estimator="lr")
    assert (float(lr["window_low"]), float(lr["window_high"])) == (0.01, 0.1)
    assert list(lr["verdict"].values[[0, 3]]) == ["outside", "outside"]
    wide = stats.against_sigma(swept(2), 320, "model", tolerance=2.0).sel(estimator="lr")
    assert (float(wide["window_low"]), float(wide["window_high"])) == (0.001, 1.0)
    narrow = stats.against_sigma(swept(2), 320, "model", tolerance=1e-12).sel(estimator="lr")
    assert float(narrow["window_low"]) == float(narrow["best"]) == float(narrow["window_high"])


def test_more_copies_move_the_window_to_less_bias() -> None:
    """At 10^6 copies noise is worth nothing: the best sigma has a ceiling of 1, and 1.0 (0.6) is far outside."""
    many = stats.against_sigma(swept(3, blocks=60), 1e6, "model").sel(estimator="lr")
    assert float(many["best"]) < 1.0
    assert float(many["excess"].sel(sigma=1.0)) == pytest.approx(0.4, abs=0.1)


def test_an_unknown_total_ends_the_window() -> None:
    methods = {f"lr({s})": Truth(kappa=k) for s, k in ((0.1, 5.0), (0.2, 1e6), (0.3, 5.1))}
    ds = labelled(make_run(np.random.default_rng(4), estimators=methods, noisy_blocks=8))
    found = stats.against_sigma(ds, 1e7).isel(estimator=0)
    assert bool(found["value"].sel(sigma=0.2, part="total").isnull().any())
    for layer in found["layer"].values[found["excess"].sel(sigma=0.2).isnull().values]:
        one = found.sel(layer=layer)
        assert float(one["window_low"]) == float(one["window_high"]) == float(one["best"])


def test_a_refused_layer_has_no_window() -> None:
    methods = {f"lr({s})": Truth(kappa=20.0, refused=("fc",)) for s in (0.1, 0.2)} | {"es(0.1)": Truth()}
    ds = labelled(make_run(np.random.default_rng(4), estimators=methods, noisy_blocks=8))
    found = stats.against_sigma(ds).sel(estimator="lr", layer="fc")
    assert np.isnan(found["best"])
    assert np.isnan(found["window_low"])
    assert (found["verdict"] == "").all()
    assert (found["state"] == "refused").all()


def test_careless_input_gets_one_sentence() -> None:
    ds = swept()
    two = {"lr(0.1)": Truth(), "lr(1)": Truth()}
    alone = labelled(make_run(np.random.default_rng(0), estimators=two))
    for change, words in (
        (lambda: stats.against_sigma(ds.sel(estimator=["lr(0.1)", "es(0.01)"])), "more than one sigma"),
        (lambda: stats.against_sigma(ds.drop_vars("sigma")), "open the run itself again"),
        (lambda: stats.against_sigma(ds, -1), "copies must be a positive number"),
        (lambda: stats.against_sigma(ds, tolerance=0), "tolerance must be a positive number"),
        (lambda: stats.against_sigma(alone), "needs both references"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            change()
        assert "\n" not in str(caught.value)
