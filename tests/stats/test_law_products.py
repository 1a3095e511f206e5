"""|mu|^2 from the products of different seeds: against vectors and loops, and where it must not be used."""

import numpy as np
import pytest

from gradprobe import stats
from tests.stats.brute import slow_jackknife, triple
from tests.synthetic import LAYERS, Truth, make_run, make_world

TWO = {"lr": Truth(kappa=40.0), "alr": Truth(rho=0.8, kappa=30.0, refused=("fc",))}
SIZE = {"seeds": 5, "blocks": 10, "block": 8}


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(5)
    world = make_world(rng, LAYERS, TWO, **SIZE)
    return world, make_run(rng, estimators=TWO, world=world, products=True, **SIZE)


def pair_mean(means):
    """Mean of <g_s, g_t> over pairs of different seeds, one by one."""
    return np.mean([a @ b for i, a in enumerate(means) for j, b in enumerate(means) if i != j])


def slow_cross(blocks, g, block):
    """Ceiling with its delete-one-seed interval and kappa, from block vectors ``[K, D]`` of each seed."""
    means = [b.mean(0) for b in blocks]
    tau = np.mean([block * b.var(axis=0, ddof=1).sum() for b in blocks])
    rest = [means[:s] + means[s + 1 :] for s in range(len(means))]

    def ceiling(some):
        return np.mean([m @ g for m in some]) / np.sqrt(g @ g * pair_mean(some))

    left_out = np.array([ceiling(some) for some in rest])
    s = len(means)
    se = np.sqrt((s - 1) / s * ((left_out - left_out.mean()) ** 2).sum())
    return ceiling(means), se, tau / pair_mean(means)


@pytest.mark.parametrize("over", ["layer", "model", "group"])
def test_values_and_intervals_are_those_of_the_vectors(run, over):
    world, ds = run
    members = {"layer": [[k] for k in LAYERS], "model": [list(LAYERS)], "group": [["conv1", "fc"]]}[over]
    found = stats.alignment(ds, over={"pair": ["conv1", "fc"]} if over == "group" else over)
    assert found["products"].sel(estimator="lr").all()
    for layers in members:
        g = np.concatenate([world.g[k] for k in layers])
        blocks = [np.concatenate([world.blocks["lr", s][k] for k in layers], axis=1) for s in range(5)]
        value, se, kappa = slow_cross(blocks, g, 8)
        cell = found.sel(estimator="lr")
        cell = cell.sel(layer=layers[0]) if over == "layer" else cell.squeeze()
        assert float(cell.X.mean()) == pytest.approx(pair_mean([b.mean(0) for b in blocks]))
        assert str(cell.state.values) == "resolved"
        assert float(cell.ceiling) == pytest.approx(value)
        assert float(cell.ceiling_high - cell.ceiling_low) == pytest.approx(2 * 2.7764451052 * se)
        assert float(cell.half_copies) == pytest.approx(kappa)


def test_pseudo_values_leave_out_one_seed_exactly(run):
    world, ds = run
    x = stats.alignment(ds).sel(estimator="lr", layer="fc").X.values
    means = [world.blocks["lr", s]["fc"].mean(0) for s in range(5)]
    for s in range(5):
        assert np.delete(x, s).mean() == pytest.approx(pair_mean(means[:s] + means[s + 1 :]))


def test_a_refused_layer_is_a_direction_of_zero_in_the_model(run):
    world, ds = run
    cell = stats.alignment(ds, over="model").sel(estimator="alr")
    served = [k for k in LAYERS if k != "fc"]
    means = [np.concatenate([world.blocks["alr", s][k].mean(0) for k in served]) for s in range(5)]
    assert bool(cell["products"])
    assert float(cell.X.mean()) == pytest.approx(pair_mean(means))
    assert float(cell.G.mean()) == pytest.approx(sum(g @ g for g in world.g.values()))


def test_unit_gain_rescales_products_too(run):
    world, ds = run
    cell = stats.alignment(ds, over="model", scale="unit-gain").sel(estimator="lr")
    means = []
    along = {k: [world.blocks["lr", s][k].mean(0) @ g for s in range(5)] for k, g in world.g.items()}
    gains = {k: np.mean(along[k]) / (g @ g) for k, g in world.g.items()}
    for s in range(5):
        means.append(np.concatenate([world.blocks["lr", s][k].mean(0) / gains[k] for k in LAYERS]))
    assert bool(cell["products"])
    assert float(cell.X.mean()) == pytest.approx(pair_mean(means))


