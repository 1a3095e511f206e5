"""Noise, encoding and smoothing: against vectors, closed forms and loops; and where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats as sps
from torch import nn

import gradprobe as gp
from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.pathwise import pathwise
from gradprobe.estimators.base import make
from gradprobe.estimators.bp import BP
from gradprobe.probes.checks import layers_of
from gradprobe.stats.decomposition import PARTS
from tests.problems_tiny import classifier
from tests.synthetic import LAYERS, Truth, make_run

METHODS = {
    "bp": Truth(kappa=0.0, stochastic=False),
    "lr": Truth(kappa=60.0),
    "alr": Truth(rho=0.8, kappa=90.0),
    "es": Truth(kappa=20_000.0),
}
RUN = {"copies": 60, "block": 5, "seeds": 4, "sigma": 0.5, "reference": "smoothed", "reference_copies": 40}
MOMENTS = RUN | {"keep": "moments"}


@pytest.fixture(scope="module")
def world() -> xr.Dataset:
    return make_run(np.random.default_rng(4), estimators=METHODS, noisy_blocks=8, reference_noise=0.05)


def part(found: xr.Dataset, name: str, **at: str) -> tuple[float, float, float]:
    cell = found.sel(part=name, **at)
    return tuple(float(cell[k]) for k in ("value", "low", "high"))


def raw(problem: gp.Problem, label: str) -> tuple[dict, list[dict], list[dict]]:
    """Backprop's gradient, and for each seed the directions of all blocks and of all blocks of the reference."""
    estimator = make(label, {"sigma": RUN["sigma"]}).estimator
    layers = layers_of(problem)
    flat = {x.name: list(x.parameters) for x in layers}

    def vectors(found: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
        joined = [
            {k: torch.cat([b[p].double().flatten() for p in ps]) for k, ps in flat.items()} for b in found
        ]
        return {k: torch.stack([b[k] for b in joined]).numpy() for k in flat}

    g = {k: v[0] for k, v in vectors([BP().directions(problem, layers, Block(0, 1), Streams(0, 0))]).items()}
    drawn, smooth = [], []
    for seed in range(RUN["seeds"]):
        blocks = [Block(k, RUN["block"]) for k in range(RUN["copies"] // RUN["block"])]
        drawn.append(vectors([estimator.directions(problem, layers, b, Streams(0, seed)) for b in blocks]))
        own = Streams(0, seed, "smoothed")
        found = []
        for k in range(RUN["reference_copies"] // RUN["block"]):
            one: dict[str, torch.Tensor] = {}
            for layer in layers:
                one |= pathwise(problem, estimator.draw, [layer], Block(k, RUN["block"]), own)
            found.append(one)
        smooth.append(vectors(found))
    return g, drawn, smooth


def pairs(b: np.ndarray) -> float:
    """Mean of <B_j, B_k> over j != k."""
    gram = b @ b.T
    return float(gram[~np.eye(len(b), dtype=bool)].mean())


def slow_parts(g: np.ndarray, drawn: list[np.ndarray], smooth: list[np.ndarray], n: float) -> np.ndarray:
    """The parts from vectors of all blocks, ``[part]``."""
    a, x = np.mean([(b @ g).mean() for b in drawn]), np.mean([pairs(b) for b in drawn])
    t = np.mean([RUN["block"] * b.var(axis=0, ddof=1).sum() for b in drawn])
    d, u = np.mean([(r @ g).mean() for r in smooth]), np.mean([pairs(r) for r in smooth])
    cos, rho = a / np.sqrt(g @ g * (x + t / n)), a / np.sqrt(g @ g * x)
    c = d / np.sqrt(g @ g * u)
    return np.array([rho - cos, c - rho, 1 - c, c - cos, 1 - rho, 1 - cos])


@pytest.mark.parametrize("label", ["lr", "alr", "es"])
def test_parts_and_intervals_are_those_of_loops_over_directions(label: str) -> None:
    problem = classifier()
    ds = gp.probe(problem, [label], **MOMENTS)
    g, drawn, smooth = raw(problem, label)
    copies = [20, 60, 500]
    for over in ("layer", "model"):
        found = stats.decompose(ds, copies, over=over).isel(estimator=0)
        for name in g if over == "layer" else [None]:
            names = [name] if name else list(g)
            join = [np.concatenate([v[k] for k in names], axis=-1) for v in (g, *drawn, *smooth)]
            own, rest = join[0], join[1:]
            blocks, refs = rest[: RUN["seeds"]], rest[RUN["seeds"] :]
            for n in copies:
                one = found.sel({"copies": n} | ({"layer": name} if name else {}))
                known = np.isfinite(one["value"].values)
                slow = slow_parts(own, blocks, refs, n)
                np.testing.assert_allclose(one["value"].values[known], slow[known], atol=2e-5)
                s = RUN["seeds"]
                without = np.array(
                    [
                        slow_parts(own, blocks[:j] + blocks[j + 1 :], refs[:j] + refs[j + 1 :], n)
                        for j in range(s)
                    ]
                )
                half = sps.t.ppf(0.975, s - 1) * np.sqrt(
                    (s - 1) / s * ((without - without.mean(0)) ** 2).sum(0)
                )
                for end, sign in (("low", -1), ("high", 1)):
                    np.testing.assert_allclose(
                        one[end].values[known], (slow + sign * half)[known], rtol=1e-3, atol=5e-5
                    )


def test_three_parts_add_up_exactly_at_any_number_of_copies(world: xr.Dataset) -> None:
    for over in ("parameter", "layer", "model"):
        found = stats.decompose(world, [16, 100.5, 320, 10_000], over=over)["value"]
        three = found.sel(part=["noise", "encoding", "smoothing"]).sum("part", skipna=False)
        total = found.sel(part="total")
        known = three.notnull()
        assert bool(known.any())
        np.testing.assert_allclose(three.where(known), total.where(known), atol=1e-14)
        two = found.sel(part="noise + encoding") + found.sel(part="smoothing")
        np.testing.assert_allclose(two, total.where(two.notnull()), atol=1e-14)


def test_known_truth_is_inside_its_intervals(world: xr.Dataset) -> None:
    """alr has a ceiling of 0.8, lr of 1, and the reference is backprop's gradient with noise: one look at seed 4."""
    found = stats.decompose(world)
    truth = {"lr": (1 - np.sqrt(320 / 380), 0.0), "alr": (0.8 * (1 - np.sqrt(320 / 410)), 0.2)}
    for label, (noise, encoding) in truth.items():
        for layer in LAYERS:
            for name, value in (("noise", noise), ("encoding", encoding), ("smoothing", 0.0)):
                middle, low, high = part(found, name, estimator=label, layer=layer)
                assert abs(value - middle) < 3 * (high - low)  # six standard errors and more
    total = 1 - stats.predict(stats.alignment(world), 320)["cosine"]
    np.testing.assert_allclose(found["value"].sel(part="total"), total, atol=1e-14)


def test_backprop_itself_lacks_nothing(world: xr.Dataset) -> None:
    for over in ("layer", "model"):
        found = stats.decompose(world, over=over).sel(estimator="bp")
        for name in ("value", "low", "high"):
            assert np.abs(found[name]).max() < 1e-12
        assert (found["state"] == "resolved").all()
        assert (found["smoothed_state"] == "resolved").all()


def test_unresolved_ceilings_give_the_sum_of_noise_and_encoding_alone(world: xr.Dataset) -> None:
    found = stats.decompose(world).sel(estimator="es")
    assert not (found["state"] == "resolved").any()
    value = found["value"]
    assert bool(value.sel(part=["noise", "encoding", "encoding + smoothing"]).isnull().all())
    assert bool(found["low"].sel(part=["noise", "encoding"]).isnull().all())
    assert bool(value.sel(part=["noise + encoding", "smoothing", "total"]).notnull().all())
    far = stats.decompose(world, 1e9).sel(estimator="es")
    assert bool(far["value"].sel(part=["noise + encoding", "total"]).isnull().all())
    assert bool(far["value"].sel(part="smoothing").notnull().all())


class Quartic(nn.Module):
    """v = W x, per-sample loss sum_i a_i v_i^2 / 2 + b_i v_i^4 / 4."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[0.9, -0.4], [0.3, 0.5], [-0.6, 0.2]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


A, B = torch.tensor([1.0, 0.5, -0.3]), torch.tensor([0.2, 1.0, 0.6])
X = torch.tensor([[1.0, 0.5], [-0.7, 1.2]])


def quartic() -> gp.Problem:
    return gp.Problem(Quartic(), (X, torch.zeros(2)), lambda v, _: (A * v**2 / 2 + B * v**4 / 4).sum(1))


@pytest.mark.parametrize(
    ("label", "sigma", "way", "copies"),
    [("lr", 1.0, "pathwise", 200), ("es", 0.5, "pathwise", 200), ("lr", 1.0, "score", 2000)],
)
def test_smoothing_bias_of_a_quartic_is_its_closed_form(
    label: str, sigma: float, way: str, copies: int
) -> None:
    """Under v + s e the derivative a v + b v^3 becomes a v + b (v^3 + 3 s^2 v); s = sigma |x| for weight noise.

    10 seeds of 200 copies (from scores 2,000) behind the reference, t-test at 1e-4 with 9 degrees of freedom: 6.6
    standard errors.
    """
    v = X @ Quartic().fc.weight.detach().T
    square = sigma**2 * ((X**2).sum(1, keepdim=True) if label == "es" else 1.0)
    clean, smooth = A * v + B * v**3, A * v + B * (v**3 + 3 * square * v)
    g, s = ((d.T @ X / 2).flatten() for d in (clean, smooth))
    truth = 1 - float(g @ s / (g.norm() * s.norm()))
    common = {"copies": 400, "block": 200, "seeds": 10, "reference": "smoothed"}
    ds = gp.probe(quartic(), [label], sigma=sigma, smoothed_by=way, reference_copies=copies, **common)
    found = stats.decompose(ds).isel(estimator=0, layer=0)
    value, low, high = part(found, "smoothing")
    se = (high - low) / 2 / sps.t.ppf(0.975, 9)
    assert truth > 0.01
    assert se < 0.3 * truth
    assert abs(value - truth) < 6.6 * se


def test_a_run_without_the_smoothed_reference_gets_one_sentence() -> None:
    ds = make_run(np.random.default_rng(0))
    with pytest.raises(UsageError) as caught:
        stats.decompose(ds)
    assert "reference=('bp', 'smoothed')" in str(caught.value)
    assert "\n" not in str(caught.value)
    both = make_run(np.random.default_rng(0), noisy_blocks=4)
    with pytest.raises(UsageError, match="these results have smoothed"):
        stats.decompose(both.sel(reference=["smoothed"]))
    with pytest.raises(UsageError, match="must be a positive number"):
        stats.decompose(both, 0)
    with pytest.raises(UsageError, match="unknown over"):
        stats.decompose(both, over="layers")


def test_refused_layers_are_nan_and_count_as_encoding_of_the_model() -> None:
    methods = {"lr": Truth(kappa=30.0), "half": Truth(kappa=30.0, refused=("fc",))}
    ds = make_run(np.random.default_rng(2), estimators=methods, noisy_blocks=8, reference_noise=0.01)
    found = stats.decompose(ds).sel(estimator="half", layer="fc")
    assert bool(found["value"].isnull().all())
    assert str(found["state"].values) == "refused"
    whole = stats.decompose(ds, over="model").sel(estimator="half")
    squares = {k: (1.0 + i) ** 2 for i, k in enumerate(LAYERS)}  # of the synthetic world's gradients
    rho = np.sqrt((squares["conv1"] + squares["conv2"]) / sum(squares.values()))
    assert part(whole, "encoding")[0] == pytest.approx(1 - rho, abs=0.02)
    assert part(whole, "smoothing")[0] == pytest.approx(0.0, abs=0.01)


def test_seeds_that_are_not_there_are_left_out() -> None:
    methods = {"lr": Truth(kappa=30.0, missing=(1,), failed=(3,)), "es": Truth(kappa=50.0)}
    ds = make_run(np.random.default_rng(3), estimators=methods, seeds=6, noisy_blocks=8)
    found = stats.decompose(ds).sel(estimator="lr")
    alone = stats.decompose(ds.sel(seed=[0, 2, 4, 5])).sel(estimator="lr")
    xr.testing.assert_allclose(found, alone)
    assert bool(found["value"].notnull().all())


def test_seeds_without_the_smoothed_reference_are_left_out_of_every_part() -> None:
    ds = make_run(np.random.default_rng(3), seeds=6, noisy_blocks=8, kappa=30.0)
    names = [n for n in ds.data_vars if n.startswith("reference_")]
    gone = (ds["seed"] == 2) & (ds["reference"] == "smoothed")
    lost = ds.assign({n: ds[n].where(~gone) for n in names})
    want = stats.decompose(ds.sel(seed=[0, 1, 3, 4, 5]))
    xr.testing.assert_allclose(stats.decompose(lost), want)


def test_without_any_smoothed_reference_noise_and_bias_remain() -> None:
    """As for a stochastic estimator that is no read-out of a draw."""
    ds = make_run(np.random.default_rng(3), estimators={"own": Truth(rho=0.7, kappa=20.0)}, noisy_blocks=8)
    names = [n for n in ds.data_vars if n.startswith("reference_")]
    gone = ds["reference"] == "smoothed"
    found = stats.decompose(ds.assign({n: ds[n].where(~gone) for n in names}))
    assert (found["smoothed_state"] == "none").all()
    known = {p for p in PARTS if bool(found["value"].sel(part=p).notnull().all())}
    assert known == {"noise", "encoding + smoothing", "total"}
    want = 1 - stats.alignment(ds)["ceiling"]
    np.testing.assert_allclose(found["value"].sel(part="encoding + smoothing"), want)


@pytest.mark.parametrize(("seeds", "blocks"), [(1, 6), (2, 2), (3, 2)])
def test_small_runs_have_values_and_intervals_from_three_seeds_on(seeds: int, blocks: int) -> None:
    ds = make_run(np.random.default_rng(5), seeds=seeds, blocks=blocks, kappa=1.0, noisy_blocks=4)
    found = stats.decompose(ds)
    assert bool(found["value"].sel(part="total").notnull().all())
    assert bool(found["low"].notnull().any()) == (seeds >= 3)
    if seeds < 3:
        assert (found["state"] == "too few seeds").all()
        assert (found["smoothed_state"] == "too few seeds").all()


def test_a_noisy_reference_leaves_encoding_and_smoothing_together() -> None:
    ds = make_run(np.random.default_rng(6), rho=0.8, kappa=5.0, noisy_blocks=4, reference_noise=100.0)
    found = stats.decompose(ds)
    lost = found["smoothed_state"] == "unresolved"
    assert bool(lost.any())
    value = found["value"].where(lost, drop=True)
    assert bool(value.sel(part=["encoding", "smoothing", "noise + encoding"]).isnull().all())
    assert bool(value.sel(part=["noise", "encoding + smoothing", "total"]).notnull().any())


def test_zero_gradients_have_no_parts() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    nn.init.zeros_(module[1].weight)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ds = gp.probe(gp.Problem(module, (x, x[:, :1]), "mse"), ["lr", "bp"], **RUN)
    found = stats.decompose(ds).sel(layer="0")
    assert bool(found["value"].isnull().all())
    assert (found["state"] == "undefined").all()


def test_hybrids_take_each_layer_from_their_parts() -> None:
    ds = gp.probe(classifier(), ["lr", "es", "hybrid(es_layers=1)"], **RUN)
    found = stats.decompose(ds)
    bias = found["value"].sel(part="encoding + smoothing")
    np.testing.assert_allclose(bias, (1 - stats.alignment(ds)["ceiling"]).where(bias.notnull()), atol=1e-12)
    for layer, label in (("first", "es"), ("last", "lr")):
        mine, its = (
            found.sel(estimator=f"{e}sigma=0.5)", layer=layer) for e in ("hybrid(es_layers=1, ", f"{label}(")
        )
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(mine[name].values, its[name].values, atol=1e-12)


def test_unit_gain_takes_unequal_gains_out_of_the_model_s_encoding() -> None:
    gains = {"conv1": 0.1, "conv2": 0.5, "fc": 2.0}
    ds = make_run(np.random.default_rng(7), kappa=2.0, gain=gains, noisy_blocks=8, reference_noise=0.001)
    plain = part(stats.decompose(ds, over="model").isel(estimator=0), "encoding")
    scaled = part(stats.decompose(ds, over="model", scale="unit-gain").isel(estimator=0), "encoding")
    squares = np.array([1.0, 4.0, 9.0])
    c = np.array(list(gains.values()))
    mixed = (c * squares).sum() / np.sqrt((c**2 * squares).sum() * squares.sum())
    assert plain[0] == pytest.approx(1 - mixed, abs=0.01)
    assert scaled[0] == pytest.approx(0.0, abs=0.01)


def test_a_plan_reckons_with_the_smoothing_bias() -> None:
    """Ceiling, scale and price of LR against backprop are those of the smoothed gradient's closed form.

    Without that reference the plan says that it does not know the bias. The scale is within 6.6 standard errors
    (t-test at 1e-4, 9 degrees of freedom); at 10 seeds x 1,000 copies behind the reference it is known to 1 %.
    """
    v = X @ Quartic().fc.weight.detach().T
    clean, smooth = A * v + B * v**3, A * v + B * (v**3 + 3 * 0.4**2 * v)
    g, s = ((d.T @ X / 2).flatten() for d in (clean, smooth))
    ds = gp.probe(
        quartic(),
        ["lr"],
        sigma=0.4,
        copies=400,
        block=20,
        seeds=10,
        reference="smoothed",
        reference_copies=1000,
    )
    law = stats.alignment(ds, reference="smoothed")
    along = ds["reference_dot"].sel(reference="smoothed").sum("parameter").squeeze().values
    error = along.std(ddof=1) / np.sqrt(10) / along.mean()
    assert error < 0.01
    plan = gp.plan(ds, cosine=0.9)
    (layer,) = plan.layers
    assert abs(layer.scale / float(g @ g / (g @ s)) - 1) < 6.6 * error
    ceiling = float(g @ s / (g.norm() * s.norm()))
    tau = float(law["T"].mean())
    need = tau * float(g @ g) / float(g @ s) ** 2 / (0.9**-2 - ceiling**-2)
    assert layer.copies == pytest.approx(need, rel=20 * error, abs=1)
    unaware = gp.plan(ds.sel(reference=["bp"]), cosine=0.9)
    assert any("Smoothing bias is not known" in note for note in unaware.notes)
    assert not any("Smoothing bias" in note for note in plan.notes)
