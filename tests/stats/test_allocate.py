"""Shares of copies over the samples of a batch: against enumeration, loops, and copies really shared out."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats as sps

import gradprobe as gp
from gradprobe.core.streams import Streams
from gradprobe.estimators.base import make
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_blocks
from gradprobe.layers.find import find_layers
from gradprobe.stats._allocators import bernoulli, gaussian, neyman
from tests.problems_tiny import classifier
from tests.stats.brute import slow_jackknife, triple
from tests.synthetic import make_run

# --- allocators


def test_neyman_is_the_best_of_all_allocations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        v, total = rng.gamma(0.5, size=3), 12
        every = [n for n in itertools.product(range(1, total), repeat=3) if sum(n) == total]
        best = min((v / np.array(n)).sum() for n in every)
        found = neyman(v, total)
        assert found.sum() == total
        assert found.min() >= 1
        assert (v / found).sum() <= best * 1.02  # rounding


def test_neyman_with_many_copies_is_the_closed_form() -> None:
    v = np.random.default_rng(1).gamma(2.0, size=(4, 5, 8))
    share = np.sqrt(v) / np.sqrt(v).sum(-1, keepdims=True)
    assert np.abs(neyman(v, 80_000) - 80_000 * share).max() <= 1


@pytest.mark.parametrize("v", [[0.0, 0.0, 0.0], [-1.0, -2.0, -0.1]])
def test_without_variance_all_get_the_same(v: list[float]) -> None:
    assert list(neyman(np.array(v), 12)) == [4, 4, 4]


def test_what_has_no_variance_keeps_one_copy() -> None:
    assert list(neyman(np.array([0.0, -3.0, 1.0, 1.0]), 20)) == [1, 1, 9, 9]
    assert list(neyman(np.array([1e-9, 1.0, 2.0]), 3)) == [1, 1, 1]


def test_random_allocators_spend_the_budget_and_are_keyed() -> None:
    losses = np.random.default_rng(2).gamma(1.0, size=9)
    for make_counts in (gaussian, lambda *a: bernoulli(*a, 0.3)):
        counts = make_counts(losses, 7, np.random.default_rng(5), 50)
        assert (counts.sum(-1) == 63).all()
        assert counts.min() >= 0
        assert np.array_equal(counts, make_counts(losses, 7, np.random.default_rng(5), 50))


def test_bernoulli_halves_what_is_below_the_mean() -> None:
    losses = np.array([0.1, 0.2, 0.3, 5.0])
    counts = bernoulli(losses, 9, np.random.default_rng(0), 40_000, 0.3)
    low = counts[:, :3]
    halved = (low == 4).mean()  # never by chance: what is not halved keeps 9 and more
    assert abs(halved - 0.3) < 4.9 * np.sqrt(0.21 / 120_000)
    assert (counts[:, 3] >= 9).all()
    all_three = (low == 4).all(-1)
    assert (counts[all_three, 3] == 9 + 15).all()
    one = (low == 4).sum(-1) == 1
    assert set(np.unique(counts[one][:, 3])) == {10, 11, 12} - (
        {12} if counts[one][:, 3].max() < 12 else set()
    )
    assert (bernoulli(np.ones(3), 4, np.random.default_rng(0), 5, 1.0) == 4).all()


def test_gaussian_is_what_the_matrices_say() -> None:
    """Drawn as FLOPS's code does, with a random matrix and a covariance, average shares and zeros are the same.

    Two means of 20,000 draws each; six comparisons at 4.9 standard errors, false alarms below 1e-5.
    """
    losses, copies, draws = np.array([0.2, 1.0, 2.5]), 40, 20_000
    rng = np.random.default_rng(3)
    kernel = np.exp(-((losses[:, None] - losses) ** 2) / 2)
    slow = np.zeros((draws, 3))
    for counts in slow:
        a = np.maximum(rng.multivariate_normal(losses @ rng.standard_normal((3, 3)), kernel), 0)
        counts += np.floor(a / a.sum() * 120) if a.sum() else 0
        np.add.at(counts, rng.integers(0, 3, int(120 - counts.sum())), 1)
    fast = gaussian(losses, copies, np.random.default_rng(4), draws)
    for one, other in ((fast, slow), (fast == 0, slow == 0)):
        se = np.sqrt((one.var(0) + other.var(0)) / draws)
        assert (np.abs(one.mean(0) - other.mean(0)) < 4.9 * se).all()


# --- the statistic


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    return gp.probe(classifier(), ["lr", "es", "bp"], copies=20, block=4, seeds=4, sigma=0.1, per_sample=True)


@pytest.mark.parametrize("over", ["parameter", "layer", "model"])
def test_everything_by_loops(run: xr.Dataset, over: str) -> None:
    found = gp.stats.allocate(run, copies=10, over=over, draws=50)
    parts = {"parameter": [[p] for p in run.parameter.values], "model": [list(run.parameter.values)]}
    parts["layer"] = [["first.weight", "first.bias"], ["last.weight", "last.bias"]]
    for e, (i, part) in itertools.product(("lr(sigma=0.1)", "es(sigma=0.1)"), enumerate(parts[over])):
        cell = found.sel(estimator=e)
        cell = cell if over == "model" else cell.isel({over: i})
        at = run.sel(estimator=e, parameter=part)
        v = np.array(
            [4 / 2 * (at.sample_sqnorm - at.sample_product).sel(seed=s).sum("parameter") for s in range(4)]
        )
        assert np.allclose(cell["tau"], v.mean(0))
        assert np.array_equal(cell["allocated"].sel(allocator="neyman"), neyman(v.mean(0), 80))
        assert (cell["allocated"].sel(allocator="equal") == 10).all()
        equal = np.array([(x / 10).sum() for x in v])
        own = np.array([(v[s] / neyman(np.delete(v, s, 0).mean(0), 80)).sum() for s in range(4)])
        value, low, high = slow_jackknife(lambda a, b: a / b, equal, own)
        assert triple(cell.sel(allocator="neyman"), "gain") == pytest.approx((value, low, high))
        assert float(cell["variance"].sel(allocator="neyman")) == pytest.approx(own.mean())
        assert float(cell["variance"].sel(allocator="equal")) == pytest.approx(equal.mean())
        assert triple(cell.sel(allocator="equal"), "gain") == pytest.approx((1, 1, 1))
        counts = gaussian(run.sample_loss.values, 10, np.random.default_rng([0, 0]), 50)
        slow = [sum(x / n for x, n in zip(v.mean(0), c, strict=True) if n) for c in counts]
        assert float(cell["variance"].sel(allocator="flops-gaussian")) == pytest.approx(np.mean(slow))
        length = at.sample_product.sum("parameter").mean("seed").values
        assert float(cell["missing"].sel(allocator="flops-gaussian")) == pytest.approx(
            np.mean([sum(x for x, n in zip(length, c, strict=True) if not n) for c in counts])
        )
        assert float(found["missed"].sel(allocator="flops-gaussian")) == pytest.approx((counts == 0).mean())
    bp = found.sel(estimator="bp")
    assert (bp["state"] == "missing").all()
    assert bp["gain"].isnull().all()
    assert bp["allocated"].isnull().all()


def test_own_noise_makes_the_direction_as_noisy_as_its_samples_together() -> None:
    """For lr the direction's variance per copy is the sum of v_b: t-tests over 10 seeds, false alarms below 1e-5."""
    ds = gp.probe(classifier(), ["lr"], copies=80, block=4, seeds=10, per_sample=True)
    whole = gp.stats.alignment(ds)["T"].isel(estimator=0).values
    apart = 2 * (ds.sample_sqnorm - ds.sample_product).isel(estimator=0).sum("sample")
    apart = apart.groupby("layer").sum("parameter").transpose("layer", "seed").values
    difference = whole - apart
    t = difference.mean(1) / difference.std(1, ddof=1) * np.sqrt(10)
    assert (np.abs(t) < sps.t.ppf(1 - 1e-6, 9)).all()
    assert (difference.std(1, ddof=1) / np.sqrt(10) < 0.1 * apart.mean(1)).all()
    found = gp.stats.allocate(ds)["common"].isel(estimator=0)
    assert np.allclose(found, whole.mean(1) / apart.mean(1))


