"""Data or copies: against loops over vectors, enumeration of all batches, and simulated truth."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy import stats as sps

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._batches import Gradients, data_noise, jackknifed, kept, mean_of
from gradprobe.stats.batch_noise import _Sides
from gradprobe.store.batches import join_batches
from tests.stats.batched import BATCH_SIZE, Batched, make_batches
from tests.stats.brute import triple
from tests.synthetic import LAYERS, Truth, make_run

TWO = {
    "lr": Truth(kappa=40.0),
    "alr": Truth(rho=0.8, kappa=60.0, gain={"conv1": 0.1, "conv2": 0.5, "fc": 2.0}),
}
SEEDS, BLOCK, N = 3, 8, 40
NAMES = ("crossover", "copies_variance", "data_share", "data_variance", "cosine")


def slow(
    made: Batched, label: str, layer: str, chosen: list[int], copies: float, dataset: bool
) -> dict[str, float]:
    """Everything from the vectors of some of the batches; no formula is shared with the package."""
    g = made.g(layer)[chosen]
    a, x, t = [], [], []
    for seed in range(SEEDS):
        for b, own in zip(made.blocks(label, seed, layer)[chosen], g, strict=True):
            a.append((b @ own).mean())
            x.append((b @ b.T)[~np.eye(len(b), dtype=bool)].mean())
            t.append(BLOCK * b.var(axis=0, ddof=1).sum())
    if dataset:
        whole = np.concatenate(list(made.whole.values())) if layer == "model" else made.whole[layer]
        noise = ((g - whole) ** 2).sum(1).mean() / (1 - BATCH_SIZE / N)
        signal = whole @ whole - noise * BATCH_SIZE / N
    else:
        noise = g.var(axis=0, ddof=1).sum()
        signal = np.mean([g[i] @ g[j] for i, j in itertools.permutations(range(len(g)), 2)])
    square = (g**2).sum(1).mean()
    gain = np.mean(a) / square
    ratio = 1.0
    if dataset:
        share = BATCH_SIZE / N
        along = np.mean([(made.blocks(label, s, layer)[chosen].mean(1) @ whole).mean() for s in range(SEEDS)])
        ratio = (along - share * np.mean(a)) / ((g @ whole).mean() - share * square) / gain
    spread = np.mean(x) + np.mean(t) / copies
    cosine = np.mean(a) / np.sqrt(square * spread) * np.sqrt(1 - noise / square)
    if dataset:
        cosine = (along - share * np.mean(a)) / (1 - share) / np.sqrt(signal * spread)
    return {
        "gain_ratio": ratio,
        "crossover": np.mean(t) / gain**2 / noise,
        "copies_variance": np.mean(t) / gain**2 / square,
        "data_share": noise / square,
        "data_variance": noise / (square - noise),
        "cosine": cosine,
    }


def jackknife(values: list[float]) -> tuple[float, float]:
    """Mean-free spread of leave-one-out values, as half a 95 % interval, and its quantile."""
    count = len(values)
    half = sps.t.ppf(0.975, count - 1) * np.sqrt(
        (count - 1) / count * ((values - np.mean(values)) ** 2).sum()
    )
    return float(half), float(sps.t.ppf(0.975, count - 1))


@pytest.mark.parametrize("dataset", [False, True])
def test_values_and_intervals_are_those_of_loops(dataset: bool) -> None:
    made = make_batches(
        np.random.default_rng(1), TWO, batches=5, noise=0.5, blocks=12, dataset=N if dataset else 0
    )
    layer_wise, whole = stats.data_or_copies(made.ds), stats.data_or_copies(made.ds, "model")
    assert layer_wise.attrs["data"] == ("dataset" if dataset else "batches")
    last, every = BLOCK * 12, list(range(5))
    for label, layer in itertools.product(TWO, [*LAYERS, "model"]):
        found = (whole if layer == "model" else layer_wise.sel(layer=layer)).sel(estimator=label)
        full = slow(made, label, layer, every, last, dataset)
        rest = [slow(made, label, layer, [c for c in every if c != b], last, dataset) for b in every]
        assert str(found["state"].values) == "resolved"
        for name in NAMES:
            assert float(found[name]) == pytest.approx(full[name], rel=1e-9)
        for name in ("crossover", "copies_variance"):
            half, _ = jackknife([r[name] ** -0.5 for r in rest])
            low, high = (full[name] ** -0.5 + sign * half for sign in (-1, 1))
            assert triple(found, name)[1:] == pytest.approx((high**-2, low**-2))
        half, _ = jackknife([r["data_share"] for r in rest])
        share = [full["data_share"] + sign * half for sign in (-1, 1)]
        assert triple(found, "data_share")[1:] == pytest.approx(share)
        assert triple(found, "data_variance")[1:] == pytest.approx(
            [max(s, 0) / (1 - s) for s in np.clip(share, 0, 1)]
        )
        for name in ("cosine", "gain_ratio") if dataset else ("cosine",):
            half, _ = jackknife([r[name] for r in rest])
            assert triple(found, name) == pytest.approx([full[name], full[name] - half, full[name] + half])
        assert np.isfinite(found["gain_ratio"]) == dataset


def test_both_ways_are_without_bias_in_a_finite_population() -> None:
    """All batches of 2 (and all pairs of disjoint ones) of 7 samples: the mean is the truth exactly."""
    samples = np.random.default_rng(0).standard_normal((7, 4)) + 0.5
    whole = samples.mean(0)
    variance = samples.var(axis=0, ddof=1).sum() / 2  # of a batch of two from what the samples are drawn from
    length = whole @ whole - samples.var(axis=0, ddof=1).sum() / 7
    one, two = [], []
    for first in itertools.combinations(range(7), 2):
        g = samples[list(first)].mean(0)
        single = Gradients(
            np.array([[g @ g]]), None, np.array([[g @ whole]]), np.array([whole @ whole]), 2 / 7
        )
        one.append([v[0, 0] for v in data_noise(single, kept(np.ones((1, 1), bool)))])
        for second in itertools.combinations(sorted(set(range(7)) - set(first)), 2):
            pair = np.stack([g, samples[list(second)].mean(0)])
            product = (pair @ pair.T)[None]
            both = Gradients(np.einsum("pbb->pb", product), product)
            two.append([v[0, 0] for v in data_noise(both, kept(np.ones((1, 2), bool)))])
    assert np.mean(one, axis=0) == pytest.approx([variance, length])
    # the products of one batch with another are not clipped at 0, their difference from the square is
    assert np.mean(two, axis=0) == pytest.approx([variance, length])


def test_known_truth_is_found_and_the_cosine_is_that_of_the_vectors() -> None:
    """60 batches: V = 0.8 |G|^2, tau = kappa |mu|^2, so n* = kappa (1 + 0.8)/(0.8 rho^2); five standard errors.

    The cosine with G is compared with the pooled one of the very vectors, which holds no assumption about bias.
    """
    made = make_batches(np.random.default_rng(2), TWO, batches=60, noise=0.8, blocks=12, layers={"fc": 300})
    found = stats.data_or_copies(made.ds, copies=[BLOCK * 4, BLOCK * 12]).sel(layer="fc")
    q = sps.t.ppf(0.975, 59)
    for label, truth in TWO.items():
        one = found.sel(estimator=label)
        star = truth.of("kappa", "fc") * 1.8 / 0.8 / truth.of("rho", "fc") ** 2
        low, high = (float(one[f"crossover_{end}"]) ** -0.5 for end in ("high", "low"))
        assert abs(star**-0.5 - (low + high) / 2) < 5 * (high - low) / 2 / q
        share = triple(one, "data_share")
        assert abs(share[0] - 0.8 / 1.8) < 5 * (share[2] - share[1]) / 2 / q
        whole = made.whole["fc"]
        for blocks in (4, 12):
            at = one.sel(copies=BLOCK * blocks)
            means = np.stack([made.blocks(label, s, "fc")[:, :blocks].mean(1) for s in range(SEEDS)])
            pooled = (means @ whole).mean() / np.sqrt((whole @ whole) * (means**2).sum(-1).mean())
            error = float(at["cosine_high"] - at["cosine_low"]) / 2 / q
            assert error < 0.03
            assert abs(float(at["cosine"]) - pooled) < 5 * error


def test_a_method_that_follows_the_noise_of_the_data_is_found_out() -> None:
    """Gains 0.2 along G and 1 along the noise, V = |G|^2: the gain along g_b is 0.6, their ratio 1/3.

    n* is tau/V for the method's own scatter, 0.36 of what its gain along g_b says: the docstring's bound.
    """
    rng, passes = np.random.default_rng(12), {"odd": (0.2, 1.0), "lr": (1.0, 1.0)}
    truth = {"odd": Truth(kappa=40.0), "lr": Truth(kappa=40.0)}
    made = make_batches(
        rng, truth, batches=60, noise=1.0, layers={"fc": 300}, dataset=100_000, passes=passes, blocks=12
    )
    found = stats.data_or_copies(made.ds).isel(layer=0)
    whole, q = made.whole["fc"], sps.t.ppf(0.975, 59)
    for label, ratio in (("odd", 1 / 3), ("lr", 1.0)):
        one = found.sel(estimator=label)
        value, low, high = triple(one, "gain_ratio")
        assert abs(value - ratio) < 5 * (high - low) / 2 / q
        assert high - low < 0.2
        means = np.stack([made.blocks(label, s, "fc").mean(1) for s in range(SEEDS)])
        pooled = (means @ whole).mean() / np.sqrt((whole @ whole) * (means**2).sum(-1).mean())
        assert abs(float(one["cosine"]) - pooled) < 5 * float(one["cosine_high"] - one["cosine_low"]) / 2 / q
    odd = found.sel(estimator="odd")
    share, r = float(odd["data_share"]), float(odd["gain_ratio"])
    scatter = (
        np.stack([made.blocks("odd", s, "fc").mean(1) for s in range(SEEDS)])
        .mean(0)
        .var(axis=0, ddof=1)
        .sum()
    )
    tau = np.mean([BLOCK * made.blocks("odd", s, "fc").var(axis=1, ddof=1).sum() / 60 for s in range(SEEDS)])
    own = tau / (scatter - tau / (12 * BLOCK * SEEDS))
    assert float(odd["crossover"]) * (share / (1 - r * (1 - share))) ** 2 == pytest.approx(own, rel=0.1)


def test_intervals_cover() -> None:
    """1,000 runs of five batches, isotropic noise of the data in 100 dimensions as strong as the signal.

    A procedure that covers 94.5 to 97 % leaves [92, 99] with probability below 1e-3.
    """
    rng, runs, batches, d = np.random.default_rng(3), 1000, 5, 100
    g = np.eye(d)[0] + rng.standard_normal((runs, batches, d)) / np.sqrt(d)
    product = np.einsum("rbd,rcd->rbc", g, g)
    gradients = Gradients(np.einsum("rbb->rb", product), product)
    valid = np.ones((runs, batches), dtype=bool)
    weights = kept(valid)
    noise, signal = data_noise(gradients, weights)
    # gains and variances of one copy as a few seeds measure them
    a = 0.3 * gradients.sqnorm * (1 + 0.05 * rng.standard_normal((runs, batches)))
    t = 9.0 * gradients.sqnorm * (1 + 0.02 * rng.standard_normal((runs, batches)))
    a, t, own = (mean_of(v, weights) for v in (a, t, gradients.sqnorm))
    theta = a * np.sqrt(noise) / (own * np.sqrt(t))
    truths = {"crossover": (theta, (100.0 * 2 / 1) ** -0.5), "share": (noise / (noise + signal), 0.5)}
    for values, truth in truths.values():
        _, low, high = jackknifed(values, valid, 0.975)
        assert 0.92 < np.mean((low <= truth) & (truth <= high)) < 0.99


def test_the_share_of_the_data_is_held_although_all_batches_share_the_data_set() -> None:
    """600 runs of 16 batches of 4 out of 100 samples, V = 2 |G|^2; with |G|^2 + V below it, 3 in 4 would hold it.

    600 of a coverage of 94 % or more are below 91 % with probability 1e-3.
    """
    rng, runs, batches, d, total = np.random.default_rng(11), 600, 16, 64, 100
    mean = np.ones(d) / np.sqrt(d)
    samples = mean + np.sqrt(8 / d) * rng.standard_normal((runs, total, d))
    g, whole = samples[:, : 4 * batches].reshape(runs, batches, 4, d).mean(2), samples.mean(1)
    square, dot = (g**2).sum(-1), np.einsum("rbd,rd->rb", g, whole)
    gradients = Gradients(square, None, dot, (whole**2).sum(-1), 4 / total)
    nothing = np.ones((1, runs, batches))
    sides = _Sides(
        gradients,
        nothing > 0,
        nothing,
        None,
        nothing,
        nothing,
        nothing[..., 0],
        nothing[..., 0],
        (nothing[..., 0],) * 2,
    )
    _, low, high = sides.data()["data_share"]
    assert 0.91 < np.mean((low <= 2 / 3) & (2 / 3 <= high)) < 0.98


def test_where_the_signal_is_lost_there_is_no_ratio_to_it() -> None:
    made = make_batches(
        np.random.default_rng(4), {"lr": Truth(kappa=5.0)}, batches=4, noise=300.0, layers={"fc": 30}
    )
    found = stats.data_or_copies(made.ds).isel(layer=0, estimator=0)
    assert np.isnan(found["data_variance"])
    assert np.isinf(found["data_variance_high"])
    assert np.isnan(found["cosine"])
    assert float(found["cosine_low"]) == 0
    assert np.isfinite(found["cosine_high"])
    assert 0.5 < float(found["data_share"])
    assert str(found["state"].values) in ("resolved", "bounded")
    assert np.isfinite(found["crossover"])


def test_a_gain_that_is_not_resolved_gives_a_lower_end() -> None:
    made = make_batches(
        np.random.default_rng(5), {"lr": Truth(kappa=1e6)}, batches=4, noise=1.0, layers={"fc": 60}
    )
    found = stats.data_or_copies(made.ds).isel(layer=0, estimator=0)
    assert str(found["state"].values) == "unresolved"
    assert np.isnan(found["crossover"])
    assert 0 < float(found["crossover_low"]) < np.inf
    assert np.isinf(found["crossover_high"])


def test_estimators_without_noise_cross_at_zero() -> None:
    truth = {
        "bp": Truth(kappa=0.0, stochastic=False),
        "fa": Truth(rho=0.3, kappa=0.0, gain=0.5, stochastic=False),
    }
    made = make_batches(np.random.default_rng(6), truth, batches=4, noise=0.5)
    found = stats.data_or_copies(made.ds, copies=[1, 1e6])
    assert (found["crossover"] == 0).all()
    assert (found["copies_variance_high"] == 0).all()
    assert (found["state"] == "resolved").all()
    for copies in (0, 1):
        bp, fa = (found["cosine"].sel(estimator=e).isel(copies=copies).values for e in ("bp", "fa"))
        assert np.allclose(bp, np.sqrt(1 - found["data_share"]))
        assert np.allclose(fa, 0.3 * bp)


def test_one_batch_and_two() -> None:
    made = make_batches(np.random.default_rng(7), TWO, batches=2, noise=0.5, dataset=N, seeds=4)
    for ds in (made.ds, made.ds.isel(batch=0), made.ds.isel(batch=[1])):
        found = stats.data_or_copies(ds)
        assert (found["state"] == "too few batches").all()
        for name in ("crossover", "data_share", "cosine"):
            assert np.isfinite(found[name]).all()
            assert np.isnan(found[f"{name}_low"]).all()
            assert np.isnan(found[f"{name}_high"]).all()
    one, law = stats.data_or_copies(made.ds.isel(batch=0)), stats.alignment(made.ds.isel(batch=0))
    for end in ("", "_low", "_high"):  # the law's price over seeds, in other units
        ratio = one[f"copies_variance{end}"] / law[f"price{end}"]
        assert np.allclose(ratio, ratio.isel(estimator=0))
    no_data = made.ds.sel(reference=["bp"])
    assert np.isfinite(stats.data_or_copies(no_data)["crossover"]).all()
    with pytest.raises(UsageError, match="probe with batches=8"):
        stats.data_or_copies(no_data.isel(batch=0))
    with pytest.raises(UsageError, match="one batch is done so far"):
        stats.data_or_copies(no_data.isel(batch=[0]))


def test_missing_failed_refused_and_short() -> None:
    truth = {
        "lr": Truth(kappa=20.0),
        "some": Truth(kappa=20.0, refused=("fc",)),
        "one": Truth(blocks=1),
        "gone": Truth(missing=(0, 1, 2)),
        "holes": Truth(kappa=20.0, failed=(1,)),
        "short": Truth(kappa=20.0, blocks=5),
    }
    made = make_batches(np.random.default_rng(8), truth, batches=5, noise=0.5)
    ds = made.ds.copy(deep=True)
    for name in ("dot", "sqnorm", "block_sqnorm"):  # one batch is not there yet for one method
        ds[name].loc[{"estimator": "lr", "batch": 4}] = np.nan
    ds["status"].loc[{"estimator": "lr", "batch": 4}] = "missing"
    found = stats.data_or_copies(ds)
    states = {e: found["state"].sel(estimator=e).values.tolist() for e in truth}
    assert states["some"] == ["resolved", "resolved", "refused"]
    assert states["one"] == ["too few copies"] * 3
    assert states["gone"] == ["missing"] * 3
    assert states["lr"] == states["holes"] == states["short"] == ["resolved"] * 3
    assert found["batches"].sel(estimator="lr").values.tolist() == [4] * 3
    for e, layer in (("some", "fc"), ("one", "fc"), ("gone", "fc")):
        cell = found.sel(estimator=e, layer=layer)
        assert all(
            np.isnan(cell[n + end])
            for n in ("crossover", "copies_variance", "cosine")
            for end in ("", "_low")
        )
    four = stats.data_or_copies(made.ds.isel(batch=slice(0, 4)))
    for name in ("crossover", "crossover_low", "copies_variance", "cosine"):
        assert np.allclose(found[name].sel(estimator="lr"), four[name].sel(estimator="lr"))
    assert np.isnan(found["cosine"].sel(estimator="short")).sum() == 0
    model = stats.data_or_copies(made.ds, "model")
    assert np.isfinite(model["crossover"].sel(estimator="some"))


def test_layers_without_gradient_and_batches_that_are_equal() -> None:
    made = make_batches(np.random.default_rng(9), {"lr": Truth(kappa=20.0)}, batches=4, noise=0.0)
    found = stats.data_or_copies(made.ds)
    assert np.allclose(found["data_share"], 0, atol=1e-9)
    assert (np.isnan(found["crossover"]) | (found["crossover"] > 1e6)).all()
    ds = made.ds.copy(deep=True)
    dead = {"parameter": ["fc.weight", "fc.bias"]}
    for name in (
        "dot",
        "sqnorm",
        "block_sqnorm",
        "reference_sqnorm",
        "reference_block_sqnorm",
        "batch_product",
    ):
        ds[name].loc[dead] = 0.0
    found = stats.data_or_copies(ds).sel(layer="fc")
    assert found["state"].values.tolist() == ["undefined"]
    assert all(np.isnan(found[name]).all() for name in NAMES)


def test_scales_names_and_copies_are_checked() -> None:
    made = make_batches(np.random.default_rng(10), TWO, batches=4, noise=0.5)
    raw, unit = (stats.data_or_copies(made.ds, "model", scale) for scale in ("raw", "unit-gain"))
    assert float(unit["crossover"].sel(estimator="alr")) < float(raw["crossover"].sel(estimator="alr"))
    assert float(unit["crossover"].sel(estimator="lr")) == pytest.approx(
        float(raw["crossover"].sel(estimator="lr")), rel=0.1
    )
    parameters = stats.data_or_copies(made.ds, "parameter")
    assert parameters["crossover"].dims == ("estimator", "parameter")
    everything = stats.data_or_copies(made.ds, {"all": "*"})
    assert np.allclose(everything["crossover"].sel(group="all"), raw["crossover"])
    for call, says in (
        (lambda: stats.data_or_copies(made.ds, "layers"), "Did you mean 'layer'"),
        (lambda: stats.data_or_copies(made.ds, copies=0), "must be a positive number"),
        (lambda: stats.data_or_copies(make_run(np.random.default_rng(0))), "one batch alone"),
        (
            lambda: stats.data_or_copies(stats.alignment(made.ds.isel(batch=0))),
            "needs the results of gp.probe",
        ),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_it_is_fast() -> None:
    """Three batches of 6 methods x 100 parameters x 20 seeds x 200 points; two seconds for each are allowed."""
    layers = {f"layer{i}": 8 for i in range(50)}
    truth = {f"m{i}": Truth(kappa=20.0) for i in range(6)}
    few = make_run(np.random.default_rng(11), layers=layers, estimators=truth, seeds=1, blocks=200)
    one = few.isel(seed=[0] * 20, other_seed=[0] * 20).assign_coords(seed=range(20), other_seed=range(20))
    table = np.eye(3) + 1.0
    run = one.assign_attrs(batch_size=4)
    ds = join_batches(dict.fromkeys(range(3), run), {p: table.tolist() for p in one["parameter"].values})
    start = time.process_time()
    stats.data_or_copies(ds, "parameter")
    stats.data_or_copies(ds, "model")
    assert time.process_time() - start < 6
