"""noise-level: the derivative of the smoothed loss by sigma, against closed forms, loops and backprop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.level import Level
from gradprobe.core.streams import Block
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE
from gradprobe.engine.pathwise import pathwise
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block, read_blocks
from gradprobe.estimators.noise_level import NoiseLevel
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from tests.truth import naive
from tests.truth.checks import SEED, MeanTest, assert_same, collect, flat, known, linear_chain, served

OPTIONS = [
    {},
    {"per": "neuron"},
    {"injection": "joint", "per": "neuron", "centre": "mean"},
    {"injection": "joint", "noise": "laplace", "centre": "none"},
    {"share": "batch", "antithetic": True},
    {"share": "batch", "injection": "joint", "per": "neuron"},
    {"where": "weights", "share": "batch", "centre": "mean"},
    {"where": "weights", "share": "batch", "antithetic": True},
    {"where": "weights", "share": "sample", "injection": "joint"},
]
NETWORKS = [
    "mlp",
    "cnn",
    "weighted",
    "scalar-loss",
    "recurrent",
    "tied",
    "lstm",
    "attention",
    "repeated-module",
]


def levels_of(name: str, **options) -> tuple[NoiseLevel, Problem, list[Level]]:
    estimator = NoiseLevel(sigma=0.3, **options)
    problem, layers = known(name)
    return estimator, problem, served(estimator, problem, layers)


def units(estimator: NoiseLevel, levels: list[Level]) -> list[list[Level]]:
    return [levels] if estimator.injection == "joint" else [[x] for x in levels]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_naive_loop(name, options):
    """Loss by loss and entry by entry; also where memory holds two copies only, and two blocks in one call."""
    estimator, problem, levels = levels_of(name, **options)
    for unit in units(estimator, levels) if levels else ():
        want = naive.read(problem, estimator.draw, unit, [estimator.readout], Block(3, 4), SEED)[0]
        reading = Reading(problem, estimator.draw, unit, [estimator.readout], SEED)
        assert_same(read_block(reading, Block(3, 4)).directions[0], want, 1e-9)
        for engine, most in (("loop", 2), ("loop x8", None)):
            first = next(read_blocks(reading, [3, 4], 4, engine, most))
            assert_same(first.directions[0], want, 1e-9)
    assert (
        sum(x.level_of != "" for x in levels) or options.get("share") or name in ("scalar-loss", "attention")
    )


@pytest.mark.parametrize("options", [o for o in OPTIONS if "where" not in o], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_pathwise_reference_is_the_slope_along_the_noise(name, options):
    """Backprop to sigma equals differences of the loss at fixed noise; their error is about 1e-10 over 2e-5."""
    estimator, problem, levels = levels_of(name, **options)
    for unit in units(estimator, levels) if levels else ():
        got = pathwise(problem, estimator.draw, unit, Block(2, 2), SEED)
        assert_same(got, naive.level_slopes(problem, estimator.draw, unit, Block(2, 2), SEED), 1e-6)


@pytest.mark.parametrize("share", ["batch", "sample"])
def test_the_pathwise_reference_of_weight_noise(share):
    """Its mean over the noise is sigma times the trace of the Hessian where the loss is quadratic in the weights."""
    problem, layers = known("linear")
    estimator = NoiseLevel("weights", share=share, sigma=0.3, antithetic=True)
    levels = served(estimator, problem, layers)
    closed = 0.3 * trace_of_weights(problem)
    blocks = torch.stack(
        [flat(pathwise(problem, estimator.draw, levels, Block(k, 4), SEED)) for k in range(64)]
    )
    MeanTest(blocks, torch.tensor([closed], dtype=torch.float64)).check(0.6)


def trace_of_weights(problem: Problem) -> float:
    """Trace of the Hessian of the objective with respect to all parameters, entry by entry."""
    values = problem.parameters
    clean, total = float(problem.total(problem.clean_losses())), 0.0
    for name, value in values.items():
        for entry in range(value.numel()):
            step = torch.zeros(value.numel(), dtype=value.dtype)
            step[entry] = 1e-3
            moved = [{name: value + sign * step.view(value.shape)} for sign in (1, -1)]
            up, down = (float(problem.total(problem.at(m).clean_losses())) for m in moved)
            total += (up - 2 * clean + down) / 1e-6
    return total


@pytest.mark.parametrize(("noise", "antithetic"), [("gaussian", False), ("laplace", True)])
def test_mean_is_the_closed_form_on_a_chain(noise, antithetic):
    """y = W2 (W1 x + b1) + b2, squared error over 2 outputs: dE/dsigma is sigma |W2|^2 and 2 sigma.

    Whatever the density of the noise. 64 blocks of 512 copies, false alarm 1e-6.
    """
    problem = linear_chain(32)
    estimator = NoiseLevel(noise=noise, antithetic=antithetic, sigma=0.4)
    levels = served(estimator, problem, layers_of_chain(problem))
    own = float((problem.parameters["1.weight"] ** 2).sum())
    expected = torch.tensor([0.4 * own, 0.8], dtype=torch.float64)
    MeanTest(collect(estimator, problem, levels, 64, 512), expected).check(0.3)


def layers_of_chain(problem: Problem):
    from gradprobe.layers.find import find_layers

    return list(find_layers(problem).layers)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("mlp", {"injection": "joint", "per": "neuron"}),
        ("lstm", {}),
    ],
    ids=str,
)
def test_mean_is_the_pathwise_mean(name, options):
    """Two samples of one mean, with noise of their own: 64 blocks each, false alarm 1e-6.

    Sizes are from the blocks' spread: at 512 copies and 32 gradients a fault of scale of 0.3 is seen in each.
    """
    estimator, problem, levels = levels_of(name, antithetic=True, **options)
    own = collect(estimator, problem, levels, 64, 512)
    other = replace(SEED, purpose="smoothed")
    paths = []
    for k in range(64):
        found = {}
        for unit in units(estimator, levels):
            found |= pathwise(problem, estimator.draw, unit, Block(k, 32), other)
        paths.append(flat({p: found[p] for x in levels for p in x.parameters}))
    mean = torch.stack(paths).mean(0)
    MeanTest(own - torch.stack(paths) + mean, mean).check(0.3)


def test_neurons_add_up_to_the_layer():
    """One sigma for the layer moves all of its neurons': its derivative is their sum."""
    for name in ("mlp", "cnn", "lstm"):
        one, problem, levels = levels_of(name)
        each, _, parts = levels_of(name, per="neuron")
        whole = one.directions(problem, levels, Block(0, 4), SEED)
        apart = each.directions(problem, parts, Block(0, 4), SEED)
        by_layer = {x.level_of: x.parameters[0] for x in levels}
        assert {x.level_of for x in parts} <= set(by_layer)
        for part in parts:
            total = apart[part.parameters[0]].sum()
            torch.testing.assert_close(total, whole[by_layer[part.level_of]], rtol=1e-9, atol=1e-12)