def with_samples(
    seeds: int, v: np.ndarray, noise: float, rng: np.random.Generator, runs: int = 1
) -> xr.Dataset:
    """Results whose estimates of v_b are v_b times (1 + noise), in two parameters of each of so many layers."""
    ds = make_run(rng, layers={f"a{i}": 8 for i in range(runs)}, seeds=seeds, blocks=2)
    p, b = ds.sizes["parameter"], v.size
    tau = v * (1 + noise * rng.standard_normal((1, p, seeds, b))) / 2
    ds = ds.assign_coords(sample=np.arange(b))
    dims = ("estimator", "parameter", "seed", "sample")
    ds["sample_product"] = (dims, np.ones(tau.shape))
    ds["sample_sqnorm"] = ds["sample_product"] + 2 / ds.attrs["block"] * xr.DataArray(tau, dims=dims)
    return ds.assign(sample_loss=("sample", rng.gamma(1.0, size=b)))


def test_noise_in_the_variances_is_not_taken_for_gain() -> None:
    """All v_b are equal, so nothing can be gained; estimates of them scatter.

    Chosen and judged by the same estimates, shares seem to gain 1/(1 - cv^2/4), cv^2 = (0.5^2/2)/5 with two
    parameters and five seeds: 0.6 %. Cross-fitted, the mean over 400 runs must not lie above 1 by more than its
    noise (false alarms below 1e-6), nor below it by more than what scatter of the others' shares costs.
    """
    cells = gp.stats.allocate(
        with_samples(5, np.ones(32), 0.5, np.random.default_rng(7), runs=400), copies=1000, draws=1
    ).isel(estimator=0)
    gains, v = cells["gain"].sel(allocator="neyman").values, cells["tau"].values
    naive = 32 * v.sum(-1) / np.sqrt(v).sum(-1) ** 2
    assert naive.mean() - 1 == pytest.approx(0.025 / 4, rel=0.25)
    assert gains.mean() < 1 + 4.9 * gains.std() / np.sqrt(400)
    assert gains.mean() > 1 - 0.02


