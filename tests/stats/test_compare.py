"""Paired comparisons against scipy's paired t test on cosines of the vectors, and statsmodels' Holm correction."""

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.multitest import multipletests

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.synthetic import Truth, make_run, make_world

SEEDS, BLOCKS, BLOCK = 6, 12, 8
METHODS = {
    "lr": Truth(1.0, 200.0),
    "alr": Truth(0.8, {"conv1": 30.0, "conv2": 90.0, "fc": 40.0}, 0.01),
    "es": Truth(1.0, 500.0, refused=("fc",)),
    "bp": Truth(kappa=0.0, stochastic=False),
}
LAYERS = {"conv1": 60, "conv2": 120, "fc": 200}


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(3)
    world = make_world(rng, LAYERS, METHODS, SEEDS, BLOCKS, BLOCK)
    return world, make_run(
        rng, layers=LAYERS, estimators=METHODS, seeds=SEEDS, blocks=BLOCKS, block=BLOCK, world=world
    )


def cosines(world, label, layer, copies):
    """One for each seed, from the block vectors themselves; ``layer`` None: of the concatenated vectors."""
    names = list(LAYERS) if layer is None else [layer]
    g = np.concatenate([world.g[n] for n in names])
    found = []
    for seed in range(SEEDS):
        drawn = world.blocks[label, seed if METHODS[label].stochastic else 0]
        served = {n: drawn[n][: copies // BLOCK].mean(0) for n in names}
        for n in METHODS[label].refused:
            served[n] = np.zeros_like(world.g[n])
        v = np.concatenate([served[n] for n in names])
        found.append(v @ g / np.linalg.norm(v) / np.linalg.norm(g))
    return np.array(found)


@pytest.mark.parametrize(
    ("first", "second", "copies"), [("lr", "alr", 96), ("alr", "lr", 40), ("bp", "lr", 96)]
)
def test_against_scipy_on_the_vectors(made, first, second, copies):
    world, ds = made
    found = stats.compare(ds, first, second, amount=copies)
    p = []
    for layer in [*LAYERS, None]:
        one, other = (cosines(world, label, layer, copies) for label in (first, second))
        truth = sps.ttest_rel(one, other)
        low, high = truth.confidence_interval(0.95)
        cell = found.sel(layer=layer) if layer else found
        name = "effect" if layer else "overall"
        got = [float(cell[name + end]) for end in ("", "_low", "_high")]
        assert np.allclose(got, [(one - other).mean(), low, high], rtol=1e-9)
        assert np.isclose(float(cell["p" if layer else "overall_p"]), truth.pvalue, rtol=1e-6)
        p.append(truth.pvalue)
    assert np.allclose(found["p_holm"], multipletests(p[:-1], method="holm")[1])
    winner = np.where(found["effect"] > 0, first, second)
    assert (found["better"].values == np.where(found["p_holm"] < 0.05, winner, "")).all()


def test_equal_cost_gives_each_its_own_copies(made):
    world, ds = made
    dear = ds.copy(deep=True)
    dear["equivalents"].loc[{"estimator": "alr"}] *= 0.5
    found = stats.compare(dear, "lr", "alr", at="equivalents", amount=40).sel(layer="conv1")
    assert (float(found["first_copies"]), float(found["second_copies"])) == (40, 80)
    one, other = cosines(world, "lr", "conv1", 40), cosines(world, "alr", "conv1", 80)
    assert np.isclose(float(found["effect"]), (one - other).mean())
    most = stats.compare(dear, "lr", "alr", at="equivalents").sel(layer="conv1")
    assert (float(most["first_copies"]), float(most["second_copies"])) == (48, 96)


def test_between_stored_points_the_cosine_is_interpolated(made):
    world, ds = made
    found = stats.compare(ds, "lr", "alr", amount=42).sel(layer="fc")
    low, high = (cosines(world, "lr", "fc", n).mean() for n in (40, 48))
    assert np.isclose(float(found["first"]), 0.75 * low + 0.25 * high)
    with pytest.raises(UsageError, match="more than both"):
        stats.compare(ds, "lr", "alr", amount=97)
    with pytest.raises(
        UsageError, match="amount=5 buys less than the first stored 8 copies; ask for at least 8"
    ):
        stats.compare(ds, "lr", "alr", amount=5)


def test_a_refused_layer_has_no_winner_and_counts_as_zero_in_the_model(made):
    world, ds = made
    found = stats.compare(ds, "lr", "es")
    assert np.isnan(found.sel(layer="fc")["effect"])
    assert found.sel(layer="fc")["better"] == ""
    one, other = cosines(world, "lr", None, 96), cosines(world, "es", None, 96)
    assert np.isclose(float(found["overall"]), (one - other).mean())


def test_the_same_estimate_twice_is_a_draw():
    ds = make_run(np.random.default_rng(0), estimators={"lr": Truth(), "hybrid": Truth()}, seeds=4)
    for name in ("dot", "sqnorm", "block_sqnorm"):
        ds[name].loc[{"estimator": "hybrid"}] = ds[name].sel(estimator="lr").values
    found = stats.compare(ds, "lr", "hybrid")
    assert (found["effect"] == 0).all()
    assert (found["effect_high"] == 0).all()
    assert (found["p_holm"] == 1).all()
    assert (found["better"] == "").all()


def test_equal_methods_are_told_apart_as_often_as_stated():
    """400 layers: p < 0.05 in 5 % of them, bounds at 1e-6 a side; sees a false-alarm rate of 11 % for certain."""
    truth = {"a": Truth(0.8, 100.0), "b": Truth(0.8, 100.0)}
    layers = {f"l{i}": 40 for i in range(400)}
    found = stats.compare(
        make_run(np.random.default_rng(1), layers=layers, estimators=truth, blocks=5, block=4), "a", "b"
    )
    hits = int((found["p"] < 0.05).sum())
    assert sps.binom.ppf(1e-6, 400, 0.05) <= hits <= sps.binom.ppf(1 - 1e-6, 400, 0.05)
    assert (found["better"] != "").sum() <= 3


def test_careless_names_and_amounts(made):
    _, ds = made
    for arguments, words in (
        (("lr", "lr"), "both 'lr'"),
        (("lr", "alrr"), "Did you mean 'alr'"),
        (("lr", "alr", "copy"), "Did you mean 'copies'"),
        (("lr", "alr", "copies", -3), "positive number"),
    ):
        with pytest.raises(UsageError, match=words):
            stats.compare(ds, *arguments)
    two = stats.compare(ds.isel(seed=[0, 1], other_seed=[0, 1]), "lr", "alr")
    assert np.isfinite(two["effect"]).all()
    assert np.isnan(two["p"]).all()
    assert (two["better"] == "").all()


def test_groups_and_what_their_copies_cost(made):
    world, ds = made
    found = stats.compare(ds, "lr", "alr", over={"first": "conv*", "all": "*"}, amount=96)
    one, other = (cosines(world, label, None, 96) for label in ("lr", "alr"))
    assert np.isclose(float(found["effect"].sel(group="all")), (one - other).mean())
    assert np.isclose(float(found["overall"]), (one - other).mean())
    # one unit serves all layers of this run, so that a group costs what the model does
    prices = stats.cost(ds, over={"first": "conv*", "all": "*"})["equivalents"].sel(estimator="lr")
    assert (prices == 1).all()
    assert stats.frontier(ds, over={"all": "*"}, costs=[50.0])["cosine"].dims == (
        "estimator",
        "group",
        "cost",
    )


def test_the_scale_is_that_of_groups_and_of_the_whole_and_is_kept(made):
    ds = made[1]
    every, layers = {"all": "*"}, stats.compare(ds, "lr", "alr", scale="unit-gain")
    assert layers.attrs["overall_scale"] == "unit-gain"
    assert stats.compare(ds, "lr", "alr").attrs["overall_scale"] == "raw"
    whole = stats.compare(ds, "lr", "alr", over="model", scale="unit-gain")
    groups = stats.compare(ds, "lr", "alr", over=every, scale="unit-gain")
    raw = stats.compare(ds, "lr", "alr", over=every)
    assert float(groups["effect"].isel(group=0)) == pytest.approx(float(whole["effect"]))
    assert float(layers["overall"]) == pytest.approx(float(whole["effect"]))
    assert float(raw["effect"].isel(group=0)) != pytest.approx(float(whole["effect"]), rel=1e-6)