def test_price_gain_and_scatter_do_not_depend_on_products(run):
    _, ds = run
    with_, without = stats.alignment(ds), stats.alignment(ds, products=False)
    assert not without["products"].any()
    for name in ("price", "gain", "T", "A", "price_low", "gain_high"):
        assert np.array_equal(with_[name], without[name], equal_nan=True)
    x = without.sel(estimator="lr", layer="fc").X.values
    parts = [without.sel(estimator="lr", layer="fc")[k].values for k in "AXTG"]
    slow = slow_jackknife(lambda a, x, t, g: a / np.sqrt(g * x), *parts)
    assert triple(without.sel(estimator="lr", layer="fc"), "ceiling") == pytest.approx(slow)
    assert not np.allclose(x, with_.sel(estimator="lr", layer="fc").X)


def test_products_of_other_copies_are_not_used(run):
    _, ds = run
    plain = ds.drop_vars("seed_product")
    for chosen in (ds.sel(copies=slice(None, 48)), ds):
        copies = 48 if chosen is ds else None
        found = stats.alignment(chosen, copies=copies)
        assert not found["products"].any()
        assert found.equals(stats.alignment(plain, copies=48))


def test_fewer_seeds_use_what_is_stored_for_them(run):
    world, ds = run
    three = stats.alignment(ds.isel(seed=[0, 2, 3])).sel(estimator="lr", layer="fc")
    assert bool(three["products"])
    assert float(three.X.mean()) == pytest.approx(
        pair_mean([world.blocks["lr", s]["fc"].mean(0) for s in (0, 2, 3)])
    )
    both = stats.alignment(ds.isel(seed=[0, 2, 3], other_seed=[0, 2, 3])).sel(estimator="lr", layer="fc")
    assert float(both.ceiling_low) == float(three.ceiling_low)
    assert not stats.alignment(ds.isel(seed=[0, 1]))["products"].any()
    assert not stats.alignment(ds.isel(other_seed=[0, 1]))["products"].any()
    assert not stats.alignment(ds.isel(other_seed=0))["products"].any()


def test_one_missing_product_falls_back_in_that_cell_only(run):
    _, ds = run
    ds = ds.copy(deep=True)
    ds["seed_product"].loc[{"parameter": "fc.bias", "estimator": "lr", "seed": 1, "other_seed": 3}] = np.nan
    found, plain = stats.alignment(ds), stats.alignment(ds, products=False)
    assert found["products"].sel(estimator="lr").values.tolist() == [True, True, False]
    assert found["ceiling"].sel(layer="fc").equals(plain["ceiling"].sel(layer="fc"))
    assert not stats.alignment(ds, over="model")["products"].sel(estimator="lr")


def test_failed_seeds_and_methods_without_noise():
    truth = {
        "lr": Truth(kappa=20.0, failed=(1,), missing=(4,)),
        "bp": Truth(kappa=0.0, stochastic=False),
        "short": Truth(kappa=20.0, blocks=6),
    }
    rng = np.random.default_rng(0)
    world = make_world(rng, LAYERS, truth, seeds=6, blocks=12, block=16)
    ds = make_run(rng, estimators=truth, seeds=6, blocks=12, world=world, products=True)
    found = stats.alignment(ds).sel(layer="conv1")
    assert found["products"].values.tolist() == [True, False, True]
    means = [world.blocks["lr", s]["conv1"].mean(0) for s in (0, 2, 3, 5)]
    assert float(found.X.sel(estimator="lr").mean()) == pytest.approx(pair_mean(means))
    means = [world.blocks["short", s]["conv1"].mean(0) for s in range(6)]
    assert float(found.X.sel(estimator="short").mean()) == pytest.approx(pair_mean(means))
    assert float(found.ceiling.sel(estimator="bp")) == pytest.approx(1.0)


def test_noise_common_to_the_blocks_of_a_seed_is_not_taken_for_bias():
    """A tenth of the noise is common to the blocks of a seed: by the moments the ceiling falls, with products not.

    S = 12, D = 3,000: both intervals are t with 11 degrees of freedom. The truth 1 must lie within five times
    the standard error with products (4e-4 false alarms) and beyond five times without.
    """
    rng = np.random.default_rng(1)
    truth = {"lr": Truth(kappa=320.0)}
    world = make_world(rng, {"fc": 3000}, truth, seeds=12, blocks=20, block=16)
    mu = world.mu["lr", "fc"]
    for drawn in world.blocks.values():
        noise = drawn["fc"] - mu
        common = rng.standard_normal(mu.size) * noise.std()
        drawn["fc"] = mu + np.sqrt(0.9) * noise + np.sqrt(0.1) * common
    ds = make_run(
        rng, layers={"fc": 3000}, estimators=truth, seeds=12, blocks=20, block=16, world=world, products=True
    )
    for products in (True, False):
        cell = stats.alignment(ds, products=products).squeeze()
        se = float(cell.ceiling_high - cell.ceiling_low) / 2 / 2.2009851601
        assert (abs(float(cell.ceiling) - 1) < 5 * se) == products