def test_groups_are_their_layers(run: xr.Dataset) -> None:
    """Two groups in the other order than the layers, and one of all layers, which is the model."""
    layers, swapped = gp.stats.allocate(run), gp.stats.allocate(run, over={"B": "last", "A": "first"})
    for group, layer in (("A", "first"), ("B", "last")):
        for name in ("gain", "tau", "allocated", "common"):
            assert np.array_equal(
                swapped[name].sel(group=group), layers[name].sel(layer=layer), equal_nan=True
            )
    every, model = (
        gp.stats.allocate(run, over={"all": "*"}).isel(group=0),
        gp.stats.allocate(run, over="model"),
    )
    assert np.array_equal(every["gain"], model["gain"], equal_nan=True)


def test_true_gain_is_found_and_covered() -> None:
    """v_b known: equal shares against Neyman's gain B sum v / (sum sqrt v)^2.

    Of 400 intervals of 95 %, at least 86 % hold it: 95 % less 4.9 standard deviations (1.1 %) and 3.6 points for
    what cross-fitting costs and for what a jackknife of five seeds is.
    """
    rng = np.random.default_rng(8)
    v = rng.gamma(0.5, size=16) + 0.01
    true = 16 * v.sum() / np.sqrt(v).sum() ** 2
    cells = gp.stats.allocate(with_samples(5, v, 0.2, rng, runs=400), copies=1000, draws=1)
    cells = cells.isel(estimator=0).sel(allocator="neyman")
    assert np.allclose(cells["gain"], true, rtol=0.3)
    assert ((cells["gain_low"] <= true) & (true <= cells["gain_high"])).mean() >= 0.86