def test_it_reads_the_noise_of_lr():
    """With the same options the noise of noise-level is that of lr: (L - c)(eps^2 - 1)/sigma from lr's own draw."""
    problem, layers = known("mlp")
    estimator = NoiseLevel(sigma=0.3)
    draw = Draw(sigma=0.3)
    noise = naive.all_noise(problem, draw, layers[:1], Block(0, 4), SEED)[layers[0].name, 0].double()
    losses = [
        naive.run(problem, layers[:1], {(layers[0].name, 0): 0.3 * noise[k]})[0] - naive.run(problem)[0]
        for k in range(4)
    ]
    scores = ((noise**2 - 1) / 0.3).flatten(2).sum(2)
    want = sum((problem.weights * x * s).sum() for x, s in zip(losses, scores, strict=True)) / 4
    levels = served(estimator, problem, layers[:1])
    got = estimator.directions(problem, levels, Block(0, 4), SEED)[levels[0].parameters[0]]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0.0)


def test_refusals_name_the_way_out():
    problem, layers = known("layer-norm")
    estimator = NoiseLevel(per="neuron")
    refused = estimator.refusals(problem, estimator.brings(problem, layers))
    assert any("use per=layer" in why for why in refused.values())
    with pytest.raises(gp.UsageError, match="use per=layer"):
        NoiseLevel(where="weights", per="neuron")
    for name in NOISE.names():
        if not NOISE.get(name).exact:
            with pytest.raises(gp.UsageError, match="no score of its level"):
                NoiseLevel("weights", noise=name, share="batch")
    with pytest.raises(gp.UsageError, match="levels of noise"):
        gp.descend("booth", ["noise-level"], steps=2)


def test_a_name_that_the_model_uses_is_left_to_it():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.sigma = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.weight) * self.sigma

    problem = Problem(nn.Sequential(Own(), nn.Linear(2, 2)), (torch.ones(3, 2), torch.zeros(3, 2)), "mse")
    found = gp.estimate(problem, "noise-level", copies=10)
    assert set(found) == {"0.sigma of the noise", "1.sigma"}
    assert all(value.shape == () for value in found.values())


def test_the_read_out_has_no_sign_of_its_own():
    """ALR (eq. 3) takes signs of the weights' part only: a level's read-out is always exact."""
    assert NoiseLevel().readout == ReadOut("clean", "exact")
    assert "encode" not in NoiseLevel.__dataclass_fields__
