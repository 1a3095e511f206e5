"""The alignment law against vectors, closed forms and loops; states; prediction."""

import numpy as np
import pytest
from scipy import stats as sps

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats.alignment_law import STATES
from tests.stats.brute import slow_alignment, slow_jackknife, triple
from tests.synthetic import LAYERS, Truth, make_run, make_world

NAMES = ("ceiling", "half_copies", "price", "gain")
GAINS = {"conv1": 0.1, "conv2": 0.5, "fc": 2.0}
TWO = {"lr": Truth(rho=1.0, kappa=10.0), "alr": Truth(rho=0.8, kappa=15.0, gain=GAINS)}


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(7)
    world = make_world(rng, LAYERS, TWO, seeds=4, blocks=12, block=8)
    return world, make_run(rng, estimators=TWO, seeds=4, blocks=12, block=8, world=world)


@pytest.mark.parametrize("half", [False, True])
def test_values_are_those_of_the_vectors(run, half):
    world, ds = run
    count = 6 if half else 12
    found = stats.alignment(ds, copies=8 * count if half else None)
    whole = stats.alignment(ds, over="model", copies=8 * count)
    for label in TWO:
        drawn = [world.blocks[label, s] for s in range(4)]
        for layer, g in world.g.items():
            slow = slow_alignment([d[layer][:count] for d in drawn], g, 8)
            for name, value in slow.items():
                assert float(found[name].sel(estimator=label, layer=layer)) == pytest.approx(value)
        joined = [np.concatenate(list(d.values()), axis=1)[:count] for d in drawn]
        slow = slow_alignment(joined, np.concatenate(list(world.g.values())), 8)
        for name, value in slow.items():
            assert float(whole[name].sel(estimator=label)) == pytest.approx(value)
    assert found.attrs["copies"] == 8 * count
    assert found.attrs["block"] == 8
    assert (found.fitted_copies == 8 * count).all()


def test_intervals_are_those_of_a_loop(run):
    _, ds = run
    found = stats.alignment(ds)
    assert (found.state == "resolved").all()
    slow = {
        "ceiling": lambda a, x, t, g: a / np.sqrt(g * x),
        "gain": lambda a, x, t, g: a / g,
    }
    for label in TWO:
        for layer in LAYERS:
            cell = found.sel(estimator=label, layer=layer)
            parts = [cell[k].values for k in "AXTG"]
            for name, function in slow.items():
                assert triple(cell, name) == pytest.approx(slow_jackknife(function, *parts))
            _, low, high = slow_jackknife(lambda a, x, t, g: a / np.sqrt(g * t), *parts)
            assert triple(cell, "price")[1:] == pytest.approx((high**-2, low**-2))
            q = sps.t.ppf(0.975, 3)
            for k in triple(cell, "half_copies")[1:]:
                rest = parts[2] - k * parts[1]
                assert abs(rest.mean()) == pytest.approx(q * sps.sem(rest))


def test_blocks_without_noise_give_the_closed_forms():
    """Blocks alternate mu + e, mu - e: X = |mu|^2 - |e|^2/(K-1), T = m |e|^2 K/(K-1), exactly."""
    rng = np.random.default_rng(0)
    world = make_world(rng, {"fc": 16}, {"lr": Truth()}, seeds=3, blocks=4, block=5)
    mu, e = world.mu["lr", "fc"], rng.standard_normal(16) * 0.1
    e -= (e @ mu) / (mu @ mu) * mu
    for drawn in world.blocks.values():
        drawn["fc"] = mu + np.array([1, -1, 1, -1])[:, None] * e
    ds = make_run(rng, layers={"fc": 16}, seeds=3, blocks=4, block=5, world=world)
    found = stats.alignment(ds).isel(estimator=0, layer=0)
    x, t = mu @ mu - e @ e / 3, 5 * (e @ e) * 4 / 3
    assert np.allclose(found.X, x)
    assert np.allclose(found["T"], t)
    assert float(found.half_copies) == pytest.approx(t / x)
    assert float(found.price) == pytest.approx(t / (mu @ mu))
    assert str(found.state.item()) == "resolved"


def test_known_truth_is_found():
    """rho, kappa, gain within 5 jackknife or Fieller half-widths over t_.975.

    S = 12, so five of them is t_11 beyond 5: 4e-4 false alarms per number, fixed seed, one look, 18 numbers.
    Smallest fault seen: about 3 % in the ceiling, 15 % in kappa.
    """
    truth = {"exact": Truth(kappa=300.0), "biased": Truth(rho=0.7, kappa=50.0, gain=0.2)}
    ds = make_run(np.random.default_rng(11), estimators=truth, seeds=12, blocks=20, block=16)
    found = stats.alignment(ds)
    q = sps.t.ppf(0.975, 11)
    for label, t in truth.items():
        for name, value in (("ceiling", t.rho), ("half_copies", t.kappa), ("gain", t.gain)):
            cell = found.sel(estimator=label)
            width = (cell[f"{name}_high"] - cell[f"{name}_low"]) / 2 / q
            assert (abs(cell[name] - value) < 5 * width).all(), (label, name)
            assert (5 * width < 0.5 * value).all(), (label, name)