@pytest.mark.parametrize(("seeds", "state"), [(1, "too few seeds"), (2, "ok"), (3, "ok")])
def test_few_seeds(seeds: int, state: str) -> None:
    ds = with_samples(seeds, np.arange(1.0, 9.0), 0.1, np.random.default_rng(0))
    cell = gp.stats.allocate(ds).isel(estimator=0, layer=0)
    assert cell["state"] == state
    assert cell["allocated"].notnull().all()
    assert bool(cell["gain"].sel(allocator="neyman").isnull()) == (seeds == 1)
    assert bool(cell["gain_low"].sel(allocator="neyman").isnull()) == (seeds < 3)


def test_awkward_runs() -> None:
    rng = np.random.default_rng(0)
    ds = with_samples(5, np.ones(8), 0.1, rng)
    zero = ds.copy()
    zero["sample_sqnorm"] = zero["sample_product"]
    cell = gp.stats.allocate(zero).isel(estimator=0, layer=0)
    assert cell["state"] == "no variance"
    assert cell["gain"].isnull().all()
    gone = ds.copy(deep=True)
    for name in ("sample_sqnorm", "sample_product"):
        gone[name][dict(seed=2)] = np.nan
    assert gp.stats.allocate(gone)["gain"].notnull().all()
    refused = ds.copy(deep=True)
    refused["status"][:] = "refused"
    assert (gp.stats.allocate(refused)["state"] == "refused").all()
    with pytest.raises(gp.UsageError, match="per_sample=True"):
        gp.stats.allocate(make_run(rng))
    with pytest.raises(gp.UsageError, match="copies must be"):
        gp.stats.allocate(ds, copies=0)


def test_copies_that_are_really_shared_out_give_the_predicted_variance() -> None:
    """Each sample gets its own number of copies: measured variance of the direction against sum v_b/n_b.

    400 directions for each allocation; the statistic is the mean squared distance from their mean, its standard
    error from the same 400, and v_b comes from other seeds, with a standard error over these. Both errors enter;
    false alarms below 1e-6.
    """
    problem = classifier()
    layer = find_layers(problem).layers[1]
    ds = gp.probe(problem, ["lr"], layers="last", copies=400, block=10, seeds=10, sigma=0.1, per_sample=True)
    found = gp.stats.allocate(ds, copies=5).isel(estimator=0, layer=0)
    lr = make("lr(sigma=0.1)").estimator
    for allocator in ("equal", "neyman"):
        counts = found["allocated"].sel(allocator=allocator).values.astype(int)
        total = 0.0
        for b, n in enumerate(counts):
            own = copy.copy(problem)
            own.weights = problem.weights * (torch.arange(problem.batch_size) == b)
            own._cache, own._structure = None, {}
            reading = Reading(own, lr.draw, [layer], [lr.readout], Streams(0, 1000 + b))
            reads = read_blocks(reading, range(400), int(n), "tile x40")
            total = total + torch.stack(
                [torch.cat([d.flatten() for d in r.directions[0].values()]).double() for r in reads]
            )
        distance = ((total - total.mean(0)) ** 2).sum(1) * 400 / 399
        v = 5 * (ds.sample_sqnorm - ds.sample_product).sum("parameter").isel(estimator=0).values / counts
        predicted = v.sum(-1)
        se = np.hypot(float(distance.std()) / np.sqrt(400), predicted.std(ddof=1) / np.sqrt(10))
        assert abs(float(distance.mean()) - predicted.mean()) < 4.9 * se
        assert se < 0.1 * predicted.mean()
