"""SPSA, MeZO, rank-shaped ES and ES with weights for each sample, against the few lines that each of them is."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block
from gradprobe.engine.engines import Engine
from gradprobe.engine.preflight import choose_engine
from gradprobe.engine.run import run
from gradprobe.estimators.base import make
from tests.problems_tiny import classifier
from tests.truth import naive
from tests.truth.checks import SEED, assert_same, known, layers_of


def loss_at(problem, shift):
    """The objective with the weights moved."""
    values = problem.parameters
    with torch.no_grad():
        return problem.total(problem.evaluate({n: values[n] + s for n, s in shift.items()}))


def noise_of(estimator, problem, layers, block):
    """{parameter: unit noise of each copy}."""
    noise = naive.all_noise(problem, estimator.draw, layers, block, SEED)
    return {x.parameters[i]: noise[x.name, i] for x in layers for i in range(len(x.parameters))}


@pytest.mark.parametrize(("name", "sigma"), [("spsa", 0.01), ("mezo", 0.001)])
def test_central_difference_in_all_weights_at_once(name, sigma):
    problem, layers = known("mlp")
    estimator = make(name).estimator
    assert estimator.draw.sigma == sigma
    block = Block(2, 6)
    noise = noise_of(estimator, problem, layers, block)
    assert all(bool((z.abs() == 1).all()) == (name == "spsa") for z in noise.values())
    want = dict.fromkeys(noise, 0.0)
    for k in range(3):
        z = {n: eps[k].double() for n, eps in noise.items()}
        assert all(torch.equal(noise[n][k + 3], -noise[n][k]) for n in z)
        up, down = (loss_at(problem, {n: s * sigma * x for n, x in z.items()}) for s in (1, -1))
        for n, x in z.items():
            want[n] = want[n] + (up - down) / (2 * sigma) / (x if name == "spsa" else 1 / x) / 3
    assert_same(estimator.directions(problem, layers, block, SEED), want, 1e-9)
    # 6 copies are 6 forwards, 3 pairs
    assert estimator.forwards(layers, 6) == 1 + 6


def test_pairs_are_needed():
    for name in ("spsa", "mezo"):
        with pytest.raises(UsageError, match="even number of copies"):
            gp.estimate(classifier(), name, copies=3)


def test_es_rank_is_openai_es():
    """Centred ranks of the whole population times its noise, mirrored, as the authors' code has them."""
    problem, layers = known("mlp")
    estimator = make("es-rank(antithetic=True, injection=joint, sigma=0.1)").estimator
    block = Block(1, 10)
    noise = noise_of(estimator, problem, layers, block)
    losses = [float(loss_at(problem, {n: 0.1 * z[k].double() for n, z in noise.items()})) for k in range(10)]
    weights = torch.from_numpy((stats.rankdata(losses) - 1) / 9 - 0.5)
    want = {n: torch.tensordot(weights, z.double(), dims=1) / 10 / 0.1 for n, z in noise.items()}
    assert_same(estimator.directions(problem, layers, block, SEED), want, 1e-9)


def test_es_rank_reads_the_draw_of_es_and_needs_two_copies():
    problem = classifier()
    ds = gp.probe(problem, ["es", "es-rank"], copies=8, block=4, seeds=2)
    forwards = ds["forwards"].sum("parameter").isel(copies=-1, seed=0).values
    assert forwards[0] == forwards[1] == 8 * len(layers_of(problem))
    assert ds["target"].values.tolist() == ["smoothed", "surrogate"]
    with pytest.raises(UsageError, match="centre=rank needs other copies in the block"):
        gp.probe(problem, "es-rank", copies=4, block=1, seeds=2)


def test_es_rank_drops_the_scale():
    """8,192 times the loss (exact in binary) changes nothing at all."""
    problem = classifier()
    big = gp.Problem(problem.module, (problem.inputs, problem.target), _scaled)
    got = [gp.estimate(p, "es-rank", copies=40, block=20) for p in (problem, big)]
    assert_same(got[0], got[1], 1e-6)