def test_noisy_reference_gives_the_same_law():
    """Reference g + noise, r = 0.15 of |g|^2: the uncorrected ceiling would be 1/sqrt(1.15) = 0.933.

    Model of 380 parameters, S = 20: the jackknife's standard error of the ceiling is about 0.006, the test
    allows five (t_19: false alarms 8e-5), so it sees 0.03.
    """
    rng = np.random.default_rng(3)
    ds = make_run(rng, kappa=100.0, seeds=20, blocks=20, noisy_blocks=8, reference_noise=0.15)
    found = stats.alignment(ds, over="model", reference="smoothed")
    se = float((found.ceiling_high - found.ceiling_low).item()) / 2 / sps.t.ppf(0.975, 19)
    assert 5 * se < 0.05
    assert abs(float(found.ceiling.item()) - 1.0) < 5 * se
    slow = slow_jackknife(
        lambda a, x, g: a / np.sqrt(g * x), *(found[k].isel(estimator=0).values for k in "AXG")
    )
    assert triple(found.isel(estimator=0), "ceiling") == pytest.approx(slow)
    direct = ds["reference_sqnorm"].sel(reference="smoothed").sum("parameter").mean()
    uncorrected = found.A.mean() / np.sqrt(direct * found.X.mean())
    assert float(uncorrected) < 1.0 - 5 * se


def test_states_and_no_number_where_there_is_only_noise():
    truth = {
        "seen": Truth(rho=0.9, kappa=10.0),
        "half": Truth(rho=0.9, kappa=1200.0),
        "lost": Truth(rho=0.9, kappa=1e7),
    }
    ds = make_run(np.random.default_rng(4), layers={"fc": 200}, estimators=truth, seeds=5, blocks=20, block=8)
    found = stats.alignment(ds).isel(layer=0)
    assert found.state.values.tolist() == ["resolved", "bounded", "unresolved"]
    assert np.isfinite(found.ceiling).values.tolist() == [True, False, False]
    assert np.isfinite(found.half_copies).values.tolist() == [True, True, False]
    assert np.isfinite(found.price).all()
    assert np.isfinite(found.gain).all()
    bounded, lost = found.isel(estimator=1), found.isel(estimator=2)
    q = sps.t.ppf(0.975, 4)
    h, x = bounded.A.values, bounded.X.values
    low = (h.mean() - q * sps.sem(h)) / np.sqrt(bounded.G.values[0] * (x.mean() + q * sps.sem(x)))
    assert float(bounded.ceiling_low) == pytest.approx(low)
    assert float(bounded.ceiling_high) == 1.0
    assert float(bounded.half_copies_low) < float(bounded.half_copies) < float(bounded.half_copies_high)
    assert np.isfinite(bounded.half_copies_high)
    assert 0 < float(lost.half_copies_low) < 1e7 < float(lost.half_copies_high)
    assert -1 <= float(lost.ceiling_low) <= float(lost.ceiling_high) <= 1


def test_bounds_of_an_unresolved_law_that_points_the_right_way():
    """A is resolved, |mu|^2 is not: kappa <= T_up G/A_lo^2, all at t_.975."""
    ds = make_run(np.random.default_rng(1), layers={"fc": 2000}, kappa=3e5, seeds=5, blocks=20, block=40)
    found = stats.alignment(ds).isel(layer=0, estimator=0)
    assert str(found.state.item()) == "unresolved"
    q = sps.t.ppf(0.975, 4)
    a, t = found.A.values, found["T"].values
    above = (t.mean() + q * sps.sem(t)) * found.G.values[0] / max(a.mean() - q * sps.sem(a), 0.0) ** 2
    assert float(found.half_copies_high) == pytest.approx(above)
    assert float(found.half_copies_low) < 3e5 < above


def test_deterministic_estimators_have_no_width():
    bp = Truth(kappa=0.0, stochastic=False)
    truth = {"bp": bp, "fa": Truth(rho=0.3, kappa=0.0, gain=0.5, stochastic=False)}
    expected = {"ceiling": (1.0, 0.3), "half_copies": (0, 0), "price": (0, 0), "gain": (1, 0.5)}
    for seeds, blocks in ((5, 4), (1, 1)):
        ds = make_run(np.random.default_rng(0), estimators=truth, seeds=seeds, blocks=blocks)
        found = stats.alignment(ds)
        assert (found.state == "resolved").all()
        assert found.exact.all()
        for name, values in expected.items():
            for suffix in ("", "_low", "_high"):
                assert np.allclose(found[name + suffix].transpose(..., "estimator"), values, atol=1e-9)
        predicted = stats.predict(found, [1, 1000])
        for name in predicted:
            assert np.allclose(predicted[name].transpose(..., "estimator"), (1.0, 0.3))


