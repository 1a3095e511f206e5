"""Cosine: against the vectors themselves, and what is missing, refused, noisy or zero."""

import numpy as np
import pytest

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.synthetic import LAYERS, Truth, make_run, make_world

TWO = {"lr": Truth(rho=1.0, kappa=40.0), "alr": Truth(rho=0.8, kappa=60.0, gain=0.1)}


def _angle(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_cosine_is_that_of_the_vectors():
    rng = np.random.default_rng(1)
    world = make_world(rng, LAYERS, TWO, seeds=3, blocks=4, block=5)
    ds = make_run(rng, estimators=TWO, seeds=3, blocks=4, block=5, world=world)
    layer, model, parameter = (stats.cosine(ds, over=o) for o in ("layer", "model", "parameter"))
    assert layer.dims == ("estimator", "layer", "seed", "copies")
    assert model.dims == ("estimator", "seed", "copies")
    assert parameter.dims == ("estimator", "parameter", "seed", "copies")
    everything = np.concatenate(list(world.g.values()))
    for (label, seed), drawn in world.blocks.items():
        for k in range(4):
            at = {"estimator": label, "seed": seed, "copies": 5 * (k + 1)}
            mean = {name: b[: k + 1].mean(0) for name, b in drawn.items()}
            for name, g in world.g.items():
                assert float(layer.sel(at | {"layer": name})) == pytest.approx(_angle(mean[name], g))
                split = g.size - g.size // 8
                bias = float(parameter.sel(at | {"parameter": f"{name}.bias"}))
                assert bias == pytest.approx(_angle(mean[name][split:], g[split:]))
            whole = np.concatenate(list(mean.values()))
            assert float(model.sel(at)) == pytest.approx(_angle(whole, everything))


def test_labels_travel_and_layers_keep_their_order():
    layers = {"z": 16, "a": 16, "m": 16}
    ds = make_run(np.random.default_rng(0), layers=layers, estimators=TWO, seeds=2, blocks=2)
    found = stats.cosine(ds)
    assert list(found.layer.values) == ["z", "a", "m"]
    for name in ("color", "target", "stochastic"):
        assert found[name].dims == ("estimator",)
    assert found.attrs["reference"] == "bp"
    assert found.attrs["over"] == "layer"
    shuffled = ds.isel(parameter=[5, 2, 0, 3, 1, 4])
    assert np.allclose(stats.cosine(shuffled).values, found.values)


def test_zero_norms_are_undefined_not_zero():
    ds = make_run(np.random.default_rng(0), seeds=2, blocks=3)
    ds["sqnorm"].loc[{"parameter": ["fc.weight", "fc.bias"]}] = 0.0
    ds["reference_sqnorm"].loc[{"parameter": ["conv1.weight", "conv1.bias"]}] = 0.0
    found = stats.cosine(ds)
    assert np.isnan(found.sel(layer="fc")).all()
    assert np.isnan(found.sel(layer="conv1")).all()
    assert np.isfinite(found.sel(layer="conv2")).all()


def test_a_seed_that_failed_or_is_not_there_is_missing_in_every_sum():
    truth = {"lr": Truth(missing=(1,), failed=(2,))}
    ds = make_run(np.random.default_rng(0), estimators=truth, seeds=4, blocks=3)
    for over in ("parameter", "layer", "model"):
        gone = np.isnan(stats.cosine(ds, over=over).transpose("seed", ...).values.reshape(4, -1))
        assert gone.all(1).tolist() == [False, True, True, False]
        assert not gone[[0, 3]].any()


def test_a_refused_layer_is_a_direction_of_zero_for_the_model():
    rng = np.random.default_rng(0)
    truth = {"lr": Truth(), "some": Truth(refused=("fc",), rho=1.0, kappa=0.0)}
    world = make_world(rng, LAYERS, truth, seeds=2, blocks=3, block=4)
    ds = make_run(rng, estimators=truth, seeds=2, blocks=3, block=4, world=world)
    assert np.isnan(stats.cosine(ds).sel(estimator="some", layer="fc")).all()
    norms = {k: g @ g for k, g in world.g.items()}
    expected = np.sqrt((norms["conv1"] + norms["conv2"]) / sum(norms.values()))
    assert np.allclose(stats.cosine(ds, over="model").sel(estimator="some"), expected)
    alone = stats.cosine(ds.sel(estimator=["some"]), over="model")  # fc is then not probed at all
    assert np.allclose(alone, 1.0)
    share = stats.coverage(ds)
    assert np.allclose(share, [1.0, expected**2])


def test_unit_gain_of_two_perfect_layers():
    """Gains (1, 0.5) with equal norms: 1.5/sqrt(1.25 * 2) = 0.949 raw, 1 with unit gains (law, 5a)."""
    layers = {"a": 32, "b": 32}
    truth = {"lr": Truth(gain={"a": 1.0, "b": 0.5}, kappa=0.0)}
    rng = np.random.default_rng(0)
    world = make_world(rng, layers, truth, seeds=3, blocks=3, block=2)
    for name in layers:
        scale = np.linalg.norm(world.g[name])
        world.g[name] /= scale
        for drawn in world.blocks.values():
            drawn[name] /= scale
    ds = make_run(rng, layers=layers, estimators=truth, seeds=3, blocks=3, block=2, world=world)
    raw = stats.alignment(ds, over="model").ceiling
    unit = stats.alignment(ds, over="model", scale="unit-gain").ceiling
    assert np.allclose(raw, 1.5 / np.sqrt(2.5))
    assert np.allclose(raw, 0.949, atol=5e-4)
    assert np.allclose(unit, 1.0)
    assert np.allclose(stats.cosine(ds, over="model", scale="unit-gain"), 1.0)


def test_unit_gain_needs_positive_gains_and_skips_dead_layers():
    noise = Truth(rho={"a": 1.0, "b": 1.0}, kappa={"a": 10.0, "b": 1e9})
    truth = {
        "noise": noise,
        "against": Truth(gain={"a": 1.0, "b": -1.0}, kappa=0.0),
        "bp": Truth(kappa=0.0, gain={"a": 3.0, "b": 0.2}, stochastic=False),
    }
    layers = {"a": 64, "b": 64}
    ds = make_run(np.random.default_rng(3), layers=layers, estimators=truth, seeds=5, blocks=5)
    found = stats.cosine(ds, over="model", scale="unit-gain")
    assert np.isnan(found.sel(estimator=["noise", "against"])).all()
    assert np.allclose(found.sel(estimator="bp"), 1.0)
    state = stats.alignment(ds, over="model", scale="unit-gain").state
    assert state.values.tolist() == ["gain unresolved", "gain unresolved", "resolved"]
    one = make_run(np.random.default_rng(3), layers=layers, estimators=truth, seeds=1, blocks=5)
    assert np.isnan(stats.cosine(one, over="model", scale="unit-gain").sel(estimator="against")).all()
    dead = {"parameter": ["b.weight", "b.bias"]}
    for name in ("reference_sqnorm", "dot"):
        ds[name].loc[dead] = 0.0
    left = stats.cosine(ds, over="model", scale="unit-gain").sel(estimator="against")
    assert np.allclose(left, 1.0)


def test_length_of_a_noisy_reference_is_corrected():
    """An exact estimator with little noise against g + noise of squared length 0.3 |g|^2.

    Without the correction the mean cosine would be 1/sqrt(1.3) = 0.877. With it the error is that of the
    mean of G over 20 seeds, sd sqrt((4 r + 2 r^2 8/7)/(380 * 20)) = 0.014 of |g|^2, so 0.007 of the cosine;
    five of them: false alarms below 1e-6, smallest fault 0.05 in |g|^2.
    """
    ds = make_run(
        np.random.default_rng(5), kappa=0.01, seeds=20, blocks=2, noisy_blocks=8, reference_noise=0.3
    )
    found = stats.cosine(ds, over="model", reference="smoothed").isel(copies=-1).mean("seed")
    assert abs(float(found.item()) - 1.0) < 0.035
    assert np.allclose(stats.cosine(ds, over="model").isel(copies=-1), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"over": "layr"}, "Did you mean 'layer'"),
        ({"reference": "smoothed"}, "unknown reference 'smoothed'"),
        ({"scale": "unit"}, "Did you mean 'unit-gain'"),
        ({"scale": "unit-gain"}, "over='model'"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(options, words):
    ds = make_run(np.random.default_rng(0), seeds=1, blocks=2)
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        stats.cosine(ds, **options)


def test_lost_dimensions_and_attributes_are_named():
    ds = make_run(np.random.default_rng(0), seeds=1, blocks=2)
    with pytest.raises(UsageError, match="'estimator'"):
        stats.cosine(ds.isel(estimator=0))
    ds.attrs.clear()
    with pytest.raises(UsageError, match="block"):
        stats.cosine(ds)
    with pytest.raises(UsageError, match="total_reference_sqnorm"):
        stats.coverage(ds)
