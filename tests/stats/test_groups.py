"""Groups of layers: the concatenated vectors of their layers, in every statistic."""

import numpy as np
import pytest

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.stats.brute import slow_alignment
from tests.synthetic import LAYERS, Truth, make_run, make_world

GAINS = {"conv1": 0.5, "conv2": 2.0, "fc": 1.0}
TRUTH = {"lr": Truth(kappa=20.0), "alr": Truth(rho=0.8, kappa=15.0, gain=GAINS, refused=("conv2",))}
OVER = {"features": ["conv*"], "head": "fc", "ends": ["conv1", "fc"]}
MEMBERS = {"features": ["conv1", "conv2"], "head": ["fc"], "ends": ["conv1", "fc"]}


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(2)
    world = make_world(rng, LAYERS, TRUTH, seeds=4, blocks=12, block=8)
    return world, make_run(rng, estimators=TRUTH, seeds=4, blocks=12, block=8, world=world)


def joined(world, label, seed, layers, weights=None):
    """Blocks of several layers side by side; a refused layer is zero."""
    gone = TRUTH[label].refused
    weights = weights or dict.fromkeys(layers, 1.0)
    return np.concatenate(
        [world.blocks[label, seed][k] * weights[k] * (k not in gone) for k in layers], axis=1
    )


def test_cosine_is_that_of_the_concatenated_vectors(run):
    world, ds = run
    found = stats.cosine(ds, over=OVER)
    assert found.dims == ("estimator", "group", "seed", "copies")
    assert found["group"].values.tolist() == list(OVER)
    assert found["layers"].values.tolist() == ["conv1, conv2", "fc", "conv1, fc"]
    assert found["numel"].values.tolist() == [180, 200, 260]
    for label in TRUTH:
        for group, layers in MEMBERS.items():
            g = np.concatenate([world.g[k] for k in layers])
            for seed in range(4):
                blocks = joined(world, label, seed, layers)
                mean = np.cumsum(blocks, axis=0) / np.arange(1, 13)[:, None]
                cosines = mean @ g / np.linalg.norm(g) / np.linalg.norm(mean, axis=1)
                assert np.allclose(found.sel(estimator=label, group=group, seed=seed), cosines)


def test_alignment_is_that_of_the_concatenated_vectors(run):
    world, ds = run
    found = stats.alignment(ds, over=OVER)
    for label in TRUTH:
        for group, layers in MEMBERS.items():
            g = np.concatenate([world.g[k] for k in layers])
            slow = slow_alignment([joined(world, label, s, layers) for s in range(4)], g, 8)
            for name, value in slow.items():
                assert float(found[name].sel(estimator=label, group=group)) == pytest.approx(value)


def test_unit_gain_rescales_layers_within_a_group(run):
    world, ds = run
    found = stats.cosine(ds, over=OVER, scale="unit-gain").isel(copies=-1)
    layers = MEMBERS["ends"]
    along = {k: np.mean([world.blocks["alr", s][k].mean(0) @ world.g[k] for s in range(4)]) for k in layers}
    weights = {k: world.g[k] @ world.g[k] / along[k] for k in layers}
    g = np.concatenate([world.g[k] for k in layers])
    for seed in range(4):
        mean = joined(world, "alr", seed, layers, weights).mean(0)
        expected = mean @ g / np.linalg.norm(g) / np.linalg.norm(mean)
        assert float(found.sel(estimator="alr", group="ends", seed=seed)) == pytest.approx(expected)


LABELLED = ("cosine", "accuracy", "stability", "stability_floor", "alignment", "goodness_of_fit")


@pytest.mark.parametrize("name", LABELLED)
def test_everything_is_the_model_and_one_layer_is_the_layer(run, name):
    _, ds = run
    function = stats.STATISTICS.get(name)
    groups = function(ds, over={"all": "*", "fc": ["fc"]})
    for group, other in (("all", function(ds, over="model")), ("fc", function(ds).sel(layer="fc"))):
        for variable, values in numbers(groups.sel(group=group)).items():
            assert np.allclose(values, numbers(other)[variable], equal_nan=True), variable


def numbers(found):
    """Values of the numeric variables; what is corrected for the number of cells is another number."""
    variables = found.data_vars if hasattr(found, "data_vars") else {"one": found}
    return {k: v.values for k, v in variables.items() if v.dtype.kind in "fib" and k != "p_all"}


def test_bands_and_predictions_have_groups(run):
    _, ds = run
    assert "group" in stats.bands(stats.cosine(ds, over=OVER))["mean"].dims
    assert stats.predict(stats.alignment(ds, over=OVER), [8, 96]).cosine.dims == (
        "estimator",
        "group",
        "copies",
    )


def test_a_group_of_refused_layers_is_refused(run):
    _, ds = run
    found = stats.alignment(ds, over={"gone": "conv2", "some": "conv*"})
    assert found.state.sel(estimator="alr").values.tolist() == ["refused", "resolved"]
    assert np.isnan(found.ceiling.sel(estimator="alr", group="gone"))


def test_tied_layers_go_by_either_name():
    layers = {"encoder = decoder": 40, "head": 20}
    ds = make_run(np.random.default_rng(0), layers=layers, seeds=3, blocks=4)
    found = stats.cosine(ds, over={"tied": "decoder", "rest": ["head"]})
    assert found["layers"].values.tolist() == ["encoder = decoder", "head"]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"features": ["cnov1"]}, "Did you mean 'conv1'"),
        ({}, "names no group"),
        ({"features": []}, "group 'features' must be"),
        ({"features": 3}, "group 'features' must be"),
        ({3: "fc"}, "group 3 must be"),
        ("layers", "unknown over 'layers'"),
        (["conv1"], "unknown over"),
    ],
)
def test_what_is_no_group_gets_one_sentence(run, over, message):
    _, ds = run
    with pytest.raises(UsageError, match=message) as caught:
        stats.cosine(ds, over=over)
    assert "\n" not in str(caught.value)