def test_a_deterministic_estimator_sees_a_noisy_reference_once():
    truth = {"lr": Truth(), "bp": Truth(kappa=0.0, stochastic=False)}
    ds = make_run(np.random.default_rng(0), estimators=truth, seeds=5, blocks=4, noisy_blocks=4)
    found = stats.alignment(ds, reference="smoothed").sel(estimator="bp")
    assert (found.state == "too few seeds").all()
    assert np.isfinite(found.ceiling).all()
    assert np.isnan(found.ceiling_low).all()


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_numbers_without_intervals(seeds):
    ds = make_run(np.random.default_rng(0), kappa=20.0, seeds=seeds, blocks=10)
    found = stats.alignment(ds)
    assert (found.state == "too few seeds").all()
    for name in NAMES:
        assert np.isfinite(found[name]).all()
        assert np.isnan(found[f"{name}_low"]).all()
        assert np.isnan(found[f"{name}_high"]).all()
    predicted = stats.predict(found, 1e6)
    assert np.allclose(predicted.cosine, found.ceiling, atol=1e-3)
    assert np.isnan(predicted.cosine_low).all()


def test_missing_failed_refused_and_short():
    truth = {
        "lr": Truth(kappa=20.0, failed=(1,)),
        "gone": Truth(missing=(0, 1, 2, 3, 4)),
        "some": Truth(kappa=20.0, refused=("fc",)),
        "short": Truth(kappa=20.0, blocks=6),
        "one": Truth(blocks=1),
        "dead": Truth(gain=0.0, kappa=0.0, stochastic=False),
    }
    ds = make_run(np.random.default_rng(0), estimators=truth, seeds=5, blocks=12)
    found = stats.alignment(ds)
    states = {e: found.state.sel(estimator=e).values.tolist() for e in truth}
    assert states["lr"] == ["resolved"] * 3
    assert states["gone"] == ["missing"] * 3
    assert states["some"] == ["resolved", "resolved", "refused"]
    assert states["one"] == ["too few copies"] * 3
    assert states["dead"] == ["undefined"] * 3
    assert np.isnan(found.X.sel(estimator="lr", seed=1)).all()
    assert set(np.unique(found.state)) <= set(STATES)
    for estimator, layer in (("gone", "fc"), ("some", "fc"), ("one", "fc"), ("dead", "fc")):
        cell = found.sel(estimator=estimator, layer=layer)
        assert all(np.isnan(cell[n + s]) for n in NAMES for s in ("", "_low", "_high"))
    assert found.fitted_copies.sel(layer="fc").values.tolist() == [192, 0, 0, 96, 16, 192]
    alone = stats.alignment(ds.sel(estimator=["short"], copies=slice(None, 96)))
    assert np.allclose(alone.ceiling, found.ceiling.sel(estimator=["short"]))


def test_copies_must_be_a_boundary_and_two_blocks():
    ds = make_run(np.random.default_rng(0), seeds=3, blocks=4, block=16)
    with pytest.raises(UsageError, match="nearest is 32"):
        stats.alignment(ds, copies=35)
    with pytest.raises(UsageError, match="at least two blocks"):
        stats.alignment(ds, copies=16)
    with pytest.raises(UsageError, match="at least two blocks"):
        stats.alignment(ds.isel(copies=[0]))


@pytest.mark.parametrize(
    ("seeds", "blocks", "enough"), [(5, 20, True), (4, 20, False), (5, 19, False), (9, 40, True)]
)
def test_small_runs_say_that_they_have_too_little_to_say(seeds, blocks, enough):
    truth = {
        "lr": Truth(kappa=20.0),
        "one": Truth(kappa=20.0, failed=(0,)),
        "gone": Truth(missing=tuple(range(seeds))),
        "bp": Truth(kappa=0.0, stochastic=False),
    }
    layers = {"fc": 40}
    ds = make_run(np.random.default_rng(0), layers=layers, estimators=truth, seeds=seeds, blocks=blocks)
    found = stats.alignment(ds).isel(layer=0)
    assert found["enough"].values.tolist() == [enough, enough and seeds > 5, False, True]
    assert np.isfinite(found.ceiling_low.sel(estimator="lr"))
    predicted = stats.predict(stats.alignment(ds), [10, 100])
    assert predicted["enough"].dims == ("estimator", "layer")
    alone = stats.alignment(ds.sel(estimator=["lr", "bp", "gone"]))
    assert ("too little to say" in alone.attrs.get("note", "")) != enough
    assert stats.predict(alone, 10).attrs.get("note") == alone.attrs.get("note")