def test_es_sample_has_weights_for_each_sample():
    problem, layers = known("mlp")
    estimator = make("es-sample(sigma=0.1, injection=joint)").estimator
    block = Block(1, 3)
    noise = noise_of(estimator, problem, layers, block)
    values, size = problem.parameters, problem.batch_size
    clean = problem.clean_losses()
    want = dict.fromkeys(noise, 0.0)
    for k in range(3):
        for b in range(size):
            moved = {n: values[n] + 0.1 * z[k, b].double() for n, z in noise.items()}
            with torch.no_grad():
                own = problem.evaluate(moved)[b]
            for n, z in noise.items():
                want[n] = want[n] + problem.weights[b] * (own - clean[b]) * z[k, b].double() / 0.1 / 3
    assert_same(estimator.directions(problem, layers, block, SEED), want, 1e-9)


def test_es_sample_has_a_lower_variance_than_es():
    """B perturbations instead of one: on one layer, linear and of one output, to 1/B where samples agree.

    For a loss <w, x_b>, ES's copy is <eps, x> eps with variance (d + 1) |x|^2 of its length squared about its mean,
    and es-sample's (d + 1)/B of it where all x_b are the same: with 400 copies of each, errors of a ratio of
    variances are 2/sqrt(400 x 6/2) or so; a factor 2 is far beyond.
    """
    torch.manual_seed(0)
    inputs = torch.randn(1, 6).repeat(8, 1).double()
    module = torch.nn.Linear(6, 1, bias=False).double()
    problem = gp.Problem(module, (inputs, torch.zeros(8, 1).double()), _first_output)
    ds = gp.probe(problem, ["es", "es-sample"], copies=400, block=1, seeds=3)
    g = float(ds["reference_sqnorm"].isel(reference=0, estimator=0, seed=0).sum())
    spread = ds["block_sqnorm"].isel(copies=-1).mean("seed").sum("parameter").values - g
    assert spread[0] / g == pytest.approx(7, rel=0.5)
    assert spread[0] / spread[1] == pytest.approx(8, rel=0.5)


def test_es_sample_refuses_one_loss_for_all():
    problem, layers = known("scalar-loss")
    refused = make("es-sample").estimator.refusals(problem, layers)
    assert {"losses of their own" in why for why in refused.values()} == {True}


def _scaled(out, target):
    return 8192 * torch.nn.functional.cross_entropy(out, target, reduction="none")


def _first_output(out, target):
    return out[:, 0]


@pytest.mark.parametrize("name", ["mlp", "cnn", "time-major", "recurrent", "attention"])
def test_all_samples_of_all_copies_run_at_once(name):
    """The vectorised engine gives what one forward for each copy and sample gives, and counts as many."""
    problem, layers = known(name)
    draw = make("es-sample(sigma=0.1, injection=joint)").estimator.draw
    with problem.frozen():
        assert choose_engine(problem, draw, layers) == Engine("vmap")
        losses, counted = [], []
        for engine in ("loop", "vmap"):
            before = problem.forwards
            losses.append(run(problem, draw, layers, Block(0, 3), SEED, engine).losses)
            counted.append(problem.forwards - before)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12)
    assert counted == [3, 3]


def test_samples_run_one_by_one_where_torch_cannot_vectorise():
    problem, layers = known("fused-rnn")
    draw = make("es-sample").estimator.draw
    with problem.frozen():
        assert choose_engine(problem, draw, layers[:1]) == Engine("loop")


def test_results_know_in_what_numbers_copies_come(tmp_path):
    """Pairs and other copies that a preset needs are not in its label; a plan must give no odd number to pairs."""
    methods = {"spsa": (2, 2), "lr": (1, 1), "es-rank": (1, 2), "lr(antithetic=True, centre=mean)": (2, 4)}
    gp.probe(classifier(), list(methods), copies=40, block=8, seeds=3, out=tmp_path)
    ds = gp.open_run(tmp_path)
    found = zip(ds["copies_step"].values.tolist(), ds["copies_fewest"].values.tolist(), strict=True)
    assert list(found) == list(methods.values())
    plan = gp.plan(ds, budget=21, methods="spsa", cost="forwards")
    assert all(x.copies % 2 == 0 for x in plan.layers)
    gp.estimate(classifier(), plan)
